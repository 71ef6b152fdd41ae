// GELU and SwiGLU: element by element, at the speed of memory.
#include "llmc/backend/cpu/activation_range.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"

#include <algorithm>

namespace llmc::cpu {
namespace {

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
