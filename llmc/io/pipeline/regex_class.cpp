#include "llmc/io/pipeline/regex_class.h"

#include "llmc/io/pipeline/unicode.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>
#include <vector>

namespace llmc {

bool PatternReader::skip(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
}

char PatternReader::take() {
    const char c = peek();
    rest_.remove_prefix(std::min<size_t>(1, rest_.size()));
    return c;
}

std::string PatternReader::take_until(std::string_view end) {
    const size_t size = std::min(rest_.find(end), rest_.size());
    misses_end_ = misses_end_ || size == rest_.size();
    std::string text(rest_.substr(0, size));
    rest_.remove_prefix(std::min(size + end.size(), rest_.size()));
    return text;
}

std::string PatternReader::take_literal() {
    const size_t size = std::min(utf8_bytes(peek()), rest_.size());
    std::string text(rest_.substr(0, size));
    rest_.remove_prefix(size);
    const bool is_plain = size > 1 || std::isalnum(static_cast<unsigned char>(text[0])) != 0 || text[0] == ' ' ||
                          std::iscntrl(static_cast<unsigned char>(text[0])) != 0;
    return is_plain ? text : "\\" + text;
}

std::string PatternReader::take_number(char kind, std::string* obstacle) {
    if (kind == 'x' && skip("{")) return "\\x{" + take_until("}") + "}";
    std::string digits;
    while (digits.size() < (kind == 'x' ? 2u : 4u) && std::isxdigit(static_cast<unsigned char>(peek())) != 0) {
        digits += take();
    }
    if (kind == 'x' && digits.size() == 2 && digits[0] >= '8') *obstacle = "a byte (\\x" + digits + ")";
    return "\\x{" + (digits.empty() ? "0" : digits) + "}";
}

namespace {

/// Names without blanks, dashes and underscores, in small letters, as Oniguruma compares them.
std::string plain_name(const std::string& name) {
    std::string plain;
    for (const char c : name) {
        if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
            plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        }
    }
    return plain;
}

/// Names for sets that PCRE2 has under another name, or as several items.
constexpr std::array<std::pair<const char*, const char*>, 37> kSets = {{
    {"alpha", R"(\p{Alphabetic})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"digit", kDigitItems},
    {"space", kSpaceItems},
    {"whitespace", kSpaceItems},
    {"word", kWordItems},
    {"blank", R"(\t\p{Zs})"},
    {"cntrl", R"(\p{Cc})"},
    {"lower", R"(\p{Lowercase})"},
    {"upper", R"(\p{Uppercase})"},
    {"punct", R"(\p{P}\p{S})"},
    {"xdigit", kHexItems},
    {"ascii", R"(\x{0}-\x{7f})"},
    {"any", R"(\x{0}-\x{10ffff})"},
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"connectorpunctuation", R"(\p{Pc})"},
    {"dashpunctuation", R"(\p{Pd})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"other", R"(\p{C})"},
}};

/// General categories, and yes-or-no properties that PCRE2 knows by the same name.
constexpr std::array kCategories = {"l",  "lu", "ll", "lt", "lm", "lo", "m",  "mn", "mc", "me", "n",  "nd",
                                    "nl", "no", "p",  "pc", "pd", "ps", "pe", "pi", "pf", "po", "s",  "sm",
                                    "sc", "sk", "so", "z",  "zs", "zl", "zp", "c",  "cc", "cf", "cn", "co"};
constexpr std::array kProperties = {
    "alphabetic",        "uppercase",     "lowercase", "ideographic", "emoji",     "extendedpictographic",
    "emojipresentation", "emojimodifier", "math",      "dash",        "diacritic", "hexdigit",
    "idstart",           "idcontinue",    "xidstart",  "xidcontinue"};

bool is_one_of(const auto& names, const std::string& name) {
    return std::any_of(names.begin(), names.end(), [&](const char* known) { return name == known; });
}

/// A class that is being read: items that a PCRE2 class can hold, and expressions for one character that it cannot.
struct OpenClass {
    std::string items;
    std::vector<std::string> others;

    void add_negated(const std::string& set) { others.push_back("[^" + set + "]"); }
    /// As an expression for one character.
    std::string text() const {
        if (others.empty()) return items.empty() ? "(?!)" : "[" + items + "]";
        std::string all = "(?:";
        if (!items.empty()) all += "[" + items + "]|";
        for (size_t i = 0; i < others.size(); ++i) all += (i > 0 ? "|" : "") + others[i];
        return all + ")";
    }
};

std::string negation_of(const OpenClass& open) {
    if (open.others.empty() && !open.items.empty()) return "[^" + open.items + "]";
    return "(?:(?!" + open.text() + ")(?s:.))";
}

/// What stands after a backslash in a class: one character, which is returned, or a set, which is added.
std::string read_escape(PatternReader& reader, OpenClass* open, std::string* obstacle) {
    const char c = reader.peek();
    const auto add = [&](const char* items) { reader.take(), open->items += items; };
    const auto add_negated = [&](const char* items) { reader.take(), open->add_negated(items); };
    switch (c) {
        case 's': add(kSpaceItems); return "";
        case 'w': add(kWordItems); return "";
        case 'd': add(kDigitItems); return "";
        case 'h': add(kHexItems); return "";
        case 'S': add(R"(\P{White_Space})"); return "";
        case 'D': add(R"(\P{Nd})"); return "";
        case 'W': add_negated(kWordItems); return "";
        case 'H': add_negated(kHexItems); return "";
        case 'p':
        case 'P': {
            reader.take();
            if (!reader.skip("{")) return "p";
            std::string name = reader.take_until("}");
            const bool negated = (c == 'P') != name.starts_with('^');
            if (name.starts_with('^')) name.erase(0, 1);
            const std::string items = property_items(name, false, obstacle);
            if (negated) {
                open->add_negated(items);
            } else {
                open->items += items;
            }
            return "";
        }
        case 'x':
        case 'u': reader.take(); return reader.take_number(c, obstacle);
        case 't':
        case 'n':
        case 'r':
        case 'f':
        case 'e':
        case 'a': return std::string("\\") + reader.take();
        case 'v': reader.take(); return "\\x{b}";
        case 'b': reader.take(); return "\\x{8}";
        default: return reader.take_literal();
    }
}

}  // namespace

std::string property_items(std::string name, bool negated, std::string* obstacle) {
    const std::string plain = plain_name(name);
    if (plain.empty() || plain == "graph" || plain == "print") *obstacle = "the property \\p{" + name + "}";
    const auto* set = std::find_if(kSets.begin(), kSets.end(), [&](const auto& row) { return plain == row.first; });
    if (set != kSets.end()) return negated ? "" : set->second;
    const char* p = negated ? "\\P{" : "\\p{";
    if (is_one_of(kCategories, plain)) {
        std::string category = plain;
        category[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(category[0])));
        return p + category + "}";
    }
    return p + (is_one_of(kProperties, plain) ? plain : "sc:" + plain) + "}";
}

