// `train_gpt report`: the page of one or several runs, finished or not.
#pragma once

#include "llmc/train/options.h"

namespace llmc {

/// Writes --out (report.html in the folder of the one run, or in this folder for several) for the runs named, without
/// any the newest in runs/, and prints its name. Replaces a report, and nothing else. No run is changed.
void report_command(const Options& options);

}  // namespace llmc
