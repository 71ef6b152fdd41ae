// --recompute where it may name several levels: the reports of `plan`.
#pragma once

#include "llmc/train/options.h"

#include <string>
#include <vector>

namespace llmc {

/// The option's name: of options, of files for --config, and of reports as JSON.
constexpr const char* kLevelOption = "recompute";

/// The names given to it, "auto" among them if it is; without it, every fixed policy.
std::vector<std::string> wanted_policies(const Options& options);

/// The levels that --what-fits is about: the names given, or every fixed policy and "auto".
std::vector<std::string> levels_to_fit(const Options& options);

}  // namespace llmc
