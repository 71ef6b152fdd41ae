#include "llmc/base/shown_text.h"

#include "llmc/base/printable.h"

#include <algorithm>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

/// How many bytes at the end are the beginning of a character whose rest is still to come.
size_t unfinished_bytes(std::string_view text) {
    constexpr size_t kLongest = 4;
    for (size_t back = 1; back < std::min(kLongest, text.size() + 1); ++back) {
        const auto byte = static_cast<unsigned char>(text[text.size() - back]);
        if ((byte & 0xC0) == 0x80) continue;  // In the middle of one.
        const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
        return length > back ? back : 0;
    }
    return 0;
}

}  // namespace

std::string shown_on_output(std::string_view text) {
    return isatty(STDOUT_FILENO) == 1 ? printable(text) : std::string(text);
}

ShownText::ShownText() : is_terminal_(isatty(STDOUT_FILENO) == 1) {}

std::string ShownText::add(std::string_view part) {
    if (!is_terminal_) return std::string(part);
    held_ += part;
    const size_t ready = held_.size() - unfinished_bytes(held_);
    std::string shown = printable(std::string_view(held_).substr(0, ready));
    held_.erase(0, ready);
    return shown;
}

std::string ShownText::finish() { return printable(std::exchange(held_, "")); }

}  // namespace llmc
