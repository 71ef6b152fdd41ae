// LayerNorm and RMSNorm. Both directions hold a row in registers, two or four groups of 16 bytes to a thread: one warp
// to a short row (forward: up to 1024 bf16 channels), which needs no barrier, and more warps to longer ones. Columns
// beyond the registers of the largest block are read again from memory instead.
//
// Backward: a block walks the rows of its group, and each thread sums the weight gradients of its own columns on the
// way; the sums of the groups are added in a second kernel (column_sum.h). Groups depend on the number of rows only.
#include "llmc/backend/cuda/column_sum.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"

#include <algorithm>

namespace llmc::cuda {
inline namespace norm_kernels {

constexpr int kGroups = 4;          ///< Groups of columns that a thread holds in registers,
constexpr int kBackwardGroups = 2;  ///< and in the backward, where it also holds their sums.
constexpr int kMaxThreads = 512;    ///< Then a thread may use 128 registers.
constexpr int kBlockThreads = 256;

/// Rows of a group: at most 512 groups, which are a few blocks for each multiprocessor of a large device, and enough
/// rows that the partial sums are small beside them.
int64_t rows_per_group(int64_t N) { return std::max<int64_t>(16, ceil_div(N, 512)); }

/// A block of (threads of a row, rows).
dim3 block_for(int64_t C, int columns_held) {
    const int64_t threads = round_up(ceil_div(C, columns_held), kWarpSize);
    const unsigned x = static_cast<unsigned>(std::min<int64_t>(threads, kMaxThreads));
    return dim3(x, std::max(1u, kBlockThreads / x));
}

/// A norm without a mean is RMSNorm: no centring, no bias.
template <typename T>
struct Forward {
    T* out;
    float *mean, *rstd;
    const T *x, *weight, *bias;
    int64_t N, C;
    float epsilon;
};

/// Sums over the threads of a row, in a fixed order: a warp, or the block.
__device__ __forceinline__ float row_sum(float x) { return blockDim.x == kWarpSize ? warp_sum(x) : block_sum(x); }

template <typename T, int kSize>
__device__ __forceinline__ void write_normalised(const Forward<T>& op, T* out, const Group<T, kSize>& x, int64_t column,
                                                 float mean, float rstd) {
    const Group<T, kSize> weight = load_group<kSize>(op.weight + column);
    Group<T, kSize> bias{}, result;
    if (op.bias) bias = load_group<kSize>(op.bias + column);
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
        const float scaled = (to_float(x[k]) - mean) * rstd * to_float(weight[k]);
        result[k] = from_float<T>(op.bias ? scaled + to_float(bias[k]) : scaled);
    }
    store_group(out + column, result);
}

/// Bytes: reads x, writes out: 4 an element of bf16. GPT-2 124M, 32 x 1024, at 3.0 TB/s: 0.034 ms.
template <typename T, int kSize>
__global__ void __launch_bounds__(kMaxThreads) norm_forward_kernel(Forward<T> op) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y, C = op.C;
    if (row >= op.N) return;  // Only where a row has one warp: no barriers follow.
    const int64_t first = static_cast<int64_t>(threadIdx.x) * kSize, step = static_cast<int64_t>(blockDim.x) * kSize;
    const T* const x = op.x + row * C;
    Group<T, kSize> held[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
        if (first + g * step < C) held[g] = load_group<kSize>(x + first + g * step);

    const auto sum_of = [&](auto term) {
        float sum = 0;
        const auto add = [&](const Group<T, kSize>& group) {
#pragma unroll
            for (int k = 0; k < kSize; ++k) sum += term(to_float(group[k]));
        };
#pragma unroll
        for (int g = 0; g < kGroups; ++g)
            if (first + g * step < C) add(held[g]);
        for (int64_t c = first + kGroups * step; c < C; c += step) add(load_group<kSize>(x + c));
        return row_sum(sum);
    };
    const float count = static_cast<float>(C);
    const float mean = op.mean ? sum_of([](float v) { return v; }) / count : 0.0f;
    const float variance = sum_of([mean](float v) { return (v - mean) * (v - mean); }) / count;
    const float rstd = 1.0f / sqrtf(variance + op.epsilon);

    T* const out = op.out + row * C;
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
        if (first + g * step < C) write_normalised(op, out, held[g], first + g * step, mean, rstd);
    for (int64_t c = first + kGroups * step; c < C; c += step)
        write_normalised(op, out, load_group<kSize>(x + c), c, mean, rstd);
    if (threadIdx.x == 0) {
        if (op.mean) op.mean[row] = mean;
        op.rstd[row] = rstd;
    }
}

template <typename T>
struct Backward {
    T* d_x;  ///< Or null.
    const T *d_out, *x, *weight;
    const float *mean, *rstd;
    float* partials;  ///< (groups, 2, C): d_weight and d_bias; without a mean (groups, C).
    int64_t N, C, rows;
    bool accumulate;
};

struct Sums {
    float g, gh;
};

/// Both sums over the threads of a row; every thread of it gets them. Calls must alternate `slot`: what one call left
/// in shared memory may still be read during the next.
__device__ __forceinline__ Sums row_sums(Sums sums, int slot) {
    SHARED(Sums[2][kMaxThreads / kWarpSize], of_warps);
    sums = {warp_sum(sums.g), warp_sum(sums.gh)};
    if (blockDim.x == kWarpSize) return sums;
    const int warps = blockDim.x / kWarpSize, first = threadIdx.y * warps;
    if (threadIdx.x % kWarpSize == 0) of_warps[slot][first + threadIdx.x / kWarpSize] = sums;
    __syncthreads();
    sums = {0, 0};
    for (int warp = first; warp < first + warps; ++warp) {
        sums.g += of_warps[slot][warp].g;
        sums.gh += of_warps[slot][warp].gh;
    }
    return sums;
}

/// With h = (x - mean) * rstd and g = d_out * weight, a group's part of sum(g) and sum(g h), d_weight and d_bias.
template <typename T, int kSize>
__device__ __forceinline__ void add_group(Sums& sums, float (&d_weight)[kSize], float (&d_bias)[kSize],
                                          const Group<T, kSize>& x, const Group<T, kSize>& d_out, const T* weight,
                                          float mean, float rstd) {
    const Group<T, kSize> weights = load_group<kSize>(weight);
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
        const float d = to_float(d_out[k]), h = (to_float(x[k]) - mean) * rstd, g = d * to_float(weights[k]);
        d_weight[k] += d * h;
        d_bias[k] += d;
        sums.g += g;
        sums.gh += g * h;
    }
}

