// GELU and SwiGLU: element by element, at the speed of memory. GELU's tanh form is written with the logistic function,
// since (1 + tanh(u)) / 2 = sigmoid(2u); that form keeps its relative accuracy where tanh(u) is close to -1.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/parallel.h"
#include "llmc/backend/cpu/vector_math.h"

#include <algorithm>
#include <cmath>

namespace llmc::cpu {
namespace {

constexpr float kGeluScale = 2 * 0.79788456080286536f;  // 2 sqrt(2/pi)
constexpr float kGeluCubic = 0.044715f;

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

/// `range` is gelu_range or its exact twin.
template <typename T>
void gelu(void (*range)(T*, const T*, int64_t, int64_t), Tensor out, Tensor x) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    for_each_range(x.count(), kBlockElements, 2 * x.bytes(),
                   [&](int64_t begin, int64_t end) { range(out.as<T>(), x.as<T>(), begin, end); });
}

template <typename T>
void gelu_backward(void (*range)(T*, const T*, const T*, int64_t, int64_t), Tensor d_x, Tensor d_out, Tensor x) {
    CHECK(d_x.count() == x.count() && d_out.count() == x.count(), d_x.count(), d_out.count(), x.count());
    for_each_range(x.count(), kBlockElements, 3 * x.bytes(),
                   [&](int64_t begin, int64_t end) { range(d_x.as<T>(), d_out.as<T>(), x.as<T>(), begin, end); });
}

template <typename T>
void swiglu(Tensor out, Tensor gate_up) {
    const int64_t N = out.shape[0], F = out.shape[1];
    for_each_range(N, std::max<int64_t>(1, kBlockElements / F), 3 * out.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const T* gate = gate_up.as<T>() + 2 * n * F;
            swiglu_row(out.as<T>() + n * F, gate, gate + F, F);
        }
    });
}

template <typename T>
void swiglu_backward_all(Tensor d_gate_up, Tensor d_out, Tensor gate_up) {
    const int64_t N = d_out.shape[0], F = d_out.shape[1];
    for_each_range(N, std::max<int64_t>(1, kBlockElements / F), 5 * d_out.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const T* gate = gate_up.as<T>() + 2 * n * F;
            T* d_gate = d_gate_up.as<T>() + 2 * n * F;
            swiglu_backward_row(d_gate, d_gate + F, d_out.as<T>() + n * F, gate, gate + F, F);
        }
    });
}

}  // namespace

void CpuBackend::gelu_forward(Tensor out, Tensor x) {
    x.dtype == DType::BF16 ? gelu(gelu_range<bf16>, out, x) : gelu(gelu_range<float>, out, x);
}

void CpuBackend::gelu_backward(Tensor d_x, Tensor d_out, Tensor x) {
    x.dtype == DType::BF16 ? cpu::gelu_backward(gelu_backward_range<bf16>, d_x, d_out, x)
                           : cpu::gelu_backward(gelu_backward_range<float>, d_x, d_out, x);
}

void CpuBackend::gelu_exact_forward(Tensor out, Tensor x) {
    x.dtype == DType::BF16 ? gelu(gelu_exact_range<bf16>, out, x) : gelu(gelu_exact_range<float>, out, x);
}

void CpuBackend::gelu_exact_backward(Tensor d_x, Tensor d_out, Tensor x) {
    x.dtype == DType::BF16 ? cpu::gelu_backward(gelu_exact_backward_range<bf16>, d_x, d_out, x)
                           : cpu::gelu_backward(gelu_exact_backward_range<float>, d_x, d_out, x);
}

void CpuBackend::swiglu_forward(Tensor out, Tensor gate_up) {
    CHECK(gate_up.shape[0] == out.shape[0] && gate_up.shape[1] == 2 * out.shape[1], gate_up.shape[1], out.shape[1]);
    out.dtype == DType::BF16 ? swiglu<bf16>(out, gate_up) : swiglu<float>(out, gate_up);
}

void CpuBackend::swiglu_backward(Tensor d_gate_up, Tensor d_out, Tensor gate_up) {
    CHECK(gate_up.count() == 2 * d_out.count() && d_gate_up.count() == gate_up.count(), gate_up.count(), d_out.count(),
          d_gate_up.count());
    d_out.dtype == DType::BF16 ? swiglu_backward_all<bf16>(d_gate_up, d_out, gate_up)
                               : swiglu_backward_all<float>(d_gate_up, d_out, gate_up);
}

}  // namespace llmc::cpu
