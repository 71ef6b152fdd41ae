#include "llmc/train/config_file.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/utf8.h"

namespace llmc {
namespace {
/// toml++ is where it thinks that no text can bring it; "[.a]" does.
struct ParserGaveUp {};
[[noreturn]] void give_up() { throw ParserGaveUp(); }
}  // namespace
}  // namespace llmc
#undef NDEBUG  // With it the library would go on from there.
#define TOML_ASSERT(expr) ((expr) ? static_cast<void>(0) : ::llmc::give_up())
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <string_view>

namespace llmc {
namespace {

constexpr uint32_t kByteBase = 0xEF00;  ///< The character that stands for byte b is U+EF00 + b, with b from 0x80 on.

/// The byte that a character stands for, or -1. U+EF80 to U+EFBF are EE BE 80 to EE BE BF, the others EE BF 80 to BF.
int byte_of(std::string_view character) {
    if (character.size() != 3 || character[0] != '\xEE') return -1;
    const auto last = static_cast<unsigned char>(character[2]);
    return character[1] == '\xBE' ? last : character[1] == '\xBF' ? last + 0x40 : -1;
}

/// The UTF-8 of the character that stands for a byte.
std::string character_of(unsigned char byte) {
    const uint32_t code = kByteBase + byte;
    return {static_cast<char>(0xE0 | (code >> 12)), static_cast<char>(0x80 | ((code >> 6) & 0x3F)),
            static_cast<char>(0x80 | (code & 0x3F))};
}

/// Calls visit(part, is_utf8) for every character, and for every byte that is part of none.
template <typename Visit>
void for_each_character(std::string_view text, Visit visit) {
    while (!text.empty()) {
        const size_t length = character_bytes(text);
        visit(text.substr(0, std::max<size_t>(length, 1)), length > 0);
        text.remove_prefix(std::max<size_t>(length, 1));
    }
}

/// UTF-8, with a character in the place of every byte that is part of none; as_bytes() undoes it.
std::string with_stand_ins(std::string_view text) {
    std::string result;
    for_each_character(text, [&](std::string_view part, bool is_utf8) {
        result += is_utf8 ? std::string(part) : character_of(static_cast<unsigned char>(part[0]));
    });
    return result;
}

std::string as_bytes(std::string_view text) {
    std::string result;
    for_each_character(text, [&](std::string_view part, bool) {
        const int byte = byte_of(part);
        result += byte < 0 ? std::string(part) : std::string(1, static_cast<char>(byte));
    });
    return result;
}

/// For messages, which have one line: characters that are none are question marks.
std::string printable(std::string_view text) {
    std::string result(text);
    std::replace_if(
        result.begin(), result.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, '?');
    return result;
}

ConfigValue value_of(const toml::node& node) {
    using Kind = ConfigValue::Kind;
    if (const auto* text = node.as_string()) return {Kind::String, as_bytes(text->get()), {}};
    if (const auto* number = node.as_integer()) return {Kind::Integer, fmt::format("{}", number->get()), {}};
    if (const auto* number = node.as_floating_point()) return {Kind::Float, fmt::format("{}", number->get()), {}};
    if (const auto* truth = node.as_boolean()) return {Kind::Boolean, truth->get() ? "true" : "false", {}};
    if (node.is_table() || node.is_array_of_tables()) return {Kind::Table, "", {}};
    if (const auto* array = node.as_array()) {
        ConfigValue value = {Kind::Array, "", {}};
        for (const toml::node& element : *array) value.elements.push_back(value_of(element));
        return value;
    }
    return {Kind::Date, "", {}};
}

void add_entries(const toml::table& table, const std::string& section, std::vector<ConfigEntry>* entries) {
    for (const auto& [key, node] : table) {
        const std::string name = printable(key.str());  // One that is not is no option's.
        if (section.empty() && node.is_table()) {
            add_entries(*node.as_table(), name, entries);
            continue;
        }
        entries->push_back({section, name, value_of(node), static_cast<int>(key.source().begin.line)});
    }
}

/// The last line before the end of `table` where this key is.
int line_of_key(const toml::table& table, std::string_view name) {
    int line = 0;
    for (const auto& [key, node] : table) {
        if (key.str() == name) line = std::max(line, static_cast<int>(key.source().begin.line));
        if (node.is_table()) line = std::max(line, line_of_key(*node.as_table(), name));
    }
    return line;
}

/// Lines 1 to `count`.
std::string_view first_lines(std::string_view text, int count) {
    size_t end = 0;
    for (; count > 0 && end < text.size(); --count) end = std::min(text.find('\n', end), text.size() - 1) + 1;
    return text.substr(0, end);
}

/// The beginning of a line.
std::string text_of_line(std::string_view text, int number) {
    std::string_view line = text.substr(first_lines(text, number - 1).size());
    line = line.substr(0, line.find_first_of("\r\n"));
    constexpr size_t kShown = 60;
    return line.size() > kShown ? printable(line.substr(0, kShown)) + " ..." : printable(line);
}

/// What the library means by "cannot redefine existing integer 'a.b'", without quotes: the name given twice; empty if
/// it is not that. `line` is where it is given again: of a name in quotes the library says other things.
std::string redefined_name(std::string_view description, std::string_view line) {
    if (description.find("cannot redefine") == std::string_view::npos) return "";
    const size_t begin = description.find('\''), end = description.rfind('\'');
    if (begin == end) return "";
    std::string name(description.substr(begin + 1, end - begin - 1));
    if (name.find_first_of("\"'") != std::string::npos) name = line.substr(0, line.find('='));
    std::erase_if(name, [](char c) { return std::string_view("\"' \t[]").find(c) != std::string_view::npos; });
    return name;
}

/// The last part of a name with dots.
std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

[[noreturn]] void refuse_twice(const std::string& name, bool is_option_and_section, std::string_view text, int line,
                               const std::string& who) {
    int first = 0;
    try {
        first = line_of_key(toml::parse(first_lines(text, line - 1)), last_part(name));
    } catch (const toml::parse_error&) {
        first = 0;
    }
    const std::string lines =
        fmt::format("line{} {}{}", first > 0 ? "s" : "", first > 0 ? fmt::format("{} and ", first) : "", line);
    if (is_option_and_section) {
        fail_usage("{}: '{}' stands for an option and for a section, in {}; move the option into the section", who,
                   name, lines);
    }
    const bool is_section = text_of_line(text, line).starts_with('[');
    fail_usage("{}: '{}' is given twice, in {}; {}", who, name, lines,
               is_section ? "put all that belongs to the section in one place" : "leave one of them out");
}

/// What to do about it, where that can be told.
const char* remedy(std::string_view description) {
    const auto says = [&](const char* words) { return description.find(words) != std::string_view::npos; };
    if (says("could not determine value type")) return "; write strings in quotes, and true or false in small letters";
    if (says("escape sequence")) return "; a string in 'single quotes' has no escapes";
    if (says("expected '='")) return "; every line is of the form name = value";
    return "";
}

[[noreturn]] void refuse(const toml::parse_error& error, std::string_view text, const std::string& who) {
    const int line = static_cast<int>(error.source().begin.line);
    std::string description = printable(error.description());
    if (const auto name = redefined_name(description, text_of_line(text, line)); !name.empty()) {
        refuse_twice(name, description.ends_with("as table"), text, line, who);
    }
    constexpr std::string_view kOpening = "Error while ";
    if (description.starts_with(kOpening)) description.erase(0, kOpening.size());
    fail_usage("{}: line {} is no TOML ({}): {}{}", who, line, description, text_of_line(text, line),
               remedy(description));
}

/// Where the library gave up: the first line with which it does.
[[noreturn]] void refuse_given_up(std::string_view text, const std::string& who) {
    int line = 0;
    for (bool is_it = false; !is_it && first_lines(text, line).size() < text.size();) {
        try {
            (void)toml::parse(first_lines(text, ++line));
        } catch (const ParserGaveUp&) {
            is_it = true;
        } catch (const toml::parse_error&) {
            is_it = false;
        }
    }
    fail_usage("{}: line {} is no TOML: {}", who, line, text_of_line(text, line));
}

}  // namespace

std::string describe(const ConfigValue& value) {
    switch (value.kind) {
        case ConfigValue::Kind::String:
            return value.text.size() > 60 ? "a long string" : quoted(value.text) + ", a string";
        case ConfigValue::Kind::Date: return "a date or time";
        case ConfigValue::Kind::Array: return "a list";
        case ConfigValue::Kind::Table: return "a table";
        default: return value.text;
    }
}

std::vector<ConfigEntry> read_config(const std::string& path, const std::string& who) {
    std::string text;
    try {
        text = read_text(path);
    } catch (const Error& error) {
        fail_usage("{}: {}", who, error.what());
    }
    if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
        fail_usage("{}: is UTF-16; save it as UTF-8", who);
    }
    text = with_stand_ins(text);
    std::vector<ConfigEntry> entries;
    try {
        add_entries(toml::parse(std::string_view(text)), "", &entries);
    } catch (const toml::parse_error& error) {
        refuse(error, text, who);
    } catch (const ParserGaveUp&) {
        refuse_given_up(text, who);
    }
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
    return entries;
}

bool is_bare_value(const std::string& text) {
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool is_number = error == std::errc() && end == text.data() + text.size();
    return is_number || text == "true" || text == "false";
}

std::string quoted(const std::string& bytes) {
    constexpr std::string_view kEscaped = "\"\\\b\t\n\f\r", kEscapes = "\"\\btnfr";
    std::string result = "\"";
    for_each_character(bytes, [&](std::string_view part, bool is_utf8) {
        const size_t which = kEscaped.find(part[0]);
        const auto first = static_cast<unsigned char>(part[0]);
        if (which != std::string_view::npos) {
            result += {'\\', kEscapes[which]};
        } else if (first < 0x20 || first == 0x7F) {
            result += fmt::format("\\u{:04X}", first);
        } else if (!is_utf8 || byte_of(part) >= 0) {
            for (const char c : part) result += fmt::format("\\u{:04X}", kByteBase + static_cast<unsigned char>(c));
        } else {
            result += part;
        }
    });
    return result + "\"";
}

}  // namespace llmc
