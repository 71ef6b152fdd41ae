// Attention of new tokens over a cache. A first kernel appends the new keys and values. In the second a block has a
// part of 512 positions of the cache for one (token, query head), and walks it in pieces of 128 with an online softmax:
// each thread scores one position, then the threads share out the columns of the values, several groups of them the
// positions of a piece. The groups are added up at the part's end, in order, and parts are put together in order, too
// (Dao et al. 2023, "Flash-Decoding").
//
// A long cache is read by many blocks where one token is new: each part has one, and a third kernel puts them
// together. Else a block does all parts, one after the other, by the same arithmetic: bits do not depend on which. The
// position lies in device memory and grids are those of the whole cache, so that one recording serves all positions;
// blocks behind the position leave at once.
#include "llmc/backend/cuda/attention_heads.cuh"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>

namespace llmc::cuda {

inline namespace attention_cached_kernels {

constexpr int kThreads = 128;
constexpr int kMaxHeadSize = 256;
static_assert(kMaxHeadSize % kThreads == 0);

struct CacheSizes {
    int NH, NKV, HD, window;  ///< 0: none.
    float scale;
    bool aligned;
    Position first;

    __device__ __forceinline__ int first_position() const { return static_cast<int>(first.value()); }
};

constexpr int kPart = 512;  ///< Positions. Decides bits.
static_assert(kPart % kThreads == 0);

/// What a part, or some, give one (token, query head): the largest score, the sum of exponentials relative to it, and,
/// elsewhere, that of values weighted by them.
struct PartSums {
    float max, sum;
};

/// Factors of what came before and of what comes, when `one` is added to `all`.
struct Factors {
    float before, now;
};
__device__ __forceinline__ Factors add(PartSums& all, const PartSums& one) {
    const float max = fmaxf(all.max, one.max);
    const Factors factors = {expf(all.max - max), expf(one.max - max)};
    all = {max, fmaf(all.sum, factors.before, __fmul_rn(one.sum, factors.now))};
    return factors;
}
__device__ __forceinline__ float weighted(float before, float now, const Factors& factors) {
    return fmaf(before, factors.before, __fmul_rn(now, factors.now));
}

/// Where a part's results lie in the workspace: (token, head, part) rows of the sums and HD columns.
struct PartRows {
    float* data;
    int parts, HD;
    __device__ __forceinline__ float* row(int token, int h, int NH, int part) const {
        return data + ((int64_t{token} * NH + h) * parts + part) * (HD + 2);
    }
};

/// Row (first_position + token) of both caches = the key and value columns of the token's row of qkv.
template <typename T>
__global__ void __launch_bounds__(kThreads) append_kernel(T* k_cache, T* v_cache, const T* qkv, CacheSizes sizes) {
    const int columns = sizes.NKV * sizes.HD;
    const T* keys = qkv + int64_t{blockIdx.x} * (sizes.NH * sizes.HD + 2 * columns) + sizes.NH * sizes.HD;
    const int64_t to = (int64_t{sizes.first_position()} + blockIdx.x) * columns;
    const int step = sizes.aligned ? Pack<T>::kSize : 1;
    for (int i = threadIdx.x * step; i < columns; i += kThreads * step) {
        if (sizes.aligned) {
            store128(k_cache + to + i, load128(keys + i));
            store128(v_cache + to + i, load128(keys + columns + i));
        } else {
            k_cache[to + i] = keys[i];
            v_cache[to + i] = keys[columns + i];
        }
    }
}

/// The product of a query in shared memory and a key.
template <typename T>
__device__ __forceinline__ float score_of(const float* query, const T* key, int HD, bool aligned) {
    float sum = 0;
    if (aligned) {
        for (int d = 0; d < HD; d += Pack<T>::kSize) {
            const Pack<T> pack = load128(key + d);
#pragma unroll
            for (int i = 0; i < Pack<T>::kSize; ++i) sum = fmaf(query[d + i], to_float(pack[i]), sum);
        }
    } else {
        for (int d = 0; d < HD; ++d) sum = fmaf(query[d], to_float(key[d]), sum);
    }
    return sum;
}

/// Part `part` of the positions [first_seen, positions): its sums, and each thread's columns in `out`, of which thread
/// t has t and t + kThreads.
template <typename T>
__device__ __forceinline__ PartSums attend_part(float (&out)[kMaxHeadSize / kThreads], const T* keys, const T* values,
                                                const float* query, int part, int first_seen, int positions,
                                                int columns, const CacheSizes& sizes) {
    SHARED(float[kThreads], probabilities);
    SHARED(float[kMaxHeadSize], partial_sums);
    const int HD = sizes.HD, end = min(positions, (part + 1) * kPart);
    // This thread adds up columns first_column, first_column + kThreads of every groups-th position.
    const int groups = max(kThreads / HD, 1), group = threadIdx.x / HD, first_column = threadIdx.x % HD;
    constexpr int kColumns = kMaxHeadSize / kThreads;
    float sums[kColumns] = {};
    PartSums all = {-INFINITY, 0};
    const int begin = max(part * kPart, first_seen / kThreads * kThreads);
    for (int first = begin; first < end; first += kThreads) {
        const int position = first + static_cast<int>(threadIdx.x), count = min(kThreads, end - first);
        const bool seen = first_seen <= position && position < end;
        const T* key = keys + int64_t{position} * columns;
        const float score = seen ? score_of(query, key, HD, sizes.aligned) : -INFINITY;
        const float new_max = fmaxf(all.max, block_max(score));
        const float probability = seen ? expf(score - new_max) : 0.0f;
        const float correction = expf(all.max - new_max);
        probabilities[threadIdx.x] = probability;
        all = {new_max, all.sum * correction + block_sum(probability)};
        const T* value = values + int64_t{first} * columns;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            sums[c] *= correction;
            const int d = first_column + c * kThreads;
            if (group >= groups || d >= HD) continue;
            for (int i = group; i < count; i += groups)
                sums[c] = fmaf(probabilities[i], to_float(value[int64_t{i} * columns + d]), sums[c]);
        }
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
        if (group < groups && first_column + c * kThreads < HD) partial_sums[threadIdx.x + c * kThreads] = sums[c];
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
        const int d = static_cast<int>(threadIdx.x) + c * kThreads;
        out[c] = 0;
        if (d < HD)
            for (int g = 0; g < groups; ++g) out[c] += partial_sums[g * HD + d];
    }
    __syncthreads();  // A part may follow.
    return all;
}

/// The last block of the third dimension is one for all parts, or for a part of its own. Left to itself the compiler
/// takes 48 registers in fp32, and spills.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    attention_cached_kernel(T* out, PartRows parts, const T* k_cache, const T* v_cache, const T* qkv,
                            CacheSizes sizes) {
    SHARED(float[kMaxHeadSize], query);
    const int token = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, HD = sizes.HD;  // the longest rows first
    const int positions = sizes.first_position() + token + 1, columns = sizes.NKV * HD;
    const int first_seen = sizes.window == 0 || positions < sizes.window ? 0 : positions - sizes.window;
    const bool has_all = gridDim.z == 1;
    const int begin = has_all ? first_seen / kPart : static_cast<int>(blockIdx.z);
    const int end = has_all ? (positions + kPart - 1) / kPart : begin + 1;
    if (!has_all && (begin * kPart >= positions || end * kPart <= first_seen)) return;
    const T* query_row = qkv + int64_t{token} * (sizes.NH * HD + 2 * columns) + h * HD;
    const int kv_column = h / (sizes.NH / sizes.NKV) * HD;
    for (int d = threadIdx.x; d < HD; d += kThreads) query[d] = to_float(query_row[d]) * sizes.scale;
    __syncthreads();

    constexpr int kColumns = kMaxHeadSize / kThreads;
    float sums[kColumns] = {};
    PartSums all = {-INFINITY, 0};
    for (int part = begin; part < end; ++part) {
        float of_part[kColumns];
        const PartSums one = attend_part(of_part, k_cache + kv_column, v_cache + kv_column, query, part, first_seen,
                                         positions, columns, sizes);
        if (!has_all) {
            float* const to = parts.row(token, h, sizes.NH, part);
            if (threadIdx.x == 0) to[0] = one.max, to[1] = one.sum;
#pragma unroll
            for (int c = 0; c < kColumns; ++c)
                if (const int d = static_cast<int>(threadIdx.x) + c * kThreads; d < HD) to[2 + d] = of_part[c];
            return;
        }
        const Factors factors = add(all, one);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[c] = weighted(sums[c], of_part[c], factors);
    }
    T* const to = out + (int64_t{token} * sizes.NH + h) * HD;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
        if (const int d = static_cast<int>(threadIdx.x) + c * kThreads; d < HD)
            to[d] = from_float<T>(sums[c] / all.sum);
}

