// What activation functions are, element by element, for the kernels that are nothing else (activation.cu) and for
// products that apply them on the way out (gemm_hopper.cuh): of the same bf16 number both must make the same bits. So
// the one sum that compilers may or may not contract is written as they would.
#pragma once

#include "llmc/backend/cuda/elements.cuh"

namespace llmc::cuda {

constexpr float kGeluScale = 2 * 0.79788456080286536f;  // 2 sqrt(2/pi)
constexpr float kGeluCubic = 0.044715f;

template <typename T>
__device__ __forceinline__ float sigmoid(float x) {
    return reciprocal<T>(1.0f + exponential<T>(-x));
}

/// GELU in its tanh form. (1 + tanh(u)) / 2 = sigmoid(2u): one exponential and one division, and the relative accuracy
/// is kept where tanh(u) is close to -1.
template <typename T>
__device__ __forceinline__ float gelu_tanh(float x) {
    return x * sigmoid<T>(kGeluScale * x * __fmaf_rn(kGeluCubic * x, x, 1.0f));
}

/// SwiGLU: silu(gate) * up.
template <typename T>
__device__ __forceinline__ float silu_times(float gate, float up) {
    return gate * sigmoid<T>(gate) * up;
}

}  // namespace llmc::cuda
