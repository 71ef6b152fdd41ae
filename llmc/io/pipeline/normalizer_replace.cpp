// Replace, by an expression or a text.
#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/regex.h"
#include "llmc/io/pipeline/unicode.h"

#include <string_view>
#include <utility>

namespace llmc {
namespace {

class RegexReplace final : public Normalizer {
  public:
    RegexReplace(const std::string& pattern, std::string content, const std::string& source)
        : regex_(pattern, source), content_(std::move(content)) {}
    void apply(NormalText* text) const override {
        if (text->text.empty()) return;
        const std::string_view from = text->text;
        RegexSearch search(regex_);
        search.start(from);
        std::string out;
        size_t done = 0, begin = 0, end = 0;
        while (search.next(&begin, &end)) {
            out.append(from, done, begin - done).append(content_);
            // What stands for several characters counts as the last of them.
            const bool is_one = end > 0 && end == utf8_bytes(from[0]) && !content_.empty();
            if (begin == 0 && end > 0 && !is_one) text->is_first = false;
            done = end;
        }
        out.append(from, done);
        text->text = std::move(out);
    }
    bool allows_cuts() const override { return false; }

  private:
    Regex regex_;
    std::string content_;
};

class LiteralReplace final : public Normalizer {
  public:
    LiteralReplace(std::string text, std::string content) : text_(std::move(text)), content_(std::move(content)) {}
    void apply(NormalText* text) const override {
        const std::string_view from = text->text;
        size_t p = from.find(text_);
        if (p == std::string_view::npos) return;
        if (p == 0 && (content_.empty() || text_.size() > utf8_bytes(text_[0]))) text->is_first = false;
        std::string out;
        out.reserve(from.size() + from.size() / 4);
        size_t done = 0;
        for (; p != std::string_view::npos; p = from.find(text_, done)) {
            out.append(from, done, p - done).append(content_);
            done = p + text_.size();
        }
        out.append(from, done);
        text->text = std::move(out);
    }
    bool allows_cuts() const override { return text_.size() == utf8_bytes(text_[0]); }  // One character.

  private:
    std::string text_, content_;
};

}  // namespace

std::unique_ptr<Normalizer> make_replace(const std::string& pattern, const std::string& content,
                                         const std::string& source) {
    return std::make_unique<RegexReplace>(pattern, content, source);
}

std::unique_ptr<Normalizer> make_literal_replace(const std::string& text, const std::string& content,
                                                 const std::string& source) {
    if (text.empty()) return make_replace("", content, source);
    return std::make_unique<LiteralReplace>(text, content);
}

}  // namespace llmc
