// Attention of new tokens over a cache. A first kernel appends the new keys and values. In the second a block has one
// (token, query head) and walks the cache in pieces of 128 positions with an online softmax: each thread scores one
// position, then the threads share out the columns of the values, several groups of them the positions of a piece. The
// groups are added up at the end, in order. Blocks are short and many only with many heads; with one new token this is
// bound by the latency of reading the cache, which is small beside the matrix products of a layer.
#include "llmc/backend/cuda/attention_heads.cuh"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>

namespace llmc::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxHeadSize = 256;
static_assert(kMaxHeadSize % kThreads == 0);

struct CacheSizes {
    int NH, NKV, HD, first_position, window;  ///< 0: none.
    float scale;
    bool aligned;
};

/// Row (first_position + token) of both caches = the key and value columns of the token's row of qkv.
template <typename T>
__global__ void __launch_bounds__(kThreads) append_kernel(T* k_cache, T* v_cache, const T* qkv, CacheSizes sizes) {
    const int columns = sizes.NKV * sizes.HD;
    const T* keys = qkv + int64_t{blockIdx.x} * (sizes.NH * sizes.HD + 2 * columns) + sizes.NH * sizes.HD;
    const int64_t to = (sizes.first_position + int64_t{blockIdx.x}) * columns;
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

template <typename T>
__global__ void __launch_bounds__(kThreads)
    attention_cached_kernel(T* out, const T* k_cache, const T* v_cache, const T* qkv, CacheSizes sizes) {
    SHARED(float[kMaxHeadSize], query);
    SHARED(float[kThreads], probabilities);
    SHARED(float[kMaxHeadSize], partial_sums);
    const int token = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, HD = sizes.HD;  // the longest rows first
    const int positions = sizes.first_position + token + 1, columns = sizes.NKV * HD;
    const T* query_row = qkv + int64_t{token} * (sizes.NH * HD + 2 * columns) + h * HD;
    const int kv_column = h / (sizes.NH / sizes.NKV) * HD;
    for (int d = threadIdx.x; d < HD; d += kThreads) query[d] = to_float(query_row[d]) * sizes.scale;
    __syncthreads();

    // This thread adds up columns first_column, first_column + kThreads of every groups-th position.
    const int groups = max(kThreads / HD, 1), group = threadIdx.x / HD, first_column = threadIdx.x % HD;
    constexpr int kColumns = kMaxHeadSize / kThreads;
    float sums[kColumns] = {}, max = -INFINITY, sum = 0;
    const int first_seen = sizes.window == 0 || positions < sizes.window ? 0 : positions - sizes.window;
    for (int first = first_seen / kThreads * kThreads; first < positions; first += kThreads) {
        const int position = first + static_cast<int>(threadIdx.x), count = min(kThreads, positions - first);
        const bool seen = first_seen <= position && position < positions;
        const T* key = k_cache + int64_t{position} * columns + kv_column;
        const float score = seen ? score_of(query, key, HD, sizes.aligned) : -INFINITY;
        const float new_max = fmaxf(max, block_max(score));
        const float probability = seen ? expf(score - new_max) : 0.0f;
        const float correction = expf(max - new_max);
        max = new_max;
        probabilities[threadIdx.x] = probability;
        sum = sum * correction + block_sum(probability);
        const T* value = v_cache + int64_t{first} * columns + kv_column;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            sums[c] *= correction;
            const int d = first_column + c * kThreads;
            if (group >= groups || d >= HD) continue;
            for (int i = group; i < count; i += groups)
                sums[c] = fmaf(probabilities[i], to_float(value[int64_t{i} * columns + d]), sums[c]);
        }
    }

    T* const to = out + (int64_t{token} * sizes.NH + h) * HD;
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
        if (group < groups && first_column + c * kThreads < HD) partial_sums[threadIdx.x + c * kThreads] = sums[c];
    __syncthreads();
    for (int d = threadIdx.x; d < HD; d += kThreads) {
        float total = 0;
        for (int g = 0; g < groups; ++g) total += partial_sums[g * HD + d];
        to[d] = from_float<T>(total / sum);
    }
}

template <typename T>
void run(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, int64_t tokens, const CacheSizes& sizes,
         cudaStream_t stream) {
    T *const keys = elements_of<T>(k_cache), *const values = elements_of<T>(v_cache);
    launch(append_kernel<T>, dim3(tokens), kThreads, 0, stream, keys, values, elements_of<const T>(qkv), sizes);
    launch(attention_cached_kernel<T>, dim3(tokens, sizes.NH), kThreads, 0, stream, elements_of<T>(out), keys, values,
           elements_of<const T>(qkv), sizes);
}

}  // namespace

void CudaBackend::attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                                   int64_t first_position) {
    CHECK(shape.B == 1 && shape.HD <= kMaxHeadSize && shape.NH % shape.NKV == 0, shape.B, shape.HD, shape.NH,
          shape.NKV);
    CHECK(qkv.shape[0] == shape.T && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1], shape.T);
    CHECK(out.shape[0] == shape.T && out.shape[1] == shape.NH * shape.HD, out.shape[0], out.shape[1]);
    CHECK(first_position >= 0 && first_position + shape.T <= k_cache.shape[0], first_position, k_cache.shape[0]);
    CHECK(k_cache.shape == v_cache.shape && k_cache.shape[1] == shape.NKV * shape.HD, k_cache.shape[1]);
    if (shape.T == 0) return;
    CacheSizes sizes;
    sizes.NH = static_cast<int>(shape.NH);
    sizes.NKV = static_cast<int>(shape.NKV);
    sizes.HD = static_cast<int>(shape.HD);
    sizes.first_position = static_cast<int>(first_position);
    sizes.window = static_cast<int>(std::min<int64_t>(shape.window, INT32_MAX));
    sizes.scale = shape.score_scale();
    sizes.aligned = shape.HD * size_of(qkv.dtype) % 16 == 0 && all_aligned({qkv.data, k_cache.data, v_cache.data});
    if (qkv.dtype == DType::F32)
        run<float>(out, k_cache, v_cache, qkv, shape.T, sizes, stream_);
    else
        run<bf16>(out, k_cache, v_cache, qkv, shape.T, sizes, stream_);
}

}  // namespace llmc::cuda
