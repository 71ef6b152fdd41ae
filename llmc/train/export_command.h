// `train_gpt export`: a trained model for other programs, as a Hugging Face folder, a model file of llm.c, or a
// GGUF file.
#pragma once

#include "llmc/train/options.h"

namespace llmc {

/// Writes the model of --run to --out in --format and --dtype, with --base-format, or in --gguf-type. What is there
/// already is never written over; the result is written beside and renamed when complete.
void export_command(const Options& options);

}  // namespace llmc
