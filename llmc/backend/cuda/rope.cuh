// The rotation of a pair of channels, which rope.cu and the product before it (gemm_epilogue_hopper.cuh) share: with
// its roundings written out, so that both have the same bits.
#pragma once

#include "llmc/backend/cuda/device.cuh"

namespace llmc::cuda {

template <typename T>
__device__ __forceinline__ void turn(T& lower, T& upper, float cosine, float sine) {
    const float x = to_float(lower), y = to_float(upper);
    lower = from_float<T>(__fmaf_rn(x, cosine, -__fmul_rn(y, sine)));
    upper = from_float<T>(__fmaf_rn(y, cosine, __fmul_rn(x, sine)));
}

}  // namespace llmc::cuda
