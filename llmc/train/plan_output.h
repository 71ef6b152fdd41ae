// What the reports of `plan` and of runs share: the pictures of plans.
#pragma once

#include "llmc/run/memory.h"

#include <string>

namespace llmc {

/// Memory over one micro-batch of a plan as an SVG, with its title (draw/timeline.h).
std::string timeline_picture(const Model& model, const PlannedMemory& memory);

}  // namespace llmc
