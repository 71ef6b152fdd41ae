// What the reports of `plan` share: which plans are asked for, by name.
#pragma once

#include "llmc/train/options.h"

#include <string>
#include <vector>

namespace llmc {

/// The names given to --recompute, "auto" among them if it is; without it, every fixed policy.
std::vector<std::string> wanted_policies(const Options& options);

}  // namespace llmc
