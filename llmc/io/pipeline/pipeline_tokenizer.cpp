#include "llmc/io/pipeline/pipeline_tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/unicode.h"

#include <algorithm>
#include <utility>

namespace llmc {
class PipelineEncoder final : public Encoder {
  public:
    PipelineEncoder(const PipelineTokenizer& tokenizer, bool special_as_text)
        : tokenizer_(tokenizer),
          pipeline_(tokenizer.pipeline_),
          special_as_text_(special_as_text),
          model_(pipeline_.model->make_encoder(tokenizer.lost_)),
          end_(*model_, &tokens_) {
        PieceSink* next = &end_;
        for (auto stage = pipeline_.pre_tokenizers.rbegin(); stage != pipeline_.pre_tokenizers.rend(); ++stage) {
            stages_.push_back((*stage)->connect(*next));
            next = stages_.back().get();
        }
        begin_ = next;
    }

    void encode(std::string_view text, bool continues, std::vector<int32_t>* tokens) override {
        tokens_ = tokens;
        for (size_t done = 0; done < text.size();) {
            const std::string_view valid = text.substr(done, valid_utf8_prefix(text.substr(done)));
            encode_valid(valid, done == 0, continues);
            done += valid.size();
            if (done == text.size()) break;
            model_->encode_byte(text[done], tokens);
            ++done;
        }
    }

    size_t safe_cut(std::string_view text, size_t from) override {
        constexpr BlankCut kUnknown = BlankCut::Unknown;
        if (tokenizer_.cut_before_space_ == kUnknown && tokenizer_.cut_before_newline_ == kUnknown) return text.size();
        for (size_t p = blank_after_letter(text, from); p < text.size(); p = blank_after_letter(text, p + 1)) {
            const BlankCut stages = text[p] == ' ' ? tokenizer_.cut_before_space_ : tokenizer_.cut_before_newline_;
            if (stages == BlankCut::Unknown || tokenizer_.raw_.minds_cut(text, p) || !normal_tokens_allow(text, p)) {
                continue;
            }
            const size_t letter = character_before(text, p);
            if (stages == BlankCut::Cut || model_cuts(text.substr(letter, p - letter), text.substr(p, 1))) return p;
        }
        return text.size();
    }

  private:
    class End final : public PieceSink {
      public:
        End(ModelEncoder& model, std::vector<int32_t>** tokens) : model_(model), tokens_(tokens) {}
        void take(Piece piece) override { model_.encode(piece.text, *tokens_); }

      private:
        ModelEncoder& model_;
        std::vector<int32_t>** tokens_;
    };

    void encode_valid(std::string_view text, bool is_first, bool continues) {
        tokenizer_.raw_.split(
            text, special_as_text_,
            [&](size_t begin, size_t end) {
                const bool at_begin = is_first && begin == 0;
                encode_stretch(text.substr(begin, end - begin), at_begin && !continues, at_begin && continues);
            },
            [&](int32_t token) { tokens_->push_back(token); });
    }

    /// What is between two tokens that were looked for before normalisation.
    void encode_stretch(std::string_view text, bool is_first, bool continues) {
        if (!pipeline_.normalizers.empty()) {
            normal_.text = text;
            normal_.is_first = is_first;
            normal_.continues = continues;
            for (const auto& stage : pipeline_.normalizers) stage->apply(&normal_);
            text = normal_.text;
            is_first = normal_.is_first;
        }
        tokenizer_.normal_.split(
            text, special_as_text_,
            [&](size_t begin, size_t end) {
                begin_->take({text.substr(begin, end - begin), is_first && begin == 0});
            },
            [&](int32_t token) { tokens_->push_back(token); });
    }

    /// Whether no token that is looked for behind normalisation minds a cut.
    bool normal_tokens_allow(std::string_view text, size_t p) const {
        if (tokenizer_.normal_.empty()) return true;
        if (pipeline_.normalizers.empty()) return !tokenizer_.normal_.minds_cut(text, p);
        // Where text and its normal form are the same around the cut, the text itself tells.
        constexpr size_t kAround = 256;
        const std::string_view around = text.substr(p - std::min(p, kAround), 2 * kAround);
        for (const char c : around) {
            if (static_cast<signed char>(c) < 0) return false;
        }
        const auto keeps = [](const auto& stage) { return stage->keeps_ascii(); };
        return std::all_of(pipeline_.normalizers.begin(), pipeline_.normalizers.end(), keeps) &&
               tokenizer_.normal_.longest() < kAround && !tokenizer_.normal_.minds_cut(text, p);
    }

