// `train_gpt tokenize`: text to token files as llm.c writes them, and with --train-bpe a vocabulary learned from text.
#pragma once

#include "llmc/train/options.h"

namespace llmc {

/// Writes OUT_val_000000.bin, OUT_train_000000.bin ... and the tokenizer's files in OUT_tokenizer; or with --train-bpe
/// the folder OUT. Prints the names of what it wrote on stdout. If it fails, nothing is left behind.
void tokenize_command(const Options& options);

}  // namespace llmc
