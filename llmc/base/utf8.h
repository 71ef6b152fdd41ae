// What is UTF-8 and what is not.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace llmc {

/// Bytes of the UTF-8 character at the beginning of `text` (RFC 3629: no surrogates, nothing overlong); 0: there is
/// none.
size_t character_bytes(std::string_view text);

/// Bytes at the beginning of `text` that are valid UTF-8.
size_t valid_utf8_prefix(std::string_view text);

/// The text with U+FFFD for every byte that is not part of UTF-8.
std::string as_utf8(std::string_view text);

/// The beginning of the text, at most `count` characters of it; the text must be UTF-8.
std::string first_characters(std::string_view text, int count);

}  // namespace llmc
