// The frontier of memory against time (plan/frontier.h) as a picture.
#pragma once

#include "llmc/plan/frontier.h"

#include <cstdint>
#include <string>

namespace llmc {

/// As SVG. `state_bytes` (parameters, gradients, optimiser) are there whatever the plan. Where what a device leaves
/// beside them, `limit_bytes` in all, is on the axis, it is a line; where they alone are more, it is said.
std::string draw_frontier(const Frontier& frontier, const std::string& title, const std::string& subtitle,
                          int64_t state_bytes, int64_t limit_bytes = 0);

}  // namespace llmc
