#include "llmc/base/printable.h"

#include "llmc/base/utf8.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {
namespace {

bool is_control(char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f; }

}  // namespace

std::string printable(std::string_view text) {
    std::string shown;
    while (!text.empty()) {
        const size_t valid = valid_utf8_prefix(text);
        for (const char c : text.substr(0, valid)) {
            if (is_control(c)) {
                shown += fmt::format("\\x{:02x}", c);
            } else {
                shown += c;
            }
        }
        text.remove_prefix(valid);
        if (text.empty()) break;
        shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text.front()));
        text.remove_prefix(1);
    }
    return shown;
}

std::string shell_word(std::string_view text) {
    constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-~";
    const std::string shown = printable(text);
    const bool is_escaped = shown != text || text.find_first_of("\n\t") != std::string_view::npos;
    if (!is_escaped && !text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos &&
        text.front() != '~') {
        return shown;
    }
    std::string word = is_escaped ? "$'" : "'";
    for (const char c : text) {
        if (is_escaped && (is_control(c) || static_cast<unsigned char>(c) >= 0x80 || c == '\n' || c == '\t')) {
            word += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else if (is_escaped && (c == '\'' || c == '\\')) {
            word += '\\', word += c;
        } else if (c == '\'') {
            word += "'\\''";
        } else {
            word += c;
        }
    }
    return word + "'";
}

}  // namespace llmc
