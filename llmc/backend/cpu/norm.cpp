// LayerNorm and RMSNorm: parallel over rows; a row stays in the first cache while it is passed over two or three times.
// Backward: each fixed block of rows sums its share of the weight gradients into the workspace, and the shares are then
// added in block order, parallel over columns.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/parallel.h"

#include <algorithm>
#include <cmath>

namespace llmc::cpu {
namespace {

constexpr int64_t kColumns = 256;  ///< Columns of one block of the final sum.

/// Rows of a block: at least 32, so that the shares are small beside the rows; at most 256 blocks.
int64_t rows_per_block(int64_t N) { return std::max<int64_t>(32, ceil_div(N, 256)); }

template <typename T>
float sum_of(const T* x, int64_t C) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; ++c) sum += to_float(x[c]);
    return sum;
}

template <typename T>
float sum_of_squares(const T* x, int64_t C, float center) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < C; ++c) {
        const float centred = to_float(x[c]) - center;
        sum += centred * centred;
    }
    return sum;
}

template <typename T>
void layernorm_row(T* out, const T* x, const T* weight, const T* bias, int64_t C, float mean, float rstd) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c)
        out[c] = from_float<T>((to_float(x[c]) - mean) * rstd * to_float(weight[c]) + to_float(bias[c]));
}

template <typename T>
void rmsnorm_row(T* out, const T* x, const T* weight, int64_t C, float rstd) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) out[c] = from_float<T>(to_float(x[c]) * rstd * to_float(weight[c]));
}

template <typename T>
void layernorm(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias, float epsilon) {
    const int64_t N = x.shape[0], C = x.shape[1];
    for_each_range(N, std::max<int64_t>(1, kBlockElements / C), 2 * x.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const T* row = x.as<T>() + n * C;
            const float center = sum_of(row, C) / static_cast<float>(C);
            const float variance = sum_of_squares(row, C, center) / static_cast<float>(C);
            const float scale = 1.0f / std::sqrt(variance + epsilon);
            layernorm_row(out.as<T>() + n * C, row, weight.as<T>(), bias.as<T>(), C, center, scale);
            mean.as<float>()[n] = center;
            rstd.as<float>()[n] = scale;
        }
    });
}

template <typename T>
void rmsnorm(Tensor out, Tensor rstd, Tensor x, Tensor weight, float epsilon) {
    const int64_t N = x.shape[0], C = x.shape[1];
    for_each_range(N, std::max<int64_t>(1, kBlockElements / C), 2 * x.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const T* row = x.as<T>() + n * C;
            const float scale = 1.0f / std::sqrt(sum_of_squares(row, C, 0) / static_cast<float>(C) + epsilon);
            rmsnorm_row(out.as<T>() + n * C, row, weight.as<T>(), C, scale);
            rstd.as<float>()[n] = scale;
        }
    });
}

/// What both backward operations share. RMSNorm is LayerNorm with the mean 0, no bias and no centring of the gradient.
struct NormBackward {
    Tensor d_x, d_out, x, mean, rstd, weight;
    bool accumulate;
    bool centred;
    bool adds;  ///< d_weight and d_bias +=.
};

/// One row: with h = (x - mean) * rstd and g = d_out * weight,
///   d_x = or += rstd * (g - average(g) - h * average(g * h)); d_weight += d_out * h; d_bias += d_out.
template <typename T>
void backward_row(const NormBackward& op, int64_t n, float* d_weight, float* d_bias) {
    const int64_t C = op.x.shape[1];
    const T *x = op.x.as<T>() + n * C, *d_out = op.d_out.as<T>() + n * C, *weight = op.weight.as<T>();
    const float mean = op.centred ? op.mean.as<float>()[n] : 0, rstd = op.rstd.as<float>()[n];

    float sum_g = 0, sum_gh = 0;
#pragma omp simd reduction(+ : sum_g, sum_gh)
    for (int64_t c = 0; c < C; ++c) {
        const float d = to_float(d_out[c]), h = (to_float(x[c]) - mean) * rstd, g = d * to_float(weight[c]);
        d_weight[c] += d * h;
        sum_g += g;
        sum_gh += g * h;
    }
    if (op.centred) {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) d_bias[c] += to_float(d_out[c]);
    }
    if (!op.d_x) return;
    T* d_x = op.d_x.as<T>() + n * C;
    const float mean_g = op.centred ? sum_g / static_cast<float>(C) : 0, mean_gh = sum_gh / static_cast<float>(C);
    const auto gradient = [&](int64_t c) {
        const float h = (to_float(x[c]) - mean) * rstd, g = to_float(d_out[c]) * to_float(weight[c]);
        return rstd * (g - mean_g - h * mean_gh);
    };
    if (op.accumulate) {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) d_x[c] = from_float<T>(to_float(d_x[c]) + gradient(c));
    } else {
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) d_x[c] = from_float<T>(gradient(c));
    }
}

