// What --version says: which program this is, and of what it was made.
#pragma once

#include <string>

namespace llmc {

/// "train_gpt VERSION", then a line each for commit, compiler, libraries and CUDA; no line end at the end.
std::string about_this_program();

}  // namespace llmc
