// What the reports of `plan` and of runs share: which plans are asked for, by name, and their pictures.
#pragma once

#include "llmc/run/memory.h"
#include "llmc/train/options.h"

#include <string>
#include <vector>

namespace llmc {

/// The names given to --recompute, "auto" among them if it is; without it, every fixed policy.
std::vector<std::string> wanted_policies(const Options& options);

/// Memory over one micro-batch of a plan as an SVG, with its title (draw/timeline.h).
std::string timeline_picture(const Model& model, const PlannedMemory& memory);

}  // namespace llmc