/// out[begin .. end) = or += the shares, in block order. Shares lie `stride` elements apart.
void add_shares(float* out, bool adds, const float* shares, int64_t blocks, int64_t stride, int64_t begin,
                int64_t end) {
    float sum[kColumns] = {};
    for (int64_t block = 0; block < blocks; ++block) {
        const float* share = shares + block * stride + begin;
#pragma omp simd
        for (int64_t c = 0; c < end - begin; ++c) sum[c] += share[c];
    }
#pragma omp simd
    for (int64_t c = 0; c < end - begin; ++c) out[begin + c] = adds ? out[begin + c] + sum[c] : sum[c];
}

template <typename T>
void backward(const NormBackward& op, Tensor d_weight, Tensor d_bias, Tensor workspace) {
    const int64_t N = op.x.shape[0], C = op.x.shape[1];
    const int64_t step = rows_per_block(N), blocks = ceil_div(N, step), strips = ceil_div(C, kColumns);
    float* shares = static_cast<float*>(workspace.data);  // (blocks, 2, C): d_weight, d_bias
    float* d_weights = d_weight ? d_weight.as<float>() : nullptr;
    float* d_biases = d_bias ? d_bias.as<float>() : nullptr;
#pragma omp parallel if (blocks > 1 && 3 * op.x.bytes() >= kParallelBytes)
    {
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; ++block) {
            float* share = shares + block * 2 * C;
            std::fill(share, share + 2 * C, 0.0f);
            for (int64_t n = block * step; n < std::min(N, (block + 1) * step); ++n)
                backward_row<T>(op, n, share, share + C);
        }
#pragma omp for schedule(static)
        for (int64_t strip = 0; strip < strips; ++strip) {
            const int64_t begin = strip * kColumns, end = std::min(C, begin + kColumns);
            if (d_weights) add_shares(d_weights, op.adds, shares, blocks, 2 * C, begin, end);
            if (d_biases) add_shares(d_biases, op.adds, shares + C, blocks, 2 * C, begin, end);
        }
    }
}

void check_shapes(Tensor out, Tensor x, Tensor rstd, Tensor weight) {
    const int64_t N = x.shape[0], C = x.shape[1];
    CHECK(out.count() == x.count() && rstd.count() == N && weight.count() == C, out.count(), rstd.count(),
          weight.count(), N, C);
}

}  // namespace

void CpuBackend::layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
                                   float epsilon) {
    check_shapes(out, x, rstd, weight);
    x.dtype == DType::BF16 ? layernorm<bf16>(out, mean, rstd, x, weight, bias, epsilon)
                           : layernorm<float>(out, mean, rstd, x, weight, bias, epsilon);
}

void CpuBackend::rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor weight, float epsilon) {
    check_shapes(out, x, rstd, weight);
    x.dtype == DType::BF16 ? rmsnorm<bf16>(out, rstd, x, weight, epsilon)
                           : rmsnorm<float>(out, rstd, x, weight, epsilon);
}

void CpuBackend::layernorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, Tensor d_bias, bool adds,
                                    Tensor d_out, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor workspace) {
    check_shapes(d_x ? d_x : x, x, rstd, weight);
    CHECK(workspace.bytes() >= norm_backward_workspace(x.shape[0], x.shape[1]), workspace.bytes());
    const NormBackward op = {d_x, d_out, x, mean, rstd, weight, accumulate, true, adds};
    x.dtype == DType::BF16 ? backward<bf16>(op, d_weight, d_bias, workspace)
                           : backward<float>(op, d_weight, d_bias, workspace);
}

void CpuBackend::rmsnorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, bool adds, Tensor d_out, Tensor x,
                                  Tensor rstd, Tensor weight, Tensor workspace) {
    check_shapes(d_x ? d_x : x, x, rstd, weight);
    CHECK(workspace.bytes() >= norm_backward_workspace(x.shape[0], x.shape[1]), workspace.bytes());
    const NormBackward op = {d_x, d_out, x, Tensor(), rstd, weight, accumulate, false, adds};
    x.dtype == DType::BF16 ? backward<bf16>(op, d_weight, Tensor(), workspace)
                           : backward<float>(op, d_weight, Tensor(), workspace);
}

int64_t CpuBackend::norm_backward_workspace(int64_t N, int64_t C) const {
    return ceil_div(N, rows_per_block(N)) * 2 * C * size_of(DType::F32);
}

}  // namespace llmc::cpu
