// The folder of a run: config.toml, metrics.jsonl, train.log, checkpoints/.
#pragma once

#include "llmc/train/options.h"

#include <string>

namespace llmc {

/// The run folder that `path` names: itself, or the folder of the checkpoint it is. Fails naming `option` if neither.
std::string find_run_folder(const std::string& path, const std::string& option);

/// Where this run writes: --output-dir, else the resumed run's folder, else runs/MODEL-TIME. Created, with config.toml
/// and a log in it. A new run never writes over an old one.
std::string make_run_folder(const Options& options);

}  // namespace llmc
