// Classes of characters inside patterns: [...] with all that Oniguruma allows in it. regex_syntax.h is what uses this.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// \s, \w and \d as items of a PCRE2 class. PCRE2's own \s has U+180E, its \w no marks.
inline constexpr const char* kSpaceItems = R"(\t-\r\x{85}\p{Z})";
inline constexpr const char* kWordItems = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
/// Outside of classes Oniguruma's \w has some numbers, too.
inline constexpr const char* kBareWordItems = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
inline constexpr const char* kDigitItems = R"(\p{Nd})";
inline constexpr const char* kHexItems = "0-9a-fA-F";

/// Reads an expression from left to right.
class PatternReader {
  public:
    explicit PatternReader(std::string_view pattern) : rest_(pattern) {}
    bool at_end() const { return rest_.empty(); }
    char peek(size_t ahead = 0) const { return ahead < rest_.size() ? rest_[ahead] : '\0'; }
    bool starts_with(std::string_view text) const { return rest_.starts_with(text); }
    bool skip(std::string_view text);
    char take();
    /// Up to `end`, which is taken, too; all if it is not there, and then misses_end().
    std::string take_until(std::string_view end);
    bool misses_end() const { return misses_end_; }
    void miss_end() { misses_end_ = true; }
    /// The next character, escaped so that PCRE2 takes it for itself.
    std::string take_literal();
    /// The number after \x or \u, as PCRE2 writes it; an obstacle where it is a byte beyond ASCII.
    std::string take_number(char kind, std::string* obstacle);

  private:
    std::string_view rest_;
    bool misses_end_ = false;
};

/// The class whose [ has been taken, as an expression that matches one character.
std::string read_class(PatternReader& reader, std::string* obstacle);

/// The items of a property's name: "Lu", "^Han", "alpha". Scripts are those of characters themselves, without what
/// PCRE2 adds to them.
std::string property_items(std::string name, bool negated, std::string* obstacle);

}  // namespace llmc
