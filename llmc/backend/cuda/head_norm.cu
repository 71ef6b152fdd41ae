// RMSNorm of query and key heads: a warp has one head of one token, its columns spread over the lanes. Forward: a warp
// a head. Backward: a block walks the tokens of its group, its warps take turns with the heads, and each lane sums the
// gradients of the weights for its own columns on the way; the sums of the warps are added in order, those of the
// groups in a second kernel (column_sum.h). Bound by reading and writing qkv once.
#include "llmc/backend/cuda/column_sum.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"
#include "llmc/base/check.h"

#include <algorithm>
#include <cstdint>

namespace llmc::cuda {
inline namespace head_norm_kernels {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kMaxHeadSize = 256;
constexpr int kColumns = kMaxHeadSize / kWarpSize;  ///< Of a lane: lane, lane + 32, ...

/// Tokens of a group: at most 512 groups, and enough tokens that the partial sums are small beside them.
int64_t tokens_per_group(int64_t N) { return std::max<int64_t>(16, ceil_div(N, 512)); }

template <typename T>
struct HeadNorm {
    T* out;  ///< In the backward d_qkv, which may be d_out.
    float* rstd;
    const T *qkv, *d_out, *q_weight, *k_weight;
    float* partials;  ///< (groups, 2, HD): of the queries' weight and the keys'.
    int64_t N, tokens;
    int NH, NKV, HD;
    float epsilon;

    __device__ __forceinline__ int heads() const { return NH + 2 * NKV; }
    __device__ __forceinline__ bool is_normed(int head) const { return head < NH + NKV; }
    __device__ __forceinline__ const T* weight_of(int head) const { return head < NH ? q_weight : k_weight; }
    __device__ __forceinline__ int64_t row(int64_t token, int head) const { return (token * heads() + head) * HD; }
    __device__ __forceinline__ float& rstd_of(int64_t token, int head) const { return rstd[token * (NH + NKV) + head]; }
};

/// work(c, column) for this lane's columns.
template <typename Work>
__device__ __forceinline__ void for_columns(int HD, Work work) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
        const int column = static_cast<int>(threadIdx.x) % kWarpSize + c * kWarpSize;
        if (column < HD) work(c, column);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) head_norm_forward_kernel(HeadNorm<T> op) {
    const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
    if (item >= op.N * op.heads()) return;
    const int64_t token = item / op.heads();
    const int head = static_cast<int>(item % op.heads());
    const T* const x = op.qkv + op.row(token, head);
    T* const out = op.out + op.row(token, head);
    if (!op.is_normed(head)) {
        for_columns(op.HD, [&](int, int column) { out[column] = x[column]; });
        return;
    }
    float held[kColumns], sum = 0;
    for_columns(op.HD, [&](int c, int column) {
        held[c] = to_float(x[column]);
        sum += held[c] * held[c];
    });
    const float rstd = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(op.HD) + op.epsilon);
    const T* const weight = op.weight_of(head);
    for_columns(op.HD,
                [&](int c, int column) { out[column] = from_float<T>(held[c] * rstd * to_float(weight[column])); });
    if (threadIdx.x % kWarpSize == 0) op.rstd_of(token, head) = rstd;
}

/// With h = x * rstd and g = d_out * weight: d_x = rstd * (g - h * average(g * h)); d_weight += d_out * h.
template <typename T>
__device__ __forceinline__ void head_backward(const HeadNorm<T>& op, int64_t token, int head, float (&d_q)[kColumns],
                                              float (&d_k)[kColumns]) {
    const T *const x = op.qkv + op.row(token, head), *const d = op.d_out + op.row(token, head);
    const T* const weight = op.weight_of(head);
    const float rstd = op.rstd_of(token, head);
    float h[kColumns], g[kColumns], sum = 0;
    for_columns(op.HD, [&](int c, int column) {
        const float gradient = to_float(d[column]);
        h[c] = to_float(x[column]) * rstd;
        g[c] = gradient * to_float(weight[column]);
        sum += g[c] * h[c];
        (head < op.NH ? d_q[c] : d_k[c]) += gradient * h[c];
    });
    if (!op.out) return;
    const float average = warp_sum(sum) / static_cast<float>(op.HD);
    T* const d_x = op.out + op.row(token, head);
    for_columns(op.HD, [&](int c, int column) { d_x[column] = from_float<T>(rstd * (g[c] - h[c] * average)); });
}

