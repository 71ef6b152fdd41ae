// `train_gpt plan`: the memory of every recompute level, to the byte, without allocating any of it. Its other reports:
// plan_frontier.h (memory against time) and plan_what_fits.h (largest batch, longest sequence).
#pragma once

#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// The report: tables for people, or one JSON object with --json. Ends with a newline. Pictures are written.
std::string plan_report(const Options& options);

}  // namespace llmc
