// What commands that are advised begin with: the program as it was called.
#pragma once

#include <string>

namespace llmc {

/// To be called first in main(), with argv[0].
void name_program(const char* as_called);

/// The program as it was called, as a word for the shell: "./train_gpt"; "train_gpt" where nobody has named it.
const std::string& program_name();

}  // namespace llmc
