// How content of other kinds begins, and what tells text from something else: for data_file.h.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// An Error that names the kind of file and what to do about it, if `content` begins like an archive, a table, an array
/// or another file that is neither text nor tokens.
void refuse_foreign(std::string_view content, const std::string& path, const std::string& option);

/// "UTF-16", "UTF-16LE", "UTF-32", ... as iconv calls it, for text with two or four bytes a letter; else "".
std::string utf_encoding_of(std::string_view content);

/// Whether the beginning is valid UTF-8 without control characters.
bool looks_like_utf8(std::string_view content);

/// Text has no NUL bytes and hardly any other control characters. Looks at the beginning only.
bool looks_binary(std::string_view content);

}  // namespace llmc
