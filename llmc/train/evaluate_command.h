// `train_gpt evaluate`: how well a trained model predicts a text, and how many HellaSwag questions it answers.
#pragma once

#include "llmc/train/options.h"

namespace llmc {

/// Evaluates the model of --run or --model on all of --data, on --hellaswag, or on both; without either, on the
/// held-out data of the run. Prints a line per number on stdout.
void evaluate_command(const Options& options);

}  // namespace llmc