/// A block to a (token, query head).
template <typename T>
__global__ void __launch_bounds__(kThreads) join_parts_kernel(T* out, PartRows parts, CacheSizes sizes) {
    const int token = blockIdx.x, h = blockIdx.y, HD = sizes.HD;
    const int positions = sizes.first_position() + token + 1;
    const int first_seen = sizes.window == 0 || positions < sizes.window ? 0 : positions - sizes.window;
    const int begin = first_seen / kPart, end = (positions + kPart - 1) / kPart;
    T* const to = out + (int64_t{token} * sizes.NH + h) * HD;
    for (int d = threadIdx.x; d < HD; d += kThreads) {
        float sum = 0;
        PartSums all = {-INFINITY, 0};
        for (int part = begin; part < end; ++part) {
            const float* const from = parts.row(token, h, sizes.NH, part);
            const Factors factors = add(all, {from[0], from[1]});
            sum = weighted(sum, from[2 + d], factors);
        }
        to[d] = from_float<T>(sum / all.sum);
    }
}

/// Parts that get a block each; 1 where a block has all: the cache is short, or there are many blocks without.
int64_t parts_in_blocks(const AttentionShape& shape, int64_t maxT) { return shape.T > 1 ? 1 : ceil_div(maxT, kPart); }

int64_t parts_bytes(const AttentionShape& shape, int64_t parts) {
    return parts == 1 ? 0 : shape.NH * parts * (shape.HD + 2) * size_of(DType::F32);
}

