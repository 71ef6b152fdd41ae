#include "llmc/io/tokenizer.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/io/llmc_tokenizer.h"
#include "llmc/io/pipeline/pipeline_files.h"
#include "llmc/io/sentencepiece_tokenizer.h"
#include "llmc/io/tokenizer_choices.h"
#include "llmc/io/tokenizer_files.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

class ByteEncoder final : public Encoder {
  public:
    explicit ByteEncoder(SpecialTokens special) : special_(special) {}
    void encode(std::string_view text, bool, std::vector<int32_t>* tokens) override {
        for (size_t i = 0; i < text.size();) {
            const bool is_end = special_ == SpecialTokens::AsIds && text.substr(i).starts_with(kEndName);
            tokens->push_back(is_end ? ByteTokenizer::kEndOfText : static_cast<unsigned char>(text[i]));
            i += is_end ? kEndName.size() : 1;
        }
    }
    size_t safe_cut(std::string_view text, size_t from) override {
        if (special_ == SpecialTokens::AsText) return from;
        const size_t begin = from - std::min(from, kEndName.size() - 1);
        const size_t end = text.substr(0, from + kEndName.size() - 1).find(kEndName, begin);
        return end == std::string_view::npos ? from : std::max(from, end + kEndName.size());
    }

  private:
    static constexpr std::string_view kEndName = "<|endoftext|>";
    SpecialTokens special_;
};

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
    std::vector<int32_t> tokens;
    make_encoder(SpecialTokens::AsText)->encode(text, /*continues=*/false, &tokens);
    return tokens;
}

std::unique_ptr<Encoder> ByteTokenizer::make_encoder(SpecialTokens special) const {
    return std::make_unique<ByteEncoder>(special);
}

std::string ByteTokenizer::token_bytes(int32_t token) const {
    if (token < 0 || token >= kVocabSize) {
        fail("token {} is not in the byte tokenizer's vocabulary of {}; the data or model needs another tokenizer",
             token, kVocabSize);
    }
    return token == kEndOfText ? "<|endoftext|>" : std::string(1, static_cast<char>(token));
}

std::string ByteTokenizer::decode(std::span<const int32_t> tokens) const {
    std::string text;
    text.reserve(tokens.size());
    for (const int32_t token : tokens) {
        if (token != kEndOfText) text += token_bytes(token);
    }
    return text;
}

std::unique_ptr<Encoder> UnknownTokenizer::make_encoder(SpecialTokens) const {
    fail(
        "text cannot be turned into tokens: there is no tokenizer (--tokenizer=none), or the model was trained on "
        "token "
        "files whose tokenizer is not known; name the model's with --tokenizer=PATH");
}

std::string UnknownTokenizer::token_bytes(int32_t token) const { return fmt::format("<{}>", token); }

std::string UnknownTokenizer::decode(std::span<const int32_t> tokens) const {
    std::string text;
    for (const int32_t token : tokens) text += token_bytes(token);
    return text;
}

namespace {

void require_no_choice(const std::string& choice, const char* option, const char* why) {
    if (!choice.empty()) fail_usage("{}={}: {}; leave {} out", option, choice, why, option);
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& reference, const TokenizerChoices& given) {
    const TokenizerFiles files = find_tokenizer_files(reference);
    const TokenizerChoices choices = with_kept_choices(given, files.folder);
    if (files.kind != TokenizerKind::Ranks) {
        require_no_choice(choices.pattern, "--tokenizer-pattern", "only rank files need a pattern");
    }
    const auto pipeline = [&](Pipeline read) {
        return std::make_unique<PipelineTokenizer>(reference, std::move(read));
    };
    switch (files.kind) {
        case TokenizerKind::VocabAndMerges:
            return pipeline(read_vocab_and_merges(files.path, files.merges_path, files.folder, choices));
        case TokenizerKind::TokenizerJson: return pipeline(read_tokenizer_json(files.path, files.folder, choices));
        case TokenizerKind::Ranks: return pipeline(read_ranks(files.path, choices));
        case TokenizerKind::SentencePiece:
            return make_sentencepiece_tokenizer(reference, files.path, choices.document_token);
        default: require_no_choice(choices.document_token, "--document-token", "this tokenizer has one of its own");
    }
    if (files.kind == TokenizerKind::Llmc) return std::make_unique<LlmcTokenizer>(reference, files.path);
    if (files.kind == TokenizerKind::None) return std::make_unique<UnknownTokenizer>();
    return std::make_unique<ByteTokenizer>();
}

void require_vocabulary(const Tokenizer& tokenizer, int64_t V) {
    if (tokenizer.vocab_size() <= V) return;
    fail(
        "tokenizer '{}' has {} tokens, but the model's vocabulary is {}; give the tokenizer that the model was made "
        "with",
        tokenizer.name(), tokenizer.vocab_size(), V);
}

}  // namespace llmc
