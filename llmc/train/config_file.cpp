#include "llmc/train/config_file.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"

#include <algorithm>
#include <sstream>
#include <string_view>

namespace llmc {
namespace {

constexpr std::string_view kBlanks = " \t\r";
constexpr std::string_view kEscaped = "\"\\\b\t\n\f\r";
constexpr std::string_view kEscapes = "\"\\btnfr";  ///< What stands after the backslash, in the same order.

std::string_view trimmed(std::string_view text) {
    const size_t begin = text.find_first_not_of(kBlanks);
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

/// Takes a string, which starts with its quote, off the front of `text`. False if it does not end or is wrong inside.
bool take_string(std::string_view* text, std::string* value) {
    const char quote = text->front();
    for (size_t i = 1; i < text->size(); ++i) {
        char c = (*text)[i];
        if (c == quote) {
            text->remove_prefix(i + 1);
            return true;
        }
        if (c == '\\' && quote == '"') {
            if (++i == text->size()) return false;
            const size_t which = kEscapes.find((*text)[i]);
            if (which == std::string_view::npos) return false;
            c = kEscaped[which];
        }
        *value += c;
    }
    return false;
}

/// Takes a number or a word.
bool take_word(std::string_view* text, std::string* value) {
    const size_t end = std::min(text->find_first_of(" \t\r#"), text->size());
    *value = text->substr(0, end);
    text->remove_prefix(end);
    return !value->empty() && value->find_first_of("[]{}\"',=") == std::string::npos;
}

}  // namespace

std::vector<ConfigEntry> read_config(const std::string& path) {
    std::string content;
    try {
        content = read_text(path);
    } catch (const Error& error) {
        fail_usage("--config: {}", error.what());
    }
    std::vector<ConfigEntry> entries;
    std::istringstream lines(content);
    int number = 0;
    for (std::string line; std::getline(lines, line);) {
        ++number;
        const std::string_view text = trimmed(line);
        if (text.empty() || text.front() == '#') continue;
        const size_t equals = text.find('=');
        ConfigEntry entry = {std::string(trimmed(text.substr(0, equals))), "", number};
        std::string_view rest = equals == std::string_view::npos ? "" : trimmed(text.substr(equals + 1));
        const bool is_string = !rest.empty() && (rest.front() == '"' || rest.front() == '\'');
        const bool good = !entry.name.empty() && entry.name.find_first_of(kBlanks) == std::string::npos &&
                          (is_string ? take_string(&rest, &entry.value) : take_word(&rest, &entry.value));
        rest = trimmed(rest);
        if (!good || (!rest.empty() && rest.front() != '#')) {
            fail_usage("--config={}: line {} is not of the form name = value; write strings in quotes", path, number);
        }
        for (const ConfigEntry& other : entries) {
            if (other.name != entry.name) continue;
            fail_usage("--config={}: '{}' is given twice, in lines {} and {}", path, entry.name, other.line, number);
        }
        entries.push_back(std::move(entry));
    }
    return entries;
}

std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        const size_t which = kEscaped.find(c);
        if (which == std::string_view::npos) {
            result += c;
        } else {
            result += '\\';
            result += kEscapes[which];
        }
    }
    return result + "\"";
}

}  // namespace llmc
