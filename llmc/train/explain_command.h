// `train_gpt explain WORD`: all there is to say about an option, a level of --recompute, a preset, a card, a
// subcommand.
#pragma once

#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// The text for options.words, in lines of the terminal's width; without words, what can be explained. Fails (exit code
/// 2) on a word that is none of it, with the nearest one.
std::string explanation(const Options& options);

}  // namespace llmc
