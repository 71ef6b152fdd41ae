// `train_gpt generate`: text from a trained model, printed as it is drawn.
#pragma once

#include "llmc/train/options.h"

namespace llmc {

/// Loads the newest checkpoint of --run, or what --model names, and prints the samples on stdout.
void generate_command(const Options& options);

}  // namespace llmc
