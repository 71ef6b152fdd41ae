// `train_gpt completion bash|zsh` and `train_gpt manual`: the option table for a shell and for man(1).
#pragma once

#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// A script for the shell that options.words names. Fails (exit code 2) for any but bash and zsh.
std::string completion_script(const Options& options);

/// The manual page, in the macros of man(7).
std::string manual_page();

}  // namespace llmc
