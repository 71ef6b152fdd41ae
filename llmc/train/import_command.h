// `train_gpt import`: a model from elsewhere as a run folder, at step 0.
#pragma once

#include "llmc/train/options.h"

namespace llmc {

/// Makes the run folder --out of what --from names: config.toml, a checkpoint of step 0 without moments, the files of
/// the tokenizer. --resume, --model, generate, evaluate and export take it. Written beside and renamed when complete.
void import_command(const Options& options);

}  // namespace llmc
