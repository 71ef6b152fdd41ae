// Normalisers that look at one character at a time, and those at the ends of a text: Lowercase, StripAccents, Nmt,
// ByteLevel, Strip, Prepend.
#include "llmc/io/bpe_alphabet.h"
#include "llmc/io/pipeline/normalizer.h"
#include "llmc/io/pipeline/unicode.h"

#include <string_view>
#include <utility>

namespace llmc {
namespace {

class Lowercase final : public Normalizer {
  public:
    void apply(NormalText* text) const override {
        std::string out;
        out.reserve(text->text.size());
        const std::string_view from = text->text;
        for (size_t i = 0; i < from.size(); i += utf8_bytes(from[i])) {
            const char c = from[i];
            if (static_cast<signed char>(c) >= 0) {
                out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
            } else {
                append_lower_case(character_at(from, i), &out);
            }
        }
        text->text = std::move(out);
    }
    bool allows_cuts() const override { return true; }
};

/// Keeps or replaces every character: change(c) is 0 where it goes.
template <typename Change>
class CharacterFilter final : public Normalizer {
  public:
    CharacterFilter(Change change, bool allows_cuts, bool keeps_ascii)
        : change_(change), allows_cuts_(allows_cuts), keeps_ascii_(keeps_ascii) {}
    void apply(NormalText* text) const override {
        std::string out;
        const std::string_view from = text->text;
        for (size_t i = 0; i < from.size(); i += utf8_bytes(from[i])) {
            const char32_t c = character_at(from, i), changed = c == 0 ? 0 : change_(c);
            if (changed != 0 || c == 0) {
                append_utf8(changed, &out);
            } else if (i == 0) {
                text->is_first = false;
            }
        }
        text->text = std::move(out);
    }
    bool allows_cuts() const override { return allows_cuts_; }
    bool keeps_ascii() const override { return keeps_ascii_; }

  private:
    Change change_;
    bool allows_cuts_, keeps_ascii_;
};

template <typename Change>
std::unique_ptr<Normalizer> make_filter(Change change, bool allows_cuts, bool keeps_ascii) {
    return std::make_unique<CharacterFilter<Change>>(change, allows_cuts, keeps_ascii);
}

char32_t nmt_character(char32_t c) {
    const auto within = [c](char32_t first, char32_t last) { return first <= c && c <= last; };
    if (within(0x01, 0x08) || c == 0x0B || within(0x0E, 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return 0;
    const bool is_blank = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 || within(0x200B, 0x200F) ||
                          c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    return is_blank ? U' ' : c;
}

class ByteSpelling final : public Normalizer {
  public:
    void apply(NormalText* text) const override { text->text = to_alphabet(text->text); }
    bool allows_cuts() const override { return true; }
};

class Strip final : public Normalizer {
  public:
    Strip(bool left, bool right) : left_(left), right_(right) {}
    void apply(NormalText* text) const override {
        std::string& s = text->text;
        size_t begin = 0, end = s.size();
        while (left_ && begin < end && is_white_space(character_at(s, begin))) begin += utf8_bytes(s[begin]);
        while (right_ && begin < end && is_white_space(character_at(s, character_before(s, end)))) {
            end = character_before(s, end);
        }
        if (begin > 0) text->is_first = false;
        s = s.substr(begin, end - begin);
    }
    bool allows_cuts() const override { return !left_; }

  private:
    bool left_, right_;
};

class Prepend final : public Normalizer {
  public:
    explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
    void apply(NormalText* text) const override {
        if (!text->text.empty() && !text->continues) text->text.insert(0, prefix_);
    }
    bool allows_cuts() const override { return true; }

  private:
    std::string prefix_;
};

}  // namespace

std::unique_ptr<Normalizer> make_lowercase() { return std::make_unique<Lowercase>(); }

std::unique_ptr<Normalizer> make_strip_accents() {
    return make_filter([](char32_t c) { return is_accent(c) ? U'\0' : c; }, /*allows_cuts=*/true, /*keeps_ascii=*/true);
}

std::unique_ptr<Normalizer> make_strip(bool left, bool right) { return std::make_unique<Strip>(left, right); }

std::unique_ptr<Normalizer> make_prepend(const std::string& prefix) { return std::make_unique<Prepend>(prefix); }

std::unique_ptr<Normalizer> make_nmt() { return make_filter(nmt_character, /*allows_cuts=*/false, false); }

std::unique_ptr<Normalizer> make_byte_spelling() { return std::make_unique<ByteSpelling>(); }

}  // namespace llmc
