// Advice where memory is short. Nothing is advised that was not tried: every way out that is named leads to a plan that
// fits both memories, and to options that go together.
#pragma once

#include "llmc/train/choose_plan.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// Ways out of a run that does not fit at this shape, each alone, as words and the options that they mean: raise the
/// budget, fewer or shorter sequences, bf16, another level or placement; where none of these is enough, less optimiser
/// state, a smaller preset.
struct WayOut {
    std::string words;
    std::vector<std::string> options;  ///< "--batch-size=2": what to add to the command line. Empty: no option does it.
};
std::vector<WayOut> ways_out(const Options& options, const Model& model, const BatchShape& shape,
                             const Backend& backend);

/// They joined by ", or "; if there are none, that nothing fits.
std::string advice(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend);

/// The most sequences in a micro-batch that fit and that go with --total-batch-size where that was given; 0 if not even
/// one does.
int64_t largest_batch(const Options& options, const Model& model, const Backend& backend);

/// "parameters, gradients and optimiser alone take 28.1 GiB" where that is more than there is; else "".
std::string floor_words(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend);

}  // namespace llmc
