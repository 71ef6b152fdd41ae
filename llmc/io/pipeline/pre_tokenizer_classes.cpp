// Pre-tokenisers that look at one character at a time: Digits, Punctuation, Whitespace, WhitespaceSplit,
// CharDelimiterSplit.
#include "llmc/io/pipeline/pre_tokenizer.h"
#include "llmc/io/pipeline/unicode.h"

namespace llmc {
namespace {

/// Splits at the characters for which is_match(character) holds.
template <typename IsMatch>
class CharacterSplit final : public PreTokenizer {
  public:
    CharacterSplit(IsMatch is_match, SplitBehavior behavior, BlankCut cut)
        : is_match_(is_match), behavior_(behavior), cut_(cut) {}
    std::unique_ptr<PieceSink> connect(PieceSink& next) const override { return std::make_unique<Run>(*this, next); }
    BlankCut cut_before(char) const override { return cut_; }

  private:
    class Run final : public PieceSink {
      public:
        Run(const CharacterSplit& stage, PieceSink& next)
            : is_match_(stage.is_match_), cutter_(stage.behavior_, /*invert=*/false, next) {}
        void take(Piece piece) override {
            const std::string_view text = piece.text;
            cutter_.start(piece);
            size_t done = 0;
            for (size_t i = 0, bytes = 0; i < text.size(); i += bytes) {
                bytes = utf8_bytes(text[i]);
                if (!is_match_(character_at(text, i))) continue;
                if (done < i) cutter_.add(done, i, false);
                cutter_.add(i, i + bytes, true);
                done = i + bytes;
            }
            if (done < text.size()) cutter_.add(done, text.size(), false);
            cutter_.finish();
        }

      private:
        IsMatch is_match_;
        PieceCutter cutter_;
    };

    IsMatch is_match_;
    SplitBehavior behavior_;
    BlankCut cut_;
};

template <typename IsMatch>
std::unique_ptr<PreTokenizer> make_character_split(IsMatch is_match, SplitBehavior behavior, BlankCut cut) {
    return std::make_unique<CharacterSplit<IsMatch>>(is_match, behavior, cut);
}

class Whitespace final : public PreTokenizer {
  public:
    std::unique_ptr<PieceSink> connect(PieceSink& next) const override { return std::make_unique<Run>(next); }
    BlankCut cut_before(char) const override { return BlankCut::Cut; }

  private:
    enum class Kind : uint8_t { Blank, Word, Other };
    static Kind kind_of(char32_t c) {
        return is_word_character(c) ? Kind::Word : is_white_space(c) ? Kind::Blank : Kind::Other;
    }
    class Run final : public PieceSink {
      public:
        explicit Run(PieceSink& next) : next_(next) {}
        void take(Piece piece) override {
            const std::string_view text = piece.text;
            for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
                const Kind kind = kind_of(character_at(text, begin));
                do {
                    end += utf8_bytes(text[end]);
                } while (end < text.size() && kind_of(character_at(text, end)) == kind);
                if (kind == Kind::Blank) continue;
                next_.take({text.substr(begin, end - begin), piece.is_first && begin == 0});
            }
        }

      private:
        PieceSink& next_;
    };
};

}  // namespace

std::unique_ptr<PreTokenizer> make_digits(bool individual) {
    const auto is_match = [](char32_t c) { return c < 0x80 ? c - U'0' < 10 : is_number(c); };
    return make_character_split(is_match, individual ? SplitBehavior::Isolated : SplitBehavior::Contiguous,
                                BlankCut::Kept);
}

std::unique_ptr<PreTokenizer> make_punctuation(SplitBehavior behavior) {
    const bool is_local = behavior == SplitBehavior::Isolated || behavior == SplitBehavior::Removed ||
                          behavior == SplitBehavior::Contiguous;
    return make_character_split(is_punctuation, behavior, is_local ? BlankCut::Kept : BlankCut::Unknown);
}

std::unique_ptr<PreTokenizer> make_whitespace() { return std::make_unique<Whitespace>(); }

std::unique_ptr<PreTokenizer> make_whitespace_split() {
    return make_character_split(is_white_space, SplitBehavior::Removed, BlankCut::Cut);
}

std::unique_ptr<PreTokenizer> make_delimiter_split(char32_t delimiter) {
    return make_character_split([delimiter](char32_t c) { return c == delimiter; }, SplitBehavior::Removed,
                                BlankCut::Unknown);
}

}  // namespace llmc
