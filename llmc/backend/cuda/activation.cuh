// What activation functions are, element by element, for the kernels that are nothing else (activation.cu) and for
// products that apply them on the way out (gemm_hopper.cuh): of the same bf16 number both must make the same bits. So
// the sums that compilers may or may not contract are written as they would.
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

/// d * gelu'(x), of the tanh form. s (1 - s) is the same for u and -u; from |u| neither factor loses digits.
template <typename T>
__device__ __forceinline__ float gelu_tanh_gradient(float d, float x) {
    const float u = kGeluScale * x * __fmaf_rn(kGeluCubic * x, x, 1.0f);
    const float slope = kGeluScale * __fmaf_rn(3.0f * kGeluCubic * x, x, 1.0f);
    const float e = exponential<T>(-fabsf(u)), r = reciprocal<T>(1.0f + e);
    return d * __fmaf_rn(x * (e * r * r), slope, u < 0 ? e * r : r);
}

/// SwiGLU: silu(gate) * up.
template <typename T>
__device__ __forceinline__ float silu_times(float gate, float up) {
    return gate * sigmoid<T>(gate) * up;
}

/// The gradients of gate and up, of that of their SwiGLU.
struct GateAndUp {
    float gate, up;
};
template <typename T>
__device__ __forceinline__ GateAndUp silu_times_gradient(float d, float gate, float up) {
    const float s = sigmoid<T>(gate);
    return {d * up * s * __fmaf_rn(gate, 1.0f - s, 1.0f), d * gate * s};
}

}  // namespace llmc::cuda
