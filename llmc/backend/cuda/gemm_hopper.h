// Forward products on Hopper's own instructions, which take an activation along: what prepared_matmuls.cpp runs in
// place of cuBLASLt where it is told to (base/gemm_algorithms.h). Elements have the same bits whatever N is and
// whatever the product takes along: sums go over IC in order, and what an activation is applied to is rounded first.
#pragma once

#include "llmc/backend/cuda/tensor_map.h"
#include "llmc/base/gemm_algorithms.h"

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace llmc::cuda {

/// What else is stored, from the product as it was rounded.
enum class Applied : uint8_t {
    Nothing,
    Gelu,    ///< Its tanh form, (N, OC).
    Swiglu,  ///< Of gates in the first half of the columns, (N, OC / 2).
};

/// out (N, OC) = residual + x (N, IC) * weight (OC, IC)^T + bias, row-major; the sum is rounded once. bias (OC) and
/// residual (N, OC), which may be out, may be null. Addresses are multiples of 16 bytes.
struct HopperProduct {
    __nv_bfloat16* out;
    __nv_bfloat16* activated;  ///< Null if nothing is applied.
    const __nv_bfloat16 *x, *weight, *bias, *residual;
    int N, OC, IC;
};

/// Whether it forms such products, of operands at multiples of 16 bytes.
bool hopper_gemm_takes(const GemmShape& shape);

/// By so many blocks at most, one to a multiprocessor; results do not depend on it.
void gemm_hopper(const HopperProduct& product, Applied applied, int multiprocessors, cudaStream_t stream);

}  // namespace llmc::cuda
