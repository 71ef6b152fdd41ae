// Characters: UTF-8 in and out, and the classes by which tokenizers cut text. The classes are ICU's.
#pragma once

#include "llmc/base/utf8.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace llmc {

/// Bytes of the character that begins with this byte; of valid UTF-8 only.
inline size_t utf8_bytes(char first) {
    const auto byte = static_cast<unsigned char>(first);
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The character at text[i]. `text` is valid UTF-8 and i begins a character.
char32_t character_at(std::string_view text, size_t i);
/// Where the character that ends before text[end] begins; end > 0.
size_t character_before(std::string_view text, size_t end);
void append_utf8(char32_t character, std::string* text);

/// Unicode's White_Space.
bool is_white_space(char32_t c);
/// A letter, of any script.
bool is_letter(char32_t c);
/// General category N: digits, and numbers that are none, such as fractions.
bool is_number(char32_t c);
/// General category P as of Unicode 8, with which the tokenizers library cuts, and the symbols of ASCII.
bool is_punctuation(char32_t c);
/// General category M, characters that change the one before them, as of Unicode 9, whose marks the tokenizers library
/// strips.
bool is_accent(char32_t c);
/// What \w stands for: alphabetic characters, marks, decimal digits, connecting punctuation, joiners (UTS 18).
bool is_word_character(char32_t c);
/// The small letter, or letters, of a character, whatever stands around it.
void append_lower_case(char32_t c, std::string* text);

/// The first place p >= `from`, and > 0, where a letter stands in front of text[p], a blank or a line end; text.size()
/// if there is none. Any bytes.
size_t blank_after_letter(std::string_view text, size_t from);

}  // namespace llmc
