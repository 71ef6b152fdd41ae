// Frontiers of small models on a device that does not exist.
#pragma once

#include "llmc/plan/frontier.h"
#include "tests/plan/plan_cases.h"

#include <cstdint>

namespace llmc::plan_cases {

/// Slow enough that every operation costs something.
inline const DeviceProfile kDevice = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};

inline Frontier frontier_of(const Model& model, const BatchShape& shape, int64_t micro_batches = 1) {
    PlanRequest request = request_of(model, shape, DType::F32);
    request.parallel.micro_batches = micro_batches;
    return find_frontier(model, request, analytic_times(model, shape, Places(), kDevice), 12);
}

}  // namespace llmc::plan_cases
