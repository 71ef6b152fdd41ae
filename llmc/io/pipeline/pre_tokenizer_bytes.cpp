// ByteLevel and Metaspace: the two that also change the text.
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/pre_tokenizer.h"
#include "llmc/io/pipeline/regex.h"

#include <utility>

namespace llmc {
namespace {

class ByteLevel final : public PreTokenizer {
  public:
    explicit ByteLevel(const ByteLevelSettings& settings) : settings_(settings), regex_(kGpt2Pattern, "ByteLevel") {}
    std::unique_ptr<PieceSink> connect(PieceSink& next) const override { return std::make_unique<Run>(*this, next); }
    BlankCut cut_before(char blank) const override {
        if (settings_.use_regex) return blank == ' ' || !settings_.add_prefix_space ? BlankCut::Cut : BlankCut::Unknown;
        return blank == ' ' || !settings_.add_prefix_space ? BlankCut::Kept : BlankCut::Unknown;
    }

  private:
    class Run final : public PieceSink {
      public:
        Run(const ByteLevel& stage, PieceSink& next) : settings_(stage.settings_), search_(stage.regex_), next_(next) {}
        void take(Piece piece) override {
            if (settings_.add_prefix_space && !piece.text.starts_with(' ')) {
                prefixed_.assign(1, ' ').append(piece.text);
                piece.text = prefixed_;
            }
            if (!settings_.use_regex) return emit(piece);
            const std::string_view text = piece.text;
            search_.start(text);
            size_t done = 0, begin = 0, end = 0;
            while (search_.next(&begin, &end)) {  // The expression leaves nothing out.
                emit({text.substr(done, end - done), piece.is_first && done == 0});
                done = end;
            }
        }

      private:
        void emit(Piece piece) {
            if (!settings_.spell) return next_.take(piece);
            spelled_ = to_alphabet(piece.text);
            next_.take({spelled_, piece.is_first});
        }
        ByteLevelSettings settings_;
        RegexSearch search_;
        PieceSink& next_;
        std::string prefixed_, spelled_;
    };

    ByteLevelSettings settings_;
    Regex regex_;
};

class Metaspace final : public PreTokenizer {
  public:
    Metaspace(std::string replacement, PrependScheme scheme, bool split)
        : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
    std::unique_ptr<PieceSink> connect(PieceSink& next) const override { return std::make_unique<Run>(*this, next); }
    BlankCut cut_before(char blank) const override {
        if (blank != ' ') return scheme_ == PrependScheme::Always ? BlankCut::Unknown : BlankCut::Kept;
        return split_ ? BlankCut::Cut : BlankCut::Kept;
    }

  private:
    class Run final : public PieceSink {
      public:
        Run(const Metaspace& stage, PieceSink& next)
            : stage_(stage), cutter_(SplitBehavior::MergedWithNext, /*invert=*/false, next), next_(next) {}
        void take(Piece piece) override {
            const std::string& sign = stage_.replacement_;
            const bool begins_with_it = piece.text.starts_with(' ') || piece.text.starts_with(sign);
            const bool prepends =
                stage_.scheme_ == PrependScheme::Always || (stage_.scheme_ == PrependScheme::First && piece.is_first);
            text_.clear();
            if (prepends && !begins_with_it) text_ += sign;
            for (size_t i = 0; i < piece.text.size();) {
                const size_t blank = std::min(piece.text.find(' ', i), piece.text.size());
                text_.append(piece.text, i, blank - i);
                if (blank < piece.text.size()) text_ += sign;
                i = blank + 1;
            }
            piece.text = text_;
            if (!stage_.split_) return next_.take(piece);
            cutter_.start(piece);
            size_t done = 0;
            for (size_t p = text_.find(sign); p != std::string::npos; p = text_.find(sign, done)) {
                if (done < p) cutter_.add(done, p, false);
                cutter_.add(p, p + sign.size(), true);
                done = p + sign.size();
            }
            if (done < text_.size()) cutter_.add(done, text_.size(), false);
            cutter_.finish();
        }

      private:
        const Metaspace& stage_;
        PieceCutter cutter_;
        PieceSink& next_;
        std::string text_;
    };

    std::string replacement_;
    PrependScheme scheme_;
    bool split_;
};

}  // namespace

std::unique_ptr<PreTokenizer> make_byte_level(const ByteLevelSettings& settings) {
    return std::make_unique<ByteLevel>(settings);
}

std::unique_ptr<PreTokenizer> make_metaspace(const std::string& replacement, PrependScheme scheme, bool split) {
    return std::make_unique<Metaspace>(replacement, scheme, split);
}

}  // namespace llmc
