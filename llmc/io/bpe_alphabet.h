// GPT-2's vocabulary files are text, so every byte is written as a printable character: itself where it is one, else
// one from U+0100 on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// The single bytes in the order that GPT-2 gives them ids: printable ones first.
std::vector<std::string> bytes_in_gpt2_order();

/// "Ġthe" for " the".
std::string to_alphabet(std::string_view bytes);

/// " the" for "Ġthe". False if a character is not of the alphabet.
bool from_alphabet(std::string_view text, std::string* bytes);

}  // namespace llmc