/// d_x = or += rstd * (g - average(g) - h * average(g h)). `before` is what it is added to.
template <typename T, int kSize>
__device__ __forceinline__ void write_gradient(T* d_x, const Group<T, kSize>& before, const Group<T, kSize>& x,
                                               const Group<T, kSize>& d_out, const T* weight, float mean, float rstd,
                                               Sums average, bool accumulate) {
    const Group<T, kSize> weights = load_group<kSize>(weight);
    Group<T, kSize> result;
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
        const float h = (to_float(x[k]) - mean) * rstd, g = to_float(d_out[k]) * to_float(weights[k]);
        const float gradient = rstd * (g - average.g - h * average.gh);
        result[k] = from_float<T>(accumulate ? to_float(before[k]) + gradient : gradient);
    }
    store_group(d_x, result);
}

/// Bytes: reads x and d_out, and d_x where it adds; writes d_x, and 8 C for each group. The weight comes from L1. That
/// is 8 an element of bf16 where it adds. GPT-2 124M, 32 x 1024, at 3.0 TB/s: 0.069 ms.
template <typename T, int kSize>
__global__ void __launch_bounds__(kMaxThreads) norm_backward_kernel(Backward<T> op) {
    const bool centred = op.mean != nullptr;
    const int64_t C = op.C, first_row = blockIdx.x * op.rows, end = min(op.N, first_row + op.rows);
    const int64_t first = static_cast<int64_t>(threadIdx.x) * kSize, step = static_cast<int64_t>(blockDim.x) * kSize;
    float* const share = op.partials + blockIdx.x * (centred ? 2 * C : C);
    float d_weight[kBackwardGroups][kSize] = {}, d_bias[kBackwardGroups][kSize] = {};

    int slot = 0;
    for (int64_t begin = first_row; begin < end; begin += blockDim.y, slot ^= 1) {
        const int64_t row = begin + threadIdx.y;
        const int64_t columns = row < end ? C : 0;  // Threads without a row only wait.
        const T *const x = op.x + row * C, *const d_out = op.d_out + row * C;
        T* const d_x = op.d_x ? op.d_x + row * C : nullptr;
        const float mean = centred && columns > 0 ? op.mean[row] : 0, rstd = columns > 0 ? op.rstd[row] : 0;
        Group<T, kSize> x_held[kBackwardGroups], d_held[kBackwardGroups], before[kBackwardGroups] = {};
#pragma unroll
        for (int g = 0; g < kBackwardGroups; ++g) {
            if (first + g * step >= columns) continue;
            x_held[g] = load_group<kSize>(x + first + g * step);
            d_held[g] = load_group<kSize>(d_out + first + g * step);
            if (op.accumulate) before[g] = load_group<kSize>(d_x + first + g * step);
        }
        Sums sums = {0, 0};
#pragma unroll
        for (int g = 0; g < kBackwardGroups; ++g)
            if (first + g * step < columns)
                add_group(sums, d_weight[g], d_bias[g], x_held[g], d_held[g], op.weight + first + g * step, mean, rstd);
        // Sums of columns that the registers cannot hold stay in the share. Then the block has one row at a time.
        for (int64_t c = first + kBackwardGroups * step; c < columns; c += step) {
            float weight_part[kSize] = {}, bias_part[kSize] = {};
            add_group(sums, weight_part, bias_part, load_group<kSize>(x + c), load_group<kSize>(d_out + c),
                      op.weight + c, mean, rstd);
            row == first_row ? store_floats(share + c, weight_part) : add_floats(share + c, weight_part);
            if (centred)
                row == first_row ? store_floats(share + C + c, bias_part) : add_floats(share + C + c, bias_part);
        }
        if (!op.d_x) continue;
        sums = row_sums(sums, slot);
        const Sums average = {centred ? sums.g / static_cast<float>(C) : 0, sums.gh / static_cast<float>(C)};
#pragma unroll
        for (int g = 0; g < kBackwardGroups; ++g) {
            const int64_t c = first + g * step;
            if (c < columns)
                write_gradient(d_x + c, before[g], x_held[g], d_held[g], op.weight + c, mean, rstd, average,
                               op.accumulate);
        }
        for (int64_t c = first + kBackwardGroups * step; c < columns; c += step) {
            Group<T, kSize> old = {};
            if (op.accumulate) old = load_group<kSize>(d_x + c);
            write_gradient(d_x + c, old, load_group<kSize>(x + c), load_group<kSize>(d_out + c), op.weight + c, mean,
                           rstd, average, op.accumulate);
        }
    }

    // The threads of the first row gather what the others' columns gave, row by row.
    DYNAMIC_SHARED(float, exchange);  // (2, kBackwardGroups, kSize, blockDim.x) if there are several rows
    const auto each_sum = [&](auto work) {
#pragma unroll
        for (int g = 0; g < kBackwardGroups; ++g)
#pragma unroll
            for (int k = 0; k < kSize; ++k) {
                float* const at = exchange + (g * kSize + k) * 2 * blockDim.x + threadIdx.x;
                work(d_weight[g][k], at[0]);
                work(d_bias[g][k], at[blockDim.x]);
            }
    };
    for (unsigned other = 1; other < blockDim.y; ++other) {
        __syncthreads();
        if (threadIdx.y == other) each_sum([](float sum, float& shared) { shared = sum; });
        __syncthreads();
        if (threadIdx.y == 0) each_sum([](float& sum, float shared) { sum += shared; });
    }
    if (threadIdx.y != 0) return;
#pragma unroll
    for (int g = 0; g < kBackwardGroups; ++g) {
        const int64_t c = first + g * step;
        if (c >= C) continue;
        store_floats(share + c, d_weight[g]);
        if (centred) store_floats(share + C + c, d_bias[g]);
    }
}

