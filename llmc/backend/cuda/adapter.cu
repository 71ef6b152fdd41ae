// Low-rank adapters: three thin products in fp32. The rank is cut into tiles of 16, which a thread has in registers or
// a block in shared memory, so that what is long is read from memory once a tile. Sums over tokens are made in groups
// of them, whose partial sums column_sum.cu adds up in order. What dropout leaves of the long operand (kDrops) is made
// where it is read: a thread draws the mask of eight channels of a row.
#include "llmc/backend/cuda/column_sum.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/dropout.cuh"

#include <algorithm>
#include <array>

namespace llmc::cuda {
inline namespace adapter_kernels {

constexpr int kTile = 16;  ///< Of the rank.

/// A factor as (rank, long) with any distances, in elements, between neighbours: A as it is, B turned.
struct Factor {
    float* data;
    int64_t rank, length;
    int64_t rank_step, length_step;
    __device__ __forceinline__ float* at(int64_t r, int64_t k) const { return data + r * rank_step + k * length_step; }
};

// ---- out (N, rank) = scale * x (N, length) * factor^T
// -----------------------------------------------------------------

constexpr int kDotRows = 64, kDotThreads = 128, kDotLength = 32;

/// A block's rows of x, from column `first` on.
template <typename T, bool kDrops>
__device__ __forceinline__ void load_rows(float (&tile)[kDotRows][kDotLength + 1], const T* x, int64_t x_stride,
                                          int64_t first_row, int64_t N, int64_t first, int64_t length,
                                          const Masks& masks) {
    if constexpr (kDrops) {
        constexpr int kGroups = kDotLength / kDraws;
        for (int i = threadIdx.x; i < kDotRows * kGroups; i += kDotThreads) {
            const int row = i / kGroups, column = i % kGroups * kDraws;
            const int64_t n = first_row + row, k = first + column;
            const uint32_t kept = n < N && k < length ? masks.kept(n, k / kDraws) : 0;
#pragma unroll
            for (int j = 0; j < kDraws; ++j) {
                const bool is_there = n < N && k + j < length;
                tile[row][column + j] = is_there ? masks.factor(kept, j) * to_float(x[n * x_stride + k + j]) : 0.0f;
            }
        }
    } else {
        for (int i = threadIdx.x; i < kDotRows * kDotLength; i += kDotThreads) {
            const int64_t n = first_row + i / kDotLength, k = first + i % kDotLength;
            tile[i / kDotLength][i % kDotLength] = n < N && k < length ? to_float(x[n * x_stride + k]) : 0.0f;
        }
    }
}

/// A block has 64 rows of x and a tile of the rank; a thread two columns of the tile for every 16th row.
template <typename T, bool kDrops>
__global__ void __launch_bounds__(kDotThreads) dot_kernel(float* out, int64_t out_stride, const T* x, int64_t x_stride,
                                                          int64_t N, Factor factor, float scale, Masks masks) {
    constexpr int kColumns = 2, kLanes = kTile / kColumns, kRows = kDotRows / (kDotThreads / kLanes);
    SHARED(float[kDotRows][kDotLength + 1], x_tile);
    SHARED(float[kTile][kDotLength + 1], factor_tile);
    const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kDotRows, first_rank = blockIdx.y * kTile;
    const int row = threadIdx.x / kLanes, column = threadIdx.x % kLanes * kColumns;
    float sums[kRows][kColumns] = {};
    for (int64_t first = 0; first < factor.length; first += kDotLength) {
        load_rows<T, kDrops>(x_tile, x, x_stride, first_row, N, first, factor.length, masks);
        for (int i = threadIdx.x; i < kTile * kDotLength; i += kDotThreads) {
            const int64_t r = first_rank + i / kDotLength, k = first + i % kDotLength;
            factor_tile[i / kDotLength][i % kDotLength] =
                r < factor.rank && k < factor.length ? *factor.at(r, k) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < kDotLength; ++k) {
            float a[kRows], b[kColumns];
#pragma unroll
            for (int i = 0; i < kRows; ++i) a[i] = x_tile[row + i * (kDotThreads / kLanes)][k];
#pragma unroll
            for (int j = 0; j < kColumns; ++j) b[j] = factor_tile[column + j][k];
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kColumns; ++j) sums[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            const int64_t n = first_row + row + i * (kDotThreads / kLanes), r = first_rank + column + j;
            if (n < N && r < factor.rank) out[n * out_stride + r] = scale * sums[i][j];
        }
}

template <typename T, bool kDrops = false>
void dots(cudaStream_t stream, float* out, int64_t out_stride, const T* x, int64_t x_stride, int64_t N,
          const Factor& factor, float scale, const Masks& masks = {}) {
    const dim3 grid = blocks_of(ceil_div(N, kDotRows), ceil_div(factor.rank, kTile));
    launch(dot_kernel<T, kDrops>, grid, kDotThreads, 0, stream, out, out_stride, x, x_stride, N, factor, scale, masks);
}

// ---- out (N, length) += scale * z (N, rank) * factor
// --------------------------------------------------------------------

constexpr int kSpreadRows = 16, kSpreadThreads = 128;

/// A block has 16 rows and 128 columns of out; a thread all rows of a column. Of `groups` groups of the rank each has a
/// mask of its own.
template <typename T, bool kDrops>
__global__ void __launch_bounds__(kSpreadThreads)
    spread_kernel(T* out, int64_t out_stride, const float* z, int64_t z_stride, int64_t N, Factor factor, float scale,
                  int pieces, int groups, Masks masks) {
    constexpr int kMasks = kSpreadThreads / kDraws;
    SHARED(float[kTile][kSpreadRows], z_tile);
    SHARED(uint32_t[kSpreadRows][kMasks], kept);
    const int64_t first_row = static_cast<int64_t>(blockIdx.x / pieces) * kSpreadRows;
    const int64_t first_column = static_cast<int64_t>(blockIdx.x % pieces) * kSpreadThreads;
    const int64_t column = first_column + threadIdx.x, rank = factor.rank / groups;
    float total[kSpreadRows] = {};
    for (int group = 0; group < groups; ++group) {
        if constexpr (kDrops) {
            for (int i = threadIdx.x; i < kSpreadRows * kMasks; i += kSpreadThreads) {
                const int64_t n = first_row + i / kMasks, k = first_column + i % kMasks * kDraws;
                kept[i / kMasks][i % kMasks] = n < N && k < factor.length ? masks.kept(n, k / kDraws, group) : 0;
            }
        }
        float sums[kSpreadRows] = {};
        for (int64_t first = 0; first < rank; first += kTile) {
            for (int i = threadIdx.x; i < kTile * kSpreadRows; i += kSpreadThreads) {
                const int64_t n = first_row + i / kTile, r = first + i % kTile;
                z_tile[i % kTile][i / kTile] = n < N && r < rank ? z[n * z_stride + group * rank + r] : 0.0f;
            }
            __syncthreads();
            if (column < factor.length) {
                const int count = static_cast<int>(min(static_cast<int64_t>(kTile), rank - first));
                for (int r = 0; r < count; ++r) {
                    const float b = *factor.at(group * rank + first + r, column);
#pragma unroll
                    for (int i = 0; i < kSpreadRows; ++i) sums[i] += z_tile[r][i] * b;
                }
            }
            if constexpr (kDrops) {
                if (first + kTile >= rank) {
#pragma unroll
                    for (int i = 0; i < kSpreadRows; ++i) {
                        sums[i] *= masks.factor(kept[i][threadIdx.x / kDraws], threadIdx.x % kDraws);
                    }
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < kSpreadRows; ++i) total[i] += sums[i];
    }
    if (column >= factor.length) return;
#pragma unroll
    for (int i = 0; i < kSpreadRows; ++i) {
        if (first_row + i >= N) break;
        T* const to = out + (first_row + i) * out_stride + column;
        *to = from_float<T>(to_float(*to) + scale * total[i]);
    }
}

template <typename T, bool kDrops = false>
void spread(cudaStream_t stream, T* out, int64_t out_stride, const float* z, int64_t z_stride, int64_t N,
            const Factor& factor, float scale, int groups = 1, const Masks& masks = {}) {
    const int64_t pieces = ceil_div(factor.length, kSpreadThreads);
    launch(spread_kernel<T, kDrops>, blocks_of(ceil_div(N, kSpreadRows) * pieces), kSpreadThreads, 0, stream, out,
           out_stride, z, z_stride, N, factor, scale, static_cast<int>(pieces), groups, masks);
}

// ---- the factor's gradient: scale * z (N, rank)^T * x (N, length), in groups of tokens
// ----------------------------------

constexpr int kSumTokens = 32, kSumThreads = 128;

/// Groups of tokens: few, since every group has sums for the whole factor.
int64_t token_groups(int64_t N) { return std::clamp<int64_t>(ceil_div(N, 256), 1, 8); }

/// A block has a group of tokens, a tile of the rank and 128 columns; a thread all of the tile for its column. The
/// group's sums lie as the factor does, `factor_elements` behind those of the group before.
template <typename T, bool kDrops>
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(Factor partials, int64_t factor_elements, const float* z, int64_t z_stride, const T* x, int64_t x_stride,
               int64_t N, int64_t group_tokens, float scale, int pieces, Masks masks) {
    constexpr int kMasks = kSumThreads / kDraws;
    SHARED(float[kSumTokens][kTile], z_tile);
    SHARED(uint32_t[kSumTokens][kMasks], kept);
    const int64_t group = blockIdx.x / pieces, first_rank = blockIdx.y * kTile;
    const int64_t first_column = static_cast<int64_t>(blockIdx.x % pieces) * kSumThreads;
    const int64_t column = first_column + threadIdx.x;
    const int64_t end = min(N, (group + 1) * group_tokens);
    float sums[kTile] = {};
    for (int64_t first = group * group_tokens; first < end; first += kSumTokens) {
        for (int i = threadIdx.x; i < kSumTokens * kTile; i += kSumThreads) {
            const int64_t n = first + i / kTile, r = first_rank + i % kTile;
            z_tile[i / kTile][i % kTile] = n < end && r < partials.rank ? z[n * z_stride + r] : 0.0f;
        }
        if constexpr (kDrops) {
            for (int i = threadIdx.x; i < kSumTokens * kMasks; i += kSumThreads) {
                const int64_t n = first + i / kMasks, k = first_column + i % kMasks * kDraws;
                kept[i / kMasks][i % kMasks] = n < end && k < partials.length ? masks.kept(n, k / kDraws) : 0;
            }
        }
        __syncthreads();
        if (column < partials.length) {
            const int count = static_cast<int>(min(static_cast<int64_t>(kSumTokens), end - first));
#pragma unroll 4
            for (int n = 0; n < count; ++n) {
                float value = to_float(x[(first + n) * x_stride + column]);
                if constexpr (kDrops) value *= masks.factor(kept[n][threadIdx.x / kDraws], threadIdx.x % kDraws);
#pragma unroll
                for (int r = 0; r < kTile; ++r) sums[r] += z_tile[n][r] * value;
            }
        }
        __syncthreads();
    }
    if (column >= partials.length) return;
#pragma unroll
    for (int r = 0; r < kTile; ++r)
        if (first_rank + r < partials.rank)
            *(partials.at(first_rank + r, column) + group * factor_elements) = scale * sums[r];
}

/// Partial sums of a part of a factor of so many elements.
template <typename T, bool kDrops = false>
void sums(cudaStream_t stream, const Factor& partials, int64_t factor_elements, const float* z, int64_t z_stride,
          const T* x, int64_t x_stride, int64_t N, float scale, const Masks& masks = {}) {
    const int64_t groups = token_groups(N), pieces = ceil_div(partials.length, kSumThreads);
    const dim3 grid = blocks_of(groups * pieces, ceil_div(partials.rank, kTile));
    launch(sum_kernel<T, kDrops>, grid, kSumThreads, 0, stream, partials, factor_elements, z, z_stride, x, x_stride, N,
           ceil_div(N, groups), scale, static_cast<int>(pieces), masks);
}

// ---- operands -------------------------------------------------------------------------------------------------------

Factor of_a(float* a, int64_t R, int64_t IC) { return {a, R, IC, IC, 1}; }
/// The rows of B of one group.
Factor of_b(float* b, int64_t first_row, int64_t rank, int64_t columns) {
    return {b + first_row * rank, rank, columns, 1, rank};
}

/// Calls run(group, its first column of z, its first row of B) for every group.
template <typename Run>
void for_each_group(const AdapterShape& shape, const Run& run) {
    int64_t first_row = 0, first_z = 0;
    for (const AdapterGroup& group : shape.groups) {
        run(group, first_z, first_row);
        first_row += group.columns;
        first_z += shape.rank;
    }
}

bool is(const Tensor& tensor, int64_t rows, int64_t cols) {
    return tensor.data != nullptr && tensor.shape == std::array<int64_t, 3>{rows, cols, 1};
}
bool is_fp32(const Tensor& tensor, int64_t rows, int64_t cols) {
    return is(tensor, rows, cols) && tensor.dtype == DType::F32;
}

/// Calls run(T*) with the elements of a tensor of activations.
template <typename Run>
void by_type(const Tensor& tensor, const Run& run) {
    tensor.dtype == DType::F32 ? run(elements_of<float>(tensor)) : run(elements_of<bf16>(tensor));
}

/// Calls run(its masks, its first column of z) for every group that has a mask of its own.
template <typename Run>
void for_each_mask(const AdapterShape& shape, const Dropout& dropout, const Run& run) {
    for (size_t g = 0; g < shape.groups.size(); ++g) {
        const auto group = static_cast<int64_t>(g);
        run(masks_of(dropout.at(dropout.site + group)), group * shape.rank);
    }
}

float* partials_in(const Tensor& workspace, int64_t N, int64_t elements) {
    CHECK(workspace.bytes() >= token_groups(N) * elements * size_of(DType::F32), workspace.bytes(), N, elements);
    return static_cast<float*>(workspace.data);
}

}  // namespace adapter_kernels

void CudaBackend::adapter_down_forward(Tensor z, Tensor x, Tensor a, const AdapterShape& shape, const Dropout& dropout,
                                       Tensor /*workspace*/) {
    const int64_t N = x.shape[0], IC = x.shape[1], R = shape.z_columns(), rank = shape.rank;
    CHECK(is_fp32(z, N, R) && is_fp32(a, R, IC) && is(x, N, IC), N, IC, R);
    float* const factor = elements_of<float>(a);
    by_type(x, [&]<typename T>(T* elements) {
        if (!dropout) return dots<T>(stream_, elements_of<float>(z), R, elements, IC, N, of_a(factor, R, IC), 1);
        for_each_mask(shape, dropout, [&](const Masks& masks, int64_t first) {
            dots<T, true>(stream_, elements_of<float>(z) + first, R, elements, IC, N,
                          of_a(factor + first * IC, rank, IC), 1, masks);
        });
    });
}

void CudaBackend::adapter_down_backward_weight(Tensor d_a, bool adds, Tensor d_z, Tensor x, const AdapterShape& shape,
                                               const Dropout& dropout, Tensor workspace) {
    const int64_t N = x.shape[0], IC = x.shape[1], R = shape.z_columns(), rank = shape.rank;
    CHECK(is_fp32(d_a, R, IC) && is_fp32(d_z, N, R) && is(x, N, IC), N, IC, R);
    float* const partials = partials_in(workspace, N, R * IC);
    const float* const of_z = elements_of<float>(d_z);
    by_type(x, [&]<typename T>(T* elements) {
        if (!dropout) return sums<T>(stream_, of_a(partials, R, IC), R * IC, of_z, R, elements, IC, N, 1);
        for_each_mask(shape, dropout, [&](const Masks& masks, int64_t first) {
            sums<T, true>(stream_, of_a(partials + first * IC, rank, IC), R * IC, of_z + first, R, elements, IC, N, 1,
                          masks);
        });
    });
    sum_partials(stream_, elements_of<float>(d_a), nullptr, 1, adds, partials, token_groups(N), R * IC);
}

void CudaBackend::adapter_down_backward_input(Tensor d_x, Tensor d_z, Tensor a, const AdapterShape& shape,
                                              const Dropout& dropout, Tensor /*workspace*/) {
    const int64_t N = d_x.shape[0], IC = d_x.shape[1], R = shape.z_columns();
    CHECK(is(d_x, N, IC) && is_fp32(d_z, N, R) && is_fp32(a, R, IC), N, IC, R);
    const Factor factor = of_a(elements_of<float>(a), R, IC);
    by_type(d_x, [&]<typename T>(T* elements) {
        if (!dropout) return spread<T>(stream_, elements, IC, elements_of<float>(d_z), R, N, factor, 1);
        spread<T, true>(stream_, elements, IC, elements_of<float>(d_z), R, N, factor, 1,
                        static_cast<int>(shape.groups.size()), masks_of(dropout));
    });
}

void CudaBackend::adapter_up_forward(Tensor out, Tensor z, Tensor b, const AdapterShape& shape, Tensor /*workspace*/) {
    const int64_t N = out.shape[0], OC = out.shape[1], R = shape.z_columns();
    CHECK(is(out, N, OC) && is_fp32(z, N, R) && is_fp32(b, shape.b_rows(), shape.rank), N, OC);
    by_type(out, [&]<typename T>(T* elements) {
        for_each_group(shape, [&](const AdapterGroup& group, int64_t first_z, int64_t first_row) {
            spread<T>(stream_, elements + group.first_column, OC, elements_of<float>(z) + first_z, R, N,
                      of_b(elements_of<float>(b), first_row, shape.rank, group.columns), group.scale);
        });
    });
}

void CudaBackend::adapter_up_backward_weight(Tensor d_b, bool adds, Tensor d_out, Tensor z, const AdapterShape& shape,
                                             Tensor workspace) {
    const int64_t N = d_out.shape[0], OC = d_out.shape[1], R = shape.z_columns(), rank = shape.rank;
    CHECK(is(d_out, N, OC) && is_fp32(z, N, R) && is_fp32(d_b, shape.b_rows(), rank), N, OC);
    const int64_t all = shape.b_rows() * rank;
    float* const partials = partials_in(workspace, N, all);
    by_type(d_out, [&]<typename T>(T* elements) {
        for_each_group(shape, [&](const AdapterGroup& group, int64_t first_z, int64_t first_row) {
            sums<T>(stream_, of_b(partials, first_row, rank, group.columns), all, elements_of<float>(z) + first_z, R,
                    elements + group.first_column, OC, N, group.scale);
        });
    });
    sum_partials(stream_, elements_of<float>(d_b), nullptr, 1, adds, partials, token_groups(N), all);
}

void CudaBackend::adapter_up_backward_input(Tensor d_z, Tensor d_out, Tensor b, const AdapterShape& shape,
                                            Tensor /*workspace*/) {
    const int64_t N = d_out.shape[0], OC = d_out.shape[1], R = shape.z_columns();
    CHECK(is(d_out, N, OC) && is_fp32(d_z, N, R) && is_fp32(b, shape.b_rows(), shape.rank), N, OC);
    by_type(d_out, [&]<typename T>(T* elements) {
        for_each_group(shape, [&](const AdapterGroup& group, int64_t first_z, int64_t first_row) {
            dots<T>(stream_, elements_of<float>(d_z) + first_z, R, elements + group.first_column, OC, N,
                    of_b(elements_of<float>(b), first_row, shape.rank, group.columns), group.scale);
        });
    });
}

int64_t CudaBackend::adapter_workspace(int64_t N, int64_t rows, int64_t columns) const {
    return round_up(token_groups(N) * rows * columns * size_of(DType::F32), kTensorAlignment);
}

}  // namespace llmc::cuda
