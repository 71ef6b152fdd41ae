// The products of our operations, as cuBLASLt is asked for them.
#pragma once

#include "llmc/base/gemm_algorithms.h"
#include "llmc/base/units.h"

#include <cstdint>

namespace llmc::cuda {

/// Our tensors are row-major, the library counts columns: a row-major (rows, cols) is a column-major (cols, rows), so
/// every product is computed as its transpose, with the operands exchanged.
GemmShape gemm_shape(const GemmQuery& query);

/// Bytes at the begin of a workspace that hold a bias's gradient, before it is added or in place of one that nobody
/// wants; the library has the rest.
constexpr int64_t bias_gradient_bytes(int64_t OC) { return round_up(OC * int64_t{sizeof(float)}, 256); }

/// Of the workspace of a product's operation, what the library may use.
constexpr int64_t library_bytes(const GemmQuery& query) {
    return query.workspace_bytes - (query.kind == GemmKind::WeightAndBiasGradient ? bias_gradient_bytes(query.OC) : 0);
}

}  // namespace llmc::cuda
