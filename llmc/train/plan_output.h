// What the reports of `plan` share: which plans are asked for, and how they are called.
#pragma once

#include "llmc/model/model.h"
#include "llmc/train/options.h"

#include <string>
#include <vector>

namespace llmc {

/// The names given to --recompute, "auto" among them if it is; without it, every fixed policy.
std::vector<std::string> wanted_policies(const Options& options);

/// "1 layer", "  act": as in the first column of a table.
std::string level_label(const std::string& policy);

/// "gpt2-xl: GPT-2, 48 layers, ...; 1,557,611,200 parameters": the first line of a report.
std::string model_line(const Model& model);

}  // namespace llmc
