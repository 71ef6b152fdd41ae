// Names as people may read and type them. On Linux a path is bytes: it is kept as it is everywhere, and only what is
// shown is escaped.
#pragma once

#include <string>
#include <string_view>

namespace llmc {

/// The text with bytes that are not UTF-8, and control characters but newline and tab, written as \xNN: for terminals
/// and logs.
std::string printable(std::string_view text);

/// The text as one word of a command line for bash: itself where that is plain, else in quotes. For advice that is to
/// be copied, such as "--resume=" + shell_word(folder).
std::string shell_word(std::string_view text);

}  // namespace llmc