std::string read_class(PatternReader& reader, std::string* obstacle) {
    const bool negated = reader.skip("^");
    std::vector<OpenClass> operands(1);
    bool is_first = true;
    for (; !reader.at_end() && (is_first || reader.peek() != ']'); is_first = false) {
        OpenClass& open = operands.back();
        if (reader.skip("&&")) {
            operands.emplace_back();
        } else if (reader.starts_with("[:") && reader.skip("[:")) {
            const bool is_not = reader.skip("^");
            const std::string items = property_items(reader.take_until(":]"), false, obstacle);
            if (is_not) {
                open.add_negated(items);
            } else {
                open.items += items;
            }
        } else if (reader.skip("[")) {
            open.others.push_back(read_class(reader, obstacle));
        } else {
            const std::string from = reader.skip("\\") ? read_escape(reader, &open, obstacle) : reader.take_literal();
            open.items += from;
            if (from.empty() || reader.peek() != '-' || reader.peek(1) == ']' || reader.peek(1) == '\0') continue;
            reader.take();
            OpenClass set;
            const std::string to = reader.skip("\\") ? read_escape(reader, &set, obstacle) : reader.take_literal();
            open.items += to.empty() ? "\\-" + set.items : "-" + to;  // A set ends no range.
        }
    }
    if (!reader.skip("]")) reader.miss_end();
    if (operands.size() == 1) return negated ? negation_of(operands[0]) : operands[0].text();
    std::string all;
    for (size_t i = 1; i < operands.size(); ++i) all += "(?=" + operands[i].text() + ")";
    all += operands[0].text();
    return negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
}

}  // namespace llmc