    /// Sends single characters through all stages to see what the model would meet on both sides.
    bool model_cuts(std::string_view letter, std::string_view blank) {
        const auto pass = [&](std::string_view text) {
            NormalText normal = {std::string(text), /*is_first=*/false, /*continues=*/true};
            for (const auto& stage : pipeline_.normalizers) stage->apply(&normal);
            class Collector final : public PieceSink {
              public:
                void take(Piece piece) override { text += piece.text; }
                std::string text;
            } collector;
            PieceSink* next = &collector;
            std::vector<std::unique_ptr<PieceSink>> stages;
            for (auto stage = pipeline_.pre_tokenizers.rbegin(); stage != pipeline_.pre_tokenizers.rend(); ++stage) {
                stages.push_back((*stage)->connect(*next));
                next = stages.back().get();
            }
            if (!normal.text.empty()) next->take({normal.text, false});
            return collector.text;
        };
        return pipeline_.model->never_joins(pass(letter), pass(blank));
    }

    const PipelineTokenizer& tokenizer_;
    const Pipeline& pipeline_;
    bool special_as_text_;
    std::unique_ptr<ModelEncoder> model_;
    std::vector<int32_t>* tokens_ = nullptr;
    End end_;
    std::vector<std::unique_ptr<PieceSink>> stages_;  ///< The last first.
    PieceSink* begin_ = nullptr;
    NormalText normal_;
};

PipelineTokenizer::PipelineTokenizer(std::string name, Pipeline pipeline)
    : name_(std::move(name)), pipeline_(std::move(pipeline)), lost_(name_) {
    vocab_size_ = std::max(pipeline_.model->names().limit(), pipeline_.document_token.id + 1);
    for (const AddedToken& token : pipeline_.added) vocab_size_ = std::max(vocab_size_, token.id + 1);
    added_names_.resize(static_cast<size_t>(vocab_size_));
    std::vector<AddedToken> raw, normal;
    for (AddedToken token : pipeline_.added) {
        if (token.normalized) {
            NormalText text = {token.text, /*is_first=*/true, /*continues=*/false};
            for (const auto& stage : pipeline_.normalizers) stage->apply(&text);
            token.text = std::move(text.text);
        }
        added_names_[static_cast<size_t>(token.id)] = token.text;
        (token.normalized ? normal : raw).push_back(std::move(token));
    }
    raw_ = AddedTokenFinder(std::move(raw));
    normal_ = AddedTokenFinder(std::move(normal));
    for (const auto& [cut, blank] : {std::pair(&cut_before_space_, ' '), std::pair(&cut_before_newline_, '\n')}) {
        *cut = BlankCut::Kept;
        for (const auto& stage : pipeline_.pre_tokenizers) {
            if (*cut == BlankCut::Kept) *cut = stage->cut_before(blank);
        }
        for (const auto& stage : pipeline_.normalizers) {
            if (!stage->allows_cuts()) *cut = BlankCut::Unknown;
        }
    }
}

std::string PipelineTokenizer::describe_end_of_text() const {
    const DocumentToken& token = pipeline_.document_token;
    if (token.id < 0) return "";
    return fmt::format("documents begin with '{}', token {} (named by {})", token.name, token.id, token.named_by);
}

std::unique_ptr<Encoder> PipelineTokenizer::make_encoder(SpecialTokens special) const {
    return std::make_unique<PipelineEncoder>(*this, special == SpecialTokens::AsText);
}

const std::string& PipelineTokenizer::name_of_token(int32_t token) const {
    if (token < 0 || token >= vocab_size_) {
        fail("token {} is not in the vocabulary of tokenizer '{}', which has {}; the data or model needs another one",
             token, name_, vocab_size_);
    }
    const std::string& added = added_names_[static_cast<size_t>(token)];
    if (!added.empty() || !pipeline_.model->names().has(token)) return added;
    return pipeline_.model->names().name(token);
}

std::string PipelineTokenizer::token_bytes(int32_t token) const {
    const std::string& name = name_of_token(token);
    const bool is_added = !added_names_[static_cast<size_t>(token)].empty();
    return name.empty() || is_added ? name : pipeline_.decoder.decode_next(name);
}

std::string PipelineTokenizer::decode(std::span<const int32_t> tokens) const {
    std::vector<std::string> names;
    for (const int32_t token : tokens) {
        if (token == end_of_text()) continue;
        const std::string& name = name_of_token(token);
        if (!name.empty()) names.push_back(name);
    }
    return pipeline_.decoder.decode(names);
}

}  // namespace llmc