template <typename T>
void forward(cudaStream_t stream, Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
             float epsilon) {
    constexpr int kSize = Pack<T>::kSize;
    const int64_t N = x.shape[0], C = x.shape[1];
    const bool whole = C % kSize == 0 && all_aligned({out.data, x.data, weight.data, bias.data});
    dim3 block = block_for(C, kGroups * (whole ? kSize : 1));
    if (block.x > kWarpSize) block.y = 1;
    const Forward<T> op = {elements_of<T>(out),
                           elements_of<float>(mean),
                           elements_of<float>(rstd),
                           elements_of<const T>(x),
                           elements_of<const T>(weight),
                           elements_of<const T>(bias),
                           N,
                           C,
                           epsilon};
    launch(whole ? norm_forward_kernel<T, kSize> : norm_forward_kernel<T, 1>, blocks_of(ceil_div(N, block.y)), block, 0,
           stream, op);
}

template <typename T>
void backward(cudaStream_t stream, Tensor d_x, bool accumulate, Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out,
              Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor workspace) {
    constexpr int kSize = Pack<T>::kSize;
    const int64_t N = x.shape[0], C = x.shape[1], rows = rows_per_group(N), groups = ceil_div(N, rows);
    const bool whole = C % kSize == 0 && all_aligned({d_x.data, d_out.data, x.data, weight.data, workspace.data});
    const int columns_held = kBackwardGroups * (whole ? kSize : 1);
    const dim3 block = block_for(C, columns_held);
    const size_t shared_bytes = block.y > 1 ? 2 * columns_held * block.x * sizeof(float) : 0;
    float* const partials = static_cast<float*>(workspace.data);
    const Backward<T> op = {elements_of<T>(d_x),
                            elements_of<const T>(d_out),
                            elements_of<const T>(x),
                            elements_of<const T>(weight),
                            elements_of<const float>(mean),
                            elements_of<const float>(rstd),
                            partials,
                            N,
                            C,
                            rows,
                            accumulate && d_x};
    launch(whole ? norm_backward_kernel<T, kSize> : norm_backward_kernel<T, 1>, blocks_of(groups), block, shared_bytes,
           stream, op);
    sum_partials(stream, elements_of<float>(d_weight), elements_of<float>(d_bias), mean ? 2 : 1, adds, partials, groups,
                 C);
}

