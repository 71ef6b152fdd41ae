// The frontier of memory against time (plan/frontier.h) as two tables.
#pragma once

#include "llmc/draw/report_units.h"
#include "llmc/plan/frontier.h"

#include <cstdint>
#include <string>

namespace llmc {

/// The fastest plans by budget, then every fixed policy beside the fastest plan in its memory. `state_bytes`
/// (parameters, gradients, optimiser) are there whatever the plan; what fits stays within `limit_bytes` with them.
std::string frontier_tables(const Frontier& frontier, int64_t state_bytes, int64_t limit_bytes,
                            const ReportUnits& units, int width);

}  // namespace llmc
