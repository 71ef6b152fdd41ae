// `train_gpt generate --chat`: answers of a trained model, printed as they are drawn.
#pragma once

#include "llmc/io/tokenizer.h"
#include "llmc/io/weights.h"
#include "llmc/train/options.h"

namespace llmc {

/// Answers --prompt; without one, every line of standard input, until that ends.
void chat_command(const Options& options, const WeightSource& weights, const Tokenizer& tokenizer);

}  // namespace llmc
