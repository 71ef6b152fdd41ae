// Split, by an expression or a text.
#include "llmc/io/pipeline/pre_tokenizer.h"
#include "llmc/io/pipeline/regex.h"

#include <algorithm>

namespace llmc {
namespace {

class RegexSplit final : public PreTokenizer {
  public:
    RegexSplit(const std::string& pattern, SplitBehavior behavior, bool invert, const std::string& source)
        : regex_(pattern, source),
          behavior_(behavior),
          invert_(invert),
          cut_(known_pattern_cut(pattern, behavior, invert)) {}
    std::unique_ptr<PieceSink> connect(PieceSink& next) const override { return std::make_unique<Run>(*this, next); }
    BlankCut cut_before(char) const override { return cut_; }

  private:
    class Run final : public PieceSink {
      public:
        Run(const RegexSplit& stage, PieceSink& next)
            : search_(stage.regex_), cutter_(stage.behavior_, stage.invert_, next) {}
        void take(Piece piece) override {
            cutter_.start(piece);
            search_.start(piece.text);
            size_t done = 0, begin = 0, end = 0;
            while (search_.next(&begin, &end)) {
                if (done < begin) cutter_.add(done, begin, false);
                cutter_.add(begin, end, true);
                done = end;
            }
            if (done < piece.text.size()) cutter_.add(done, piece.text.size(), false);
            cutter_.finish();
        }

      private:
        RegexSearch search_;
        PieceCutter cutter_;
    };

    Regex regex_;
    SplitBehavior behavior_;
    bool invert_;
    BlankCut cut_;
};

class LiteralSplit final : public PreTokenizer {
  public:
    LiteralSplit(std::string text, SplitBehavior behavior, bool invert)
        : text_(std::move(text)), behavior_(behavior), invert_(invert) {}
    std::unique_ptr<PieceSink> connect(PieceSink& next) const override { return std::make_unique<Run>(*this, next); }
    BlankCut cut_before(char) const override {
        // Isolated text that has no blank in it is found on one side or the other.
        const bool has_blank = text_.find_first_of(" \n") != std::string::npos;
        return behavior_ == SplitBehavior::Isolated && !has_blank ? BlankCut::Kept : BlankCut::Unknown;
    }

  private:
    class Run final : public PieceSink {
      public:
        Run(const LiteralSplit& stage, PieceSink& next)
            : text_(stage.text_), cutter_(stage.behavior_, stage.invert_, next) {}
        void take(Piece piece) override {
            cutter_.start(piece);
            size_t done = 0;
            for (size_t p = piece.text.find(text_); p != std::string_view::npos; p = piece.text.find(text_, done)) {
                if (done < p) cutter_.add(done, p, false);
                cutter_.add(p, p + text_.size(), true);
                done = p + text_.size();
            }
            if (done < piece.text.size()) cutter_.add(done, piece.text.size(), false);
            cutter_.finish();
        }

      private:
        const std::string& text_;
        PieceCutter cutter_;
    };

    std::string text_;
    SplitBehavior behavior_;
    bool invert_;
};

}  // namespace

std::unique_ptr<PreTokenizer> make_split(const std::string& pattern, SplitBehavior behavior, bool invert,
                                         const std::string& source) {
    return std::make_unique<RegexSplit>(pattern, behavior, invert, source);
}

std::unique_ptr<PreTokenizer> make_literal_split(const std::string& text, SplitBehavior behavior, bool invert,
                                                 const std::string& source) {
    if (text.empty()) return make_split("", behavior, invert, source);  // Matches between all characters.
    return std::make_unique<LiteralSplit>(text, behavior, invert);
}

}  // namespace llmc
