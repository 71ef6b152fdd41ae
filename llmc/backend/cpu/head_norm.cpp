// RMSNorm of query and key heads: parallel over tokens. The heads of a token follow each other in its row of qkv, and
// their values come after them. Backward: as in norm.cpp, each fixed block of tokens sums its share of the weights'
// gradients into the workspace, and the shares are then added in block order.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace llmc::cpu {

namespace {

/// Tokens of a block: at least 32, so that the shares are small beside them; at most 256 blocks.
int64_t tokens_per_block(int64_t N) { return std::max<int64_t>(32, ceil_div(N, 256)); }

template <typename T>
float mean_square(const T* x, int64_t HD) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < HD; ++d) sum += to_float(x[d]) * to_float(x[d]);
    return sum / static_cast<float>(HD);
}

template <typename T>
void normalise(T* out, const T* x, const T* weight, int64_t HD, float rstd) {
#pragma omp simd
    for (int64_t d = 0; d < HD; ++d) out[d] = from_float<T>(to_float(x[d]) * rstd * to_float(weight[d]));
}

/// One head: with h = x * rstd and g = d_out * weight, d_x = rstd * (g - h * average(g * h)); d_weight += d_out * h.
/// d_x may be d_out, or null.
template <typename T>
void head_backward(T* d_x, float* d_weight, const T* d_out, const T* x, const T* weight, int64_t HD, float rstd) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < HD; ++d) {
        const float gradient = to_float(d_out[d]), h = to_float(x[d]) * rstd;
        d_weight[d] += gradient * h;
        sum += gradient * to_float(weight[d]) * h;
    }
    if (d_x == nullptr) return;
    const float average = sum / static_cast<float>(HD);
#pragma omp simd
    for (int64_t d = 0; d < HD; ++d) {
        const float h = to_float(x[d]) * rstd, g = to_float(d_out[d]) * to_float(weight[d]);
        d_x[d] = from_float<T>(rstd * (g - h * average));
    }
}

struct HeadNorm {
    Tensor qkv, rstd, q_weight, k_weight;
    AttentionShape shape;
    int64_t heads() const { return shape.NH + shape.NKV; }
    int64_t normed_columns() const { return heads() * shape.HD; }
    const Tensor& weight_of(int64_t head) const { return head < shape.NH ? q_weight : k_weight; }
};

template <typename T>
void forward(const HeadNorm& op, Tensor out, float epsilon) {
    const int64_t N = op.qkv.shape[0], columns = op.qkv.shape[1], HD = op.shape.HD;
    for_each_range(N, std::max<int64_t>(1, kBlockElements / columns), 2 * op.qkv.bytes(),
                   [&](int64_t begin, int64_t end) {
                       for (int64_t n = begin; n < end; ++n) {
                           const T* x = op.qkv.as<T>() + n * columns;
                           T* to = out.as<T>() + n * columns;
                           for (int64_t head = 0; head < op.heads(); ++head) {
                               const float rstd = 1.0f / std::sqrt(mean_square(x + head * HD, HD) + epsilon);
                               normalise(to + head * HD, x + head * HD, op.weight_of(head).as<T>(), HD, rstd);
                               op.rstd.as<float>()[n * op.heads() + head] = rstd;
                           }
                           std::copy(x + op.normed_columns(), x + columns, to + op.normed_columns());
                       }
                   });
}

/// `share` (2, HD): sums for the queries' weight and the keys'.
template <typename T>
void token_backward(const HeadNorm& op, Tensor d_qkv, Tensor d_out, int64_t n, float* share) {
    const int64_t columns = op.qkv.shape[1], HD = op.shape.HD;
    const T *x = op.qkv.as<T>() + n * columns, *d = d_out.as<T>() + n * columns;
    T* const d_x = d_qkv ? d_qkv.as<T>() + n * columns : nullptr;
    for (int64_t head = 0; head < op.heads(); ++head) {
        head_backward(d_x ? d_x + head * HD : nullptr, share + (head < op.shape.NH ? 0 : HD), d + head * HD,
                      x + head * HD, op.weight_of(head).as<T>(), HD, op.rstd.as<float>()[n * op.heads() + head]);
    }
    if (d_x && d_x != d) std::copy(d + op.normed_columns(), d + columns, d_x + op.normed_columns());
}

template <typename T>
void backward(const HeadNorm& op, Tensor d_qkv, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor d_out,
              float* shares) {
    const int64_t N = op.qkv.shape[0], HD = op.shape.HD, step = tokens_per_block(N), blocks = ceil_div(N, step);
#pragma omp parallel for schedule(static) if (blocks > 1 && 3 * op.qkv.bytes() >= kParallelBytes)
    for (int64_t block = 0; block < blocks; ++block) {
        float* share = shares + block * 2 * HD;
        std::fill(share, share + 2 * HD, 0.0f);
        for (int64_t n = block * step; n < std::min(N, (block + 1) * step); ++n) {
            token_backward<T>(op, d_qkv, d_out, n, share);
        }
    }
    for (int64_t d = 0; d < 2 * HD; ++d) {
        const Tensor& d_weight = d < HD ? d_q_weight : d_k_weight;
        if (!d_weight) continue;
        float sum = 0;
        for (int64_t block = 0; block < blocks; ++block) sum += shares[block * 2 * HD + d];
        float& to = d_weight.as<float>()[d % HD];
        to = adds ? to + sum : sum;
    }
}

void check_shapes(const HeadNorm& op, Tensor other) {
    const int64_t N = op.shape.B * op.shape.T;
    CHECK(op.qkv.shape[0] == N && op.qkv.shape[1] == op.shape.qkv_columns(), op.qkv.shape[0], op.qkv.shape[1], N);
    CHECK(other.shape == op.qkv.shape && other.dtype == op.qkv.dtype, other.shape[0], other.shape[1]);
    CHECK(op.rstd.count() == N * op.heads(), op.rstd.count(), N);
    CHECK(op.q_weight.count() == op.shape.HD && op.k_weight.count() == op.shape.HD, op.q_weight.count());
}

}  // namespace

void CpuBackend::head_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor q_weight, Tensor k_weight,
                                   const AttentionShape& shape, float epsilon) {
    const HeadNorm op = {qkv, rstd, q_weight, k_weight, shape};
    check_shapes(op, out);
    qkv.dtype == DType::BF16 ? forward<bf16>(op, out, epsilon) : forward<float>(op, out, epsilon);
}

void CpuBackend::head_norm_backward(Tensor d_qkv, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor d_out,
                                    Tensor qkv, Tensor rstd, Tensor q_weight, Tensor k_weight,
                                    const AttentionShape& shape, Tensor workspace) {
    const HeadNorm op = {qkv, rstd, q_weight, k_weight, shape};
    check_shapes(op, d_out);
    if (d_qkv) check_shapes(op, d_qkv);
    CHECK(workspace.bytes() >= head_norm_backward_workspace(qkv.shape[0], shape.HD), workspace.bytes());
    const auto run = qkv.dtype == DType::BF16 ? backward<bf16> : backward<float>;
    run(op, d_qkv, d_q_weight, d_k_weight, adds, d_out, static_cast<float*>(workspace.data));
}

int64_t CpuBackend::head_norm_backward_workspace(int64_t N, int64_t HD) const {
    return ceil_div(N, tokens_per_block(N)) * 2 * HD * size_of(DType::F32);
}

}  // namespace llmc::cpu
