// How passes over a plan add a tensor to it.
#pragma once

#include "llmc/plan/step.h"

#include <cstdint>
#include <string>

namespace llmc {

/// Appends (rows, cols) to Plan::tensors; its bytes follow. Returns its index.
int32_t add_tensor(Plan* plan, const std::string& name, int layer, DType dtype, int64_t rows, int64_t cols,
                   Consumer consumer);

}  // namespace llmc
