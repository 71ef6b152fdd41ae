// Dropout: threads share out rows, whose masks are drawn a piece at a time where they are used.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/check.h"

#include <algorithm>

namespace llmc::cpu {
namespace {

constexpr int64_t kPiece = 512;  ///< Channels.

template <typename T>
void drop_row(T* out, const T* x, const T* residual, int64_t row, int64_t C, const Dropout& dropout) {
    float factors[kPiece];
    for (int64_t first = 0; first < C; first += kPiece) {
        const int64_t channels = std::min(kPiece, C - first);
        fill_dropout_factors(factors, dropout, row, 1, first, channels);
        T* const to = out + first;
        const T* const from = x + first;
        if (residual == nullptr) {
#pragma omp simd
            for (int64_t c = 0; c < channels; ++c) to[c] = from_float<T>(factors[c] * to_float(from[c]));
            continue;
        }
        const T* const beside = residual + first;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
            to[c] = from_float<T>(to_float(beside[c]) + factors[c] * to_float(from[c]));
        }
    }
}

template <typename T>
void drop(Tensor out, Tensor x, Tensor residual, const Dropout& dropout) {
    const int64_t N = out.shape[0], C = out.shape[1];
    T* const to = out.as<T>();
    const T* const from = x.as<T>();
    const T* const beside = residual ? residual.as<T>() : nullptr;
    for_each_range(N, std::max<int64_t>(1, kBlockElements / C), 3 * out.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            drop_row(to + n * C, from + n * C, beside == nullptr ? nullptr : beside + n * C, n, C, dropout);
        }
    });
}

}  // namespace

void CpuBackend::dropout(Tensor out, Tensor x, Tensor residual, const Dropout& dropout) {
    CHECK(dropout && x.shape == out.shape && (!residual || residual.shape == out.shape), out.shape[0], out.shape[1]);
    CHECK(dropout.rows.shape[0] == out.shape[0], dropout.rows.shape[0], out.shape[0]);
    out.dtype == DType::BF16 ? drop<bf16>(out, x, residual, dropout) : drop<float>(out, x, residual, dropout);
}

}  // namespace llmc::cpu