void check_shapes(Tensor out, Tensor x, Tensor rstd, Tensor weight) {
    const int64_t N = x.shape[0], C = x.shape[1];
    CHECK(out.count() == x.count() && rstd.count() == N && weight.count() == C, out.count(), rstd.count(),
          weight.count(), N, C);
}

}  // namespace norm_kernels

void CudaBackend::layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
                                    float epsilon) {
    check_shapes(out, x, rstd, weight);
    x.dtype == DType::BF16 ? forward<bf16>(stream_, out, mean, rstd, x, weight, bias, epsilon)
                           : forward<float>(stream_, out, mean, rstd, x, weight, bias, epsilon);
}

void CudaBackend::rmsnorm_forward(Tensor out, Tensor rstd, Tensor x, Tensor weight, float epsilon) {
    check_shapes(out, x, rstd, weight);
    x.dtype == DType::BF16 ? forward<bf16>(stream_, out, Tensor(), rstd, x, weight, Tensor(), epsilon)
                           : forward<float>(stream_, out, Tensor(), rstd, x, weight, Tensor(), epsilon);
}

void CudaBackend::layernorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, Tensor d_bias, bool adds,
                                     Tensor d_out, Tensor x, Tensor mean, Tensor rstd, Tensor weight,
                                     Tensor workspace) {
    check_shapes(d_x ? d_x : x, x, rstd, weight);
    CHECK(workspace.bytes() >= norm_backward_workspace(x.shape[0], x.shape[1]), workspace.bytes());
    const auto run = x.dtype == DType::BF16 ? backward<bf16> : backward<float>;
    run(stream_, d_x, accumulate, d_weight, d_bias, adds, d_out, x, mean, rstd, weight, workspace);
}

void CudaBackend::rmsnorm_backward(Tensor d_x, bool accumulate, Tensor d_weight, bool adds, Tensor d_out, Tensor x,
                                   Tensor rstd, Tensor weight, Tensor workspace) {
    check_shapes(d_x ? d_x : x, x, rstd, weight);
    CHECK(workspace.bytes() >= norm_backward_workspace(x.shape[0], x.shape[1]), workspace.bytes());
    const auto run = x.dtype == DType::BF16 ? backward<bf16> : backward<float>;
    run(stream_, d_x, accumulate, d_weight, Tensor(), adds, d_out, x, Tensor(), rstd, weight, workspace);
}

int64_t CudaBackend::norm_backward_workspace(int64_t N, int64_t C) const {
    return ceil_div(N, rows_per_group(N)) * 2 * C * size_of(DType::F32);
}

}  // namespace llmc::cuda