template <typename T>
void run(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape, Tensor workspace,
         const CacheSizes& sizes, cudaStream_t stream) {
    T *const keys = elements_of<T>(k_cache), *const values = elements_of<T>(v_cache), *const to = elements_of<T>(out);
    launch(append_kernel<T>, blocks_of(shape.T), kThreads, 0, stream, keys, values, elements_of<const T>(qkv), sizes);
    const int64_t count = parts_in_blocks(shape, k_cache.shape[0]);
    CHECK(workspace.bytes() >= parts_bytes(shape, count), workspace.bytes(), count);
    const PartRows parts = {static_cast<float*>(workspace.data), static_cast<int>(count), sizes.HD};
    dim3 grid = blocks_of(shape.T, sizes.NH);
    launch(attention_cached_kernel<T>, dim3(grid.x, grid.y, static_cast<unsigned>(count)), kThreads, 0, stream, to,
           parts, keys, values, elements_of<const T>(qkv), sizes);
    if (count > 1) launch(join_parts_kernel<T>, grid, kThreads, 0, stream, to, parts, sizes);
}

}  // namespace attention_cached_kernels

void CudaBackend::attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                                   FirstPosition first, Tensor workspace) {
    CHECK(shape.B == 1 && shape.HD <= kMaxHeadSize && shape.NH % shape.NKV == 0, shape.B, shape.HD, shape.NH,
          shape.NKV);
    CHECK(qkv.shape[0] == shape.T && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1], shape.T);
    CHECK(out.shape[0] == shape.T && out.shape[1] == shape.NH * shape.HD, out.shape[0], out.shape[1]);
    CHECK(first.offset >= 0 && first.offset + shape.T <= k_cache.shape[0] && k_cache.shape[0] <= kPart * kMaxGridRows,
          first.offset, shape.T, k_cache.shape[0]);
    CHECK(k_cache.shape == v_cache.shape && k_cache.shape[1] == shape.NKV * shape.HD, k_cache.shape[1]);
    if (shape.T == 0) return;
    CacheSizes sizes;
    sizes.NH = static_cast<int>(shape.NH);
    sizes.NKV = static_cast<int>(shape.NKV);
    sizes.HD = static_cast<int>(shape.HD);
    sizes.first = position_of(first);
    sizes.window = static_cast<int>(std::min<int64_t>(shape.window, INT32_MAX));
    sizes.scale = shape.score_scale();
    sizes.aligned = shape.HD * size_of(qkv.dtype) % 16 == 0 && all_aligned({qkv.data, k_cache.data, v_cache.data});
    if (qkv.dtype == DType::F32)
        run<float>(out, k_cache, v_cache, qkv, shape, workspace, sizes, stream_);
    else
        run<bf16>(out, k_cache, v_cache, qkv, shape, workspace, sizes, stream_);
}

int64_t CudaBackend::attention_cached_workspace(const AttentionShape& shape, int64_t maxT) const {
    return round_up(parts_bytes(shape, ceil_div(maxT, kPart)), kTensorAlignment);  // Of one token, the only case.
}

}  // namespace llmc::cuda
