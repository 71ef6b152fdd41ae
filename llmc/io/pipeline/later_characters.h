// Characters that came to Unicode after version 14, which is what PCRE2 10.42 knows: with them, tokens do not depend on
// the version of a library. The classes are those of the tokenizers library's own (Unicode 16).
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// The general category, such as "Lu", of a character that came later; "" for others.
std::string_view later_category(char32_t c);

/// A PCRE2 pattern whose \p{..} of general categories hold later characters, too. Classes must have [ and ] escaped.
std::string with_later_characters(std::string_view pattern);

/// Whether there may be later characters in a text: all are of three bytes and more in UTF-8.
bool may_have_later_characters(std::string_view text);

}  // namespace llmc
