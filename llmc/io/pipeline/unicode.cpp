#include "llmc/io/pipeline/unicode.h"

#include "llmc/io/pipeline/later_characters.h"

#include <unicode/uchar.h>

#include <cstdint>

namespace llmc {
namespace {

UChar32 point(char32_t c) { return static_cast<UChar32>(c); }

bool has_category(char32_t c, uint32_t mask) { return (U_GET_GC_MASK(point(c)) & mask) != 0; }

/// Whether text[0, p) ends with a letter.
bool ends_with_letter(std::string_view text, size_t p) {
    const auto byte = static_cast<unsigned char>(text[p - 1]);
    if (byte < 0x80) return (byte | 0x20u) - 'a' < 26;
    const size_t begin = character_before(text, p);
    const std::string_view last = text.substr(begin, p - begin);
    return valid_utf8_prefix(last) == last.size() && is_letter(character_at(last, 0));
}

/// Whether a version of Unicode has the character already.
bool is_as_old_as(char32_t c, uint8_t version) {
    UVersionInfo age;
    u_charAge(point(c), age);
    return age[0] != 0 && (age[0] < version || (age[0] == version && age[1] == 0));
}

bool is_later_word(std::string_view category) {
    return category.starts_with('L') || category.starts_with('M') || category == "Nd" || category == "Pc";
}

/// Small letters of capital ones that came after Unicode 14.
char32_t later_lower_case(char32_t c) {
    if (c - 0x10D50 < 22) return c + 0x20;
    if (c - 0x16EA0 < 25) return c + 0x1B;
    switch (c) {
        case 0xA7CB: return 0x264;
        case 0xA7DC: return 0x19B;
        case 0x1C89:
        case 0xA7CC:
        case 0xA7CE:
        case 0xA7D2:
        case 0xA7D4:
        case 0xA7DA: return c + 1;
        default: return c;
    }
}

}  // namespace

size_t blank_after_letter(std::string_view text, size_t from) {
    for (size_t p = from == 0 ? 1 : from; p < text.size(); ++p) {
        if ((text[p] == ' ' || text[p] == '\n') && ends_with_letter(text, p)) return p;
    }
    return text.size();
}

char32_t character_at(std::string_view text, size_t i) {
    const auto byte = [&](size_t k) { return static_cast<char32_t>(static_cast<unsigned char>(text[i + k])); };
    switch (utf8_bytes(text[i])) {
        case 1: return byte(0);
        case 2: return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
        case 3: return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
        default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    }
}

size_t character_before(std::string_view text, size_t end) {
    do {
        --end;
    } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
    return end;
}

void append_utf8(char32_t c, std::string* text) {
    const auto put = [&](char32_t byte) { *text += static_cast<char>(byte); };
    const auto put_rest = [&](int shift) { put(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6), put_rest(0);
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12), put_rest(6), put_rest(0);
    } else {
        put(0xF0 | c >> 18), put_rest(12), put_rest(6), put_rest(0);
    }
}

bool is_white_space(char32_t c) { return u_isUWhiteSpace(point(c)) != 0; }

bool is_letter(char32_t c) { return has_category(c, U_GC_L_MASK); }

bool is_number(char32_t c) {
    const bool is_of_unicode_17 = c - 0x11DE0 < 10 || c - 0x16FF4 < 3;
    return has_category(c, U_GC_N_MASK) || later_category(c).starts_with('N') || is_of_unicode_17;
}

constexpr char32_t kSharadaSandhi = 0x111C9;  // Punctuation first, a mark since.

bool is_punctuation(char32_t c) {
    constexpr char32_t kCanadianChi = 0x166D;  // Not any more, since.
    if (c < 0x80) return has_category(c, U_GC_P_MASK | U_GC_S_MASK);
    return (has_category(c, U_GC_P_MASK) && is_as_old_as(c, 8)) || c == kCanadianChi || c == kSharadaSandhi;
}

bool is_accent(char32_t c) {
    constexpr char32_t kVedicArdhavisarga = 0x1CF2;  // And the next: not any more, since.
    if (c == kSharadaSandhi) return false;
    return (has_category(c, U_GC_M_MASK) && is_as_old_as(c, 9)) || c - kVedicArdhavisarga < 2;
}

bool is_word_character(char32_t c) {
    return u_isUAlphabetic(point(c)) != 0 || has_category(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
           u_hasBinaryProperty(point(c), UCHAR_JOIN_CONTROL) != 0 || is_later_word(later_category(c));
}

void append_lower_case(char32_t c, std::string* text) {
    constexpr char32_t kCapitalIWithDot = 0x130, kDotAbove = 0x307;
    if (c == kCapitalIWithDot) {  // The only one with two (Unicode's SpecialCasing).
        append_utf8(U'i', text);
        append_utf8(kDotAbove, text);
    } else {
        const auto lower = static_cast<char32_t>(u_tolower(point(c)));
        append_utf8(lower == c ? later_lower_case(c) : lower, text);
    }
}

}  // namespace llmc
