// The frontier of memory against time (plan/frontier.h) as a picture.
#pragma once

#include "llmc/plan/frontier.h"

#include <cstdint>
#include <string>

namespace llmc {

/// As SVG. `state_bytes` (parameters, gradients, optimiser) are there whatever the plan.
std::string draw_frontier(const Frontier& frontier, const std::string& title, const std::string& subtitle,
                          int64_t state_bytes);

}  // namespace llmc
