#include "llmc/io/bpe_alphabet.h"

#include <array>
#include <cstdint>

namespace llmc {
namespace {

bool is_printable(int byte) { return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD); }

/// Code points 0 .. 0x143 to bytes, -1 where there is none, and back.
struct Alphabet {
    std::array<int, 0x144> byte_of;
    std::array<int, 256> point_of;
    Alphabet() : byte_of(), point_of() {
        byte_of.fill(-1);
        int next = 0x100;
        for (int byte = 0; byte < 256; ++byte) {
            const int point = is_printable(byte) ? byte : next++;
            point_of[static_cast<size_t>(byte)] = point;
            byte_of[static_cast<size_t>(point)] = byte;
        }
    }
};

const Alphabet& alphabet() {
    static const Alphabet instance;
    return instance;
}

}  // namespace

std::vector<std::string> bytes_in_gpt2_order() {
    std::vector<std::string> bytes;
    for (const int byte : alphabet().byte_of) {
        if (byte >= 0) bytes.emplace_back(1, static_cast<char>(byte));
    }
    return bytes;
}

std::string to_alphabet(std::string_view bytes) {
    std::string text;
    for (const char c : bytes) {
        const int point = alphabet().point_of[static_cast<unsigned char>(c)];
        if (point < 0x80) {
            text += static_cast<char>(point);
        } else {
            text += static_cast<char>(0xC0 | point >> 6);
            text += static_cast<char>(0x80 | (point & 0x3F));
        }
    }
    return text;
}

bool from_alphabet(std::string_view text, std::string* bytes) {
    bytes->clear();
    for (size_t i = 0; i < text.size(); ++i) {
        auto point = static_cast<unsigned char>(text[i]) + 0u;
        if (point >= 0x80) {  // Two bytes hold the whole alphabet.
            if (point < 0xC2 || point > 0xC5 || i + 1 == text.size()) return false;
            point = (point & 0x1F) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3F);
        }
        if (point >= alphabet().byte_of.size() || alphabet().byte_of[point] < 0) return false;
        *bytes += static_cast<char>(alphabet().byte_of[point]);
    }
    return true;
}

}  // namespace llmc
