// Sums over rows in two stages: partial sums of groups of rows, each made by one block, then their sum in a fixed
// order. The groups depend on the sizes only, so that the same operands give the same bits everywhere.
#pragma once

#include "llmc/base/tensor.h"

#include <cuda_runtime_api.h>

#include <cstdint>

namespace llmc::cuda {

/// d_bias (OC) fp32 = or += (`adds`) column sums of d_out (N, OC). `workspace` has column_sum_workspace(N, OC) bytes.
void column_sums(cudaStream_t stream, Tensor d_bias, bool adds, Tensor d_out, void* workspace);
int64_t column_sum_workspace(int64_t N, int64_t OC);

/// The second stage alone: out (C) = or += column sums of partials (groups, C). With two vectors, partials is
/// (groups, 2C) and its right half belongs to `second` (C). What is null is not wanted.
void sum_partials(cudaStream_t stream, float* out, float* second, int vectors, bool adds, const float* partials,
                  int64_t groups, int64_t C);

}  // namespace llmc::cuda
