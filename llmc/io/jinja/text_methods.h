// What Python's texts can do, for builtins.cpp.
#pragma once

#include "llmc/io/jinja/value.h"

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Characters of valid UTF-8.
size_t character_count(std::string_view text);
/// The byte at which character number `index` begins; text.size() beyond the last.
size_t character_offset(std::string_view text, size_t index);

/// Without `characters` (white space, if that is null) at the ends.
JinjaText stripped(const JinjaText& text, const std::string* characters, bool left, bool right);
/// Python's split: at white space if `separator` is null, `most` times unless that is negative.
std::vector<JinjaText> split_text(const JinjaText& text, const std::string* separator, int64_t most, bool from_right);
JinjaText upper_case(const JinjaText& text);
JinjaText lower_case(const JinjaText& text);
/// Every word begins with a capital: Jinja's words are what stands between white space and opening brackets, Python's
/// are letters.
JinjaText title_case(const JinjaText& text, bool python_words);
/// The first character is a capital, the others are small.
JinjaText capitalized(const JinjaText& text);
/// `most` < 0: all of them.
JinjaText replaced(const JinjaText& text, const std::string& from, const std::string& to, int64_t most,
                   JinjaWork& work);

}  // namespace llmc