template <typename T>
__global__ void __launch_bounds__(kThreads) head_norm_backward_kernel(HeadNorm<T> op) {
    SHARED(float[kWarps][2][kMaxHeadSize], sums);
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * op.tokens, end = min(op.N, first + op.tokens);
    float d_q[kColumns] = {}, d_k[kColumns] = {};
    for (int64_t token = first; token < end; ++token) {
        for (int head = warp; head < op.heads(); head += kWarps) {
            if (op.is_normed(head)) {
                head_backward(op, token, head, d_q, d_k);
            } else if (op.out && op.out != op.d_out) {
                const int64_t row = op.row(token, head);
                for_columns(op.HD, [&](int, int column) { op.out[row + column] = op.d_out[row + column]; });
            }
        }
    }
    for_columns(op.HD, [&](int c, int column) {
        sums[warp][0][column] = d_q[c];
        sums[warp][1][column] = d_k[c];
    });
    __syncthreads();
    float* const share = op.partials + static_cast<int64_t>(blockIdx.x) * 2 * op.HD;
    for (int i = static_cast<int>(threadIdx.x); i < 2 * op.HD; i += kThreads) {
        const int which = i / op.HD, column = i % op.HD;
        float sum = 0;
        for (int w = 0; w < kWarps; ++w) sum += sums[w][which][column];
        share[i] = sum;
    }
}

template <typename T>
HeadNorm<T> operands(Tensor out, Tensor rstd, Tensor qkv, Tensor d_out, Tensor q_weight, Tensor k_weight,
                     const AttentionShape& shape) {
    HeadNorm<T> op = {};
    op.out = elements_of<T>(out);
    op.rstd = elements_of<float>(rstd);
    op.qkv = elements_of<const T>(qkv);
    op.d_out = elements_of<const T>(d_out);
    op.q_weight = elements_of<const T>(q_weight);
    op.k_weight = elements_of<const T>(k_weight);
    op.N = qkv.shape[0];
    op.tokens = tokens_per_group(op.N);
    op.NH = static_cast<int>(shape.NH);
    op.NKV = static_cast<int>(shape.NKV);
    op.HD = static_cast<int>(shape.HD);
    return op;
}

template <typename T>
void forward(cudaStream_t stream, HeadNorm<T> op, float epsilon) {
    op.epsilon = epsilon;
    const int64_t items = op.N * (op.NH + 2 * op.NKV);
    launch(head_norm_forward_kernel<T>, blocks_of(ceil_div(items, kWarps)), kThreads, 0, stream, op);
}

template <typename T>
void backward(cudaStream_t stream, HeadNorm<T> op, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor workspace) {
    op.partials = static_cast<float*>(workspace.data);
    const int64_t groups = ceil_div(op.N, op.tokens);
    launch(head_norm_backward_kernel<T>, blocks_of(groups), kThreads, 0, stream, op);
    sum_partials(stream, elements_of<float>(d_q_weight), elements_of<float>(d_k_weight), 2, adds, op.partials, groups,
                 op.HD);
}

void check_shapes(Tensor other, Tensor rstd, Tensor qkv, Tensor q_weight, Tensor k_weight,
                  const AttentionShape& shape) {
    const int64_t N = shape.B * shape.T;
    CHECK(shape.HD <= kMaxHeadSize, shape.HD);
    CHECK(qkv.shape[0] == N && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1], N);
    CHECK(other.shape == qkv.shape && other.dtype == qkv.dtype, other.shape[0], other.shape[1]);
    CHECK(rstd.count() == N * (shape.NH + shape.NKV), rstd.count(), N);
    CHECK(q_weight.count() == shape.HD && k_weight.count() == shape.HD, q_weight.count(), k_weight.count());
}

}  // namespace head_norm_kernels

void CudaBackend::head_norm_forward(Tensor out, Tensor rstd, Tensor qkv, Tensor q_weight, Tensor k_weight,
                                    const AttentionShape& shape, float epsilon) {
    check_shapes(out, rstd, qkv, q_weight, k_weight, shape);
    if (qkv.dtype == DType::BF16)
        forward(stream_, operands<bf16>(out, rstd, qkv, {}, q_weight, k_weight, shape), epsilon);
    else
        forward(stream_, operands<float>(out, rstd, qkv, {}, q_weight, k_weight, shape), epsilon);
}

void CudaBackend::head_norm_backward(Tensor d_qkv, Tensor d_q_weight, Tensor d_k_weight, bool adds, Tensor d_out,
                                     Tensor qkv, Tensor rstd, Tensor q_weight, Tensor k_weight,
                                     const AttentionShape& shape, Tensor workspace) {
    check_shapes(d_out, rstd, qkv, q_weight, k_weight, shape);
    if (d_qkv) check_shapes(d_qkv, rstd, qkv, q_weight, k_weight, shape);
    CHECK(workspace.bytes() >= head_norm_backward_workspace(qkv.shape[0], shape.HD), workspace.bytes());
    if (qkv.dtype == DType::BF16)
        backward(stream_, operands<bf16>(d_qkv, rstd, qkv, d_out, q_weight, k_weight, shape), d_q_weight, d_k_weight,
                 adds, workspace);
    else
        backward(stream_, operands<float>(d_qkv, rstd, qkv, d_out, q_weight, k_weight, shape), d_q_weight, d_k_weight,
                 adds, workspace);
}

int64_t CudaBackend::head_norm_backward_workspace(int64_t N, int64_t HD) const {
    return ceil_div(N, tokens_per_group(N)) * 2 * HD * size_of(DType::F32);
}

}  // namespace llmc::cuda
