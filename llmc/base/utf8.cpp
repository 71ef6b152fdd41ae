#include "llmc/base/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace llmc {

size_t character_bytes(std::string_view text) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
    const unsigned first = byte(0), second = byte(1);
    if (first < 0x80) return text.empty() ? 0 : 1;
    if (first < 0xC2 || first > 0xF4 || !continues(1)) return 0;
    if (first < 0xE0) return 2;
    if (first < 0xF0) {
        const bool overlong = first == 0xE0 && second < 0xA0, surrogate = first == 0xED && second > 0x9F;
        return !overlong && !surrogate && continues(2) ? 3 : 0;
    }
    const bool overlong = first == 0xF0 && second < 0x90, beyond = first == 0xF4 && second > 0x8F;
    return !overlong && !beyond && continues(2) && continues(3) ? 4 : 0;
}

size_t valid_utf8_prefix(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) {
        uint64_t eight = 0;
        while (i + sizeof eight <= text.size()) {
            std::memcpy(&eight, text.data() + i, sizeof eight);
            if ((eight & 0x8080808080808080u) != 0) break;
            i += sizeof eight;
        }
        if (i == text.size()) break;
        const size_t bytes = character_bytes(text.substr(i, 4));
        if (bytes == 0) break;
        i += bytes;
    }
    return i;
}

std::string as_utf8(std::string_view text) {
    std::string valid;
    while (!text.empty()) {
        const size_t prefix = valid_utf8_prefix(text);
        valid += text.substr(0, prefix);
        if (prefix < text.size()) valid += "\uFFFD";
        text.remove_prefix(std::min(prefix + 1, text.size()));
    }
    return valid;
}

std::string first_characters(std::string_view text, int count) {
    size_t bytes = 0;
    for (int character = 0; character < count && bytes < text.size(); ++character) {
        bytes += std::max<size_t>(1, character_bytes(text.substr(bytes, 4)));
    }
    return std::string(text.substr(0, bytes));
}

}  // namespace llmc
