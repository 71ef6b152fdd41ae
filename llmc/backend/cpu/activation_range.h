// GELU and SwiGLU and their backward on a range of elements, for the operations that are nothing else (activation.cpp)
// and for those that do more to it on the way (activation_and_weight_gradient.cpp). GELU's tanh form is written with
// the logistic function, since (1 + tanh(u)) / 2 = sigmoid(2u); that form keeps its relative accuracy where tanh(u) is
// close to -1.
#pragma once

#include "llmc/backend/cpu/vector_math.h"
#include "llmc/base/dtype.h"

#include <cmath>
#include <cstdint>

namespace llmc::cpu {

inline constexpr float kGeluScale = 2 * 0.79788456080286536f;  // 2 sqrt(2/pi)
inline constexpr float kGeluCubic = 0.044715f;

template <typename T>
void gelu_range(T* out, const T* in, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        const float x = to_float(in[i]);
        out[i] = from_float<T>(x * fast_sigmoid(kGeluScale * x * (1.0f + kGeluCubic * x * x)));
    }
}

template <typename T>
void gelu_backward_range(T* d_x, const T* d_out, const T* in, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        const float x = to_float(in[i]);
        const float u = kGeluScale * x * (1.0f + kGeluCubic * x * x);
        const float slope = kGeluScale * (1.0f + 3.0f * kGeluCubic * x * x);
        // s (1 - s) is the same for u and -u; from |u| neither factor loses digits.
        const float e = fast_exp(-std::fabs(u)), r = 1.0f / (1.0f + e);
        const float s = u < 0 ? e * r : r;
        d_x[i] = from_float<T>(to_float(d_out[i]) * (s + x * (e * r * r) * slope));
    }
}

template <typename T>
void gelu_exact_range(T* out, const T* in, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        const float x = to_float(in[i]);
        out[i] = from_float<T>(x * Normal(x).below);
    }
}

template <typename T>
void gelu_exact_backward_range(T* d_x, const T* d_out, const T* in, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        const float x = to_float(in[i]);
        const Normal normal(x);
        d_x[i] = from_float<T>(to_float(d_out[i]) * (normal.below + x * normal.density));
    }
}

template <typename T>
void swiglu_row(T* out, const T* gate, const T* up, int64_t F) {
#pragma omp simd
    for (int64_t i = 0; i < F; ++i) {
        const float g = to_float(gate[i]);
        out[i] = from_float<T>(g * fast_sigmoid(g) * to_float(up[i]));
    }
}

template <typename T>
void swiglu_backward_row(T* d_gate, T* d_up, const T* d_out, const T* gate, const T* up, int64_t F) {
#pragma omp simd
    for (int64_t i = 0; i < F; ++i) {
        const float g = to_float(gate[i]), d = to_float(d_out[i]);
        const float s = fast_sigmoid(g);
        d_gate[i] = from_float<T>(d * to_float(up[i]) * s * (1.0f + g * (1.0f - s)));
        d_up[i] = from_float<T>(d * g * s);
    }
}

}  // namespace llmc::cpu
