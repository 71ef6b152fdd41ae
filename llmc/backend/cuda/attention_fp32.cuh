// Attention in fp32, both passes, on CUDA cores: the algorithms of attention.cu and attention_backward.cu with tiles in
// shared memory and products by 16x16 threads, each of which has kRows/16 rows and every 16th (of scores) or every 16th
// group of four (of sums) columns. Tiles have 64 rows, or 32 where a head of 128 would not leave room; rows are padded
// by 16 bytes against bank conflicts. Products are exact to fp32 rounding: no tensor cores, no fast exponentials.
#pragma once

#include "llmc/backend/cuda/attention_heads.cuh"

#include <cstdint>

namespace llmc::cuda {

constexpr int kThreadsFp32 = 256;

/// Rows of a head in shared memory, zero beyond the head's columns and the sequence's rows.
template <int kRows, int kColumns>
struct alignas(16) TileFp32 {
    float values[kRows][kColumns + 4];
};

__device__ __forceinline__ float4 load_float4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
__device__ __forceinline__ void add_scaled(float* sum, float scale, float4 x) {
    sum[0] = fmaf(scale, x.x, sum[0]);
    sum[1] = fmaf(scale, x.y, sum[1]);
    sum[2] = fmaf(scale, x.z, sum[2]);
    sum[3] = fmaf(scale, x.w, sum[3]);
}

/// Loads rows [first, first + kRows) of a head. The caller synchronises.
template <int kRows, int kHD>
__device__ __forceinline__ void load_tile(TileFp32<kRows, kHD>& tile, const HeadRows<const float>& head, int first,
                                          int T, int HD, bool aligned) {
    if (aligned) {
        constexpr int kChunks = kHD / 4;
        const int column = threadIdx.x % kChunks * 4;
        for (int row = threadIdx.x / kChunks; row < kRows; row += kThreadsFp32 / kChunks) {
            const bool valid = first + row < T && column < HD;
            *reinterpret_cast<float4*>(&tile.values[row][column]) =
                valid ? load_float4(head.row(first + row) + column) : float4{0, 0, 0, 0};
        }
    } else {
        const int column = threadIdx.x % kHD;
        for (int row = threadIdx.x / kHD; row < kRows; row += kThreadsFp32 / kHD)
            tile.values[row][column] = first + row < T && column < HD ? head.row(first + row)[column] : 0.0f;
    }
}

/// The thread's place among the 16x16: its rows begin at group() * rows per thread, its columns at lane16().
__device__ __forceinline__ int group() { return threadIdx.x / 16; }
__device__ __forceinline__ int lane16() { return threadIdx.x % 16; }

/// x[i][j] = row kA·group + i of a times row lane16 + 16·j of b.
template <int kA, int kB, int kHD>
__device__ __forceinline__ void dot_products(float (&x)[kA][kB], const TileFp32<16 * kA, kHD>& a,
                                             const TileFp32<16 * kB, kHD>& b) {
#pragma unroll
    for (int i = 0; i < kA; ++i)
#pragma unroll
        for (int j = 0; j < kB; ++j) x[i][j] = 0;
#pragma unroll 4
    for (int d = 0; d < kHD; d += 4) {
        float4 row[kA];
#pragma unroll
        for (int i = 0; i < kA; ++i) row[i] = load_float4(&a.values[group() * kA + i][d]);
#pragma unroll
        for (int j = 0; j < kB; ++j) {
            const float4 column = load_float4(&b.values[lane16() + 16 * j][d]);
#pragma unroll
            for (int i = 0; i < kA; ++i) x[i][j] = dot(row[i], column, x[i][j]);
        }
    }
}

/// Puts the threads' scores together in shared memory. The caller synchronises.
template <int kA, int kB>
__device__ __forceinline__ void store_scores(TileFp32<16 * kA, 16 * kB>& tile, const float (&x)[kA][kB]) {
#pragma unroll
    for (int i = 0; i < kA; ++i)
#pragma unroll
        for (int j = 0; j < kB; ++j) tile.values[group() * kA + i][lane16() + 16 * j] = x[i][j];
}

/// sums[i][4·g + c] += row kA·group + i of weights times column 64·g + 4·lane16 + c of x.
template <int kA, int kB, int kHD>
__device__ __forceinline__ void add_products(float (&sums)[kA][kHD / 16], const TileFp32<16 * kA, 16 * kB>& weights,
                                             const TileFp32<16 * kB, kHD>& x) {
#pragma unroll 2
    for (int k = 0; k < 16 * kB; k += 4) {
        float weight[kA][4];
#pragma unroll
        for (int i = 0; i < kA; ++i) {
            const float4 four = load_float4(&weights.values[group() * kA + i][k]);
            weight[i][0] = four.x, weight[i][1] = four.y, weight[i][2] = four.z, weight[i][3] = four.w;
        }
#pragma unroll
        for (int c = 0; c < kHD / 64; ++c)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float4 four = load_float4(&x.values[k + e][64 * c + 4 * lane16()]);
#pragma unroll
                for (int i = 0; i < kA; ++i) add_scaled(&sums[i][4 * c], weight[i][e], four);
            }
    }
}

/// The same with the transpose of weights: sums[i] belong to its column kA·group + i.
template <int kA, int kB, int kHD>
__device__ __forceinline__ void add_transposed(float (&sums)[kA][kHD / 16], const TileFp32<16 * kB, 16 * kA>& weights,
                                               const TileFp32<16 * kB, kHD>& x) {
#pragma unroll 4
    for (int k = 0; k < 16 * kB; ++k) {
        float weight[kA];
#pragma unroll
        for (int i = 0; i < kA; ++i) weight[i] = weights.values[k][group() * kA + i];
#pragma unroll
        for (int c = 0; c < kHD / 64; ++c) {
            const float4 four = load_float4(&x.values[k][64 * c + 4 * lane16()]);
#pragma unroll
            for (int i = 0; i < kA; ++i) add_scaled(&sums[i][4 * c], weight[i], four);
        }
    }
}

/// Writes a thread's sums times `scale` to row `position` of a head.
template <int kHD>
__device__ __forceinline__ void store_sums(const HeadRows<float>& head, int position, const AttentionSizes& sizes,
                                           const float (&sums)[kHD / 16], float scale) {
    if (position >= sizes.T) return;
#pragma unroll
    for (int c = 0; c < kHD / 64; ++c) {
        const int column = 64 * c + 4 * lane16();
        float* to = head.row(position) + column;
        if (sizes.aligned) {
            const float4 four = {sums[4 * c] * scale, sums[4 * c + 1] * scale, sums[4 * c + 2] * scale,
                                 sums[4 * c + 3] * scale};
            if (column < sizes.HD) *reinterpret_cast<float4*>(to) = four;
        } else {
            for (int e = 0; e < 4; ++e)
                if (column + e < sizes.HD) to[e] = sums[4 * c + e] * scale;
        }
    }
}

/// Maximum and sum over the 16 threads of a row.
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kFullMask, x, offset));
    return x;
}
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) x += __shfl_xor_sync(kFullMask, x, offset);
    return x;
}

/// The scaled score of a query and a key at these positions, if the one sees the other: from where its document begins
/// on. The product is rounded by
/// itself, not fused into what follows: where a score of any size equals the maximum or the log-sum-exp, their
/// difference must be 0.
__device__ __forceinline__ float masked_score(float product, const AttentionSizes& sizes, int query, int key,
                                              int document) {
    return key <= query && key >= document && query - key < sizes.window ? __fmul_rn(product, sizes.scale) : -INFINITY;
}

// ---- forward ------------------------------------------------------------------------------------

template <int kHD>
struct ForwardShared {
    static constexpr int kQueries = 64, kKeys = kHD == 64 ? 64 : 32;
    TileFp32<kQueries, kHD> queries;
    TileFp32<kKeys, kHD> keys, values;
    TileFp32<kQueries, kKeys> probabilities;
};

template <int kHD, bool kDocuments>
__global__ void __launch_bounds__(kThreadsFp32, 1)
    attention_forward_fp32_kernel(float* out, float* lse, const float* qkv, AttentionSizes sizes) {
    using Shared = ForwardShared<kHD>;
    constexpr int kA = Shared::kQueries / 16, kB = Shared::kKeys / 16;
    DYNAMIC_SHARED(Shared, memory);
    Shared& shared = *memory;
    const int first_query = (gridDim.x - 1 - blockIdx.x) * Shared::kQueries, h = blockIdx.y, b = blockIdx.z;
    const int T = sizes.T, HD = sizes.HD, kv_head = sizes.kv_head(h), thread_query = first_query + group() * kA;
    load_tile(shared.queries, sizes.query(qkv, b, h), first_query, T, HD, sizes.aligned);

    float sums[kA][kHD / 16] = {}, max[kA], sum[kA];
#pragma unroll
    for (int i = 0; i < kA; ++i) {
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    const int begin = kDocuments ? sizes.first_seen(b, first_query) / Shared::kKeys * Shared::kKeys
                                 : sizes.first_key_tile(first_query, Shared::kKeys);
    for (int first_key = begin; first_key < min(T, first_query + Shared::kQueries); first_key += Shared::kKeys) {
        __syncthreads();
        load_tile(shared.keys, sizes.key(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
        load_tile(shared.values, sizes.value(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
        __syncthreads();
        float scores[kA][kB];
        dot_products(scores, shared.queries, shared.keys);
#pragma unroll
        for (int i = 0; i < kA; ++i) {
            const int document = kDocuments ? sizes.document_start(b, thread_query + i) : INT32_MIN;
            float largest = max[i];
#pragma unroll
            for (int j = 0; j < kB; ++j) {
                scores[i][j] =
                    masked_score(scores[i][j], sizes, thread_query + i, first_key + lane16() + 16 * j, document);
                largest = fmaxf(largest, scores[i][j]);
            }
            largest = row_max(largest);
            const float reference = largest == -INFINITY ? 0 : largest;  // The row has seen no key yet.
            const float correction = expf(max[i] - reference);
            max[i] = largest;
            sum[i] *= correction;
#pragma unroll
            for (int c = 0; c < kHD / 16; ++c) sums[i][c] *= correction;
#pragma unroll
            for (int j = 0; j < kB; ++j) {
                scores[i][j] = expf(scores[i][j] - reference);
                sum[i] += scores[i][j];
            }
        }
        store_scores(shared.probabilities, scores);
        __syncthreads();
        add_products<kA, kB, kHD>(sums, shared.probabilities, shared.values);
    }
#pragma unroll
    for (int i = 0; i < kA; ++i) {
        const float total = row_sum(sum[i]);
        store_sums<kHD>(sizes.out(out, b, h), thread_query + i, sizes, sums[i], 1.0f / total);
        if (lane16() == 0 && thread_query + i < T)
            lse[(int64_t{b} * T + thread_query + i) * sizes.NH + h] = max[i] + logf(total);
    }
}

// ---- backward -----------------------------------------------------------------------------------

/// Of both kernels: rows of queries and of keys, and the scores (query, key) or their gradients.
template <int kHD>
struct BackwardShared {
    static constexpr int kRows = kHD == 64 ? 64 : 32;
    TileFp32<kRows, kHD> queries, d_outs, keys, values;
    TileFp32<kRows, kRows> scores;
};

/// Probabilities and the gradients of the scaled scores of one tile; see attention_backward.cu. `rows` is indexed by
/// the query's position.
template <bool kDocuments, int kA, int kHD>
__device__ __forceinline__ void score_gradients(float (&p)[kA][kA], float (&d_scores)[kA][kA],
                                                const BackwardShared<kHD>& shared, const float2* rows,
                                                const AttentionSizes& sizes, int b, int first_query, int first_key) {
    dot_products(p, shared.queries, shared.keys);
    dot_products(d_scores, shared.d_outs, shared.values);
#pragma unroll
    for (int i = 0; i < kA; ++i) {
        const int query = first_query + group() * kA + i;
        const float2 row = query < sizes.T ? rows[query] : float2{INFINITY, 0};
        const int document = kDocuments ? sizes.document_start(b, query) : INT32_MIN;
#pragma unroll
        for (int j = 0; j < kA; ++j) {
            const float score = masked_score(p[i][j], sizes, query, first_key + lane16() + 16 * j, document);
            p[i][j] = expf(score - row.x);
            d_scores[i][j] = p[i][j] * (d_scores[i][j] - row.y);
        }
    }
}

template <int kHD, bool kDocuments>
__global__ void __launch_bounds__(kThreadsFp32, 1)
    attention_backward_keys_fp32_kernel(HeadGradients<float> gradients, const float* d_out, const float* qkv,
                                        const float2* rows, AttentionSizes sizes) {
    using Shared = BackwardShared<kHD>;
    constexpr int kRows = Shared::kRows, kA = kRows / 16;
    DYNAMIC_SHARED(Shared, memory);
    Shared& shared = *memory;
    const int first_key = blockIdx.x * kRows, kv_head = gradients.first + blockIdx.y, b = blockIdx.z;
    const int T = sizes.T, HD = sizes.HD, heads = sizes.NH / sizes.NKV;
    load_tile(shared.keys, sizes.key(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
    load_tile(shared.values, sizes.value(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
    float d_keys[kA][kHD / 16] = {}, d_values[kA][kHD / 16] = {};
    const int end =
        kDocuments ? sizes.end_seeing_in_document(b, first_key + kRows - 1) : sizes.end_seeing(first_key + kRows - 1);
    for (int h = kv_head * heads; h < (kv_head + 1) * heads; ++h)
        for (int first_query = first_key; first_query < end; first_query += kRows) {
            __syncthreads();
            load_tile(shared.queries, sizes.query(qkv, b, h), first_query, T, HD, sizes.aligned);
            load_tile(shared.d_outs, sizes.out(d_out, b, h), first_query, T, HD, sizes.aligned);
            __syncthreads();
            float p[kA][kA], d_scores[kA][kA];
            score_gradients<kDocuments>(p, d_scores, shared, rows + sizes.row_index(b, h), sizes, b, first_query,
                                        first_key);
            store_scores(shared.scores, p);
            __syncthreads();
            add_transposed<kA, kA, kHD>(d_values, shared.scores, shared.d_outs);
            __syncthreads();
            store_scores(shared.scores, d_scores);
            __syncthreads();
            add_transposed<kA, kA, kHD>(d_keys, shared.scores, shared.queries);
        }
#pragma unroll
    for (int i = 0; i < kA; ++i) {
        const int position = first_key + group() * kA + i;
        store_sums<kHD>(gradients.key(sizes, b, kv_head), position, sizes, d_keys[i], sizes.scale);
        store_sums<kHD>(gradients.value(sizes, b, kv_head), position, sizes, d_values[i], 1.0f);
    }
}

template <int kHD, bool kDocuments>
__global__ void __launch_bounds__(kThreadsFp32, 1)
    attention_backward_queries_fp32_kernel(HeadGradients<float> gradients, const float* d_out, const float* qkv,
                                           const float2* rows, AttentionSizes sizes) {
    using Shared = BackwardShared<kHD>;
    constexpr int kRows = Shared::kRows, kA = kRows / 16;
    DYNAMIC_SHARED(Shared, memory);
    Shared& shared = *memory;
    const int first_query = (gridDim.x - 1 - blockIdx.x) * kRows, b = blockIdx.z;
    const int T = sizes.T, HD = sizes.HD, h = gradients.first_query + blockIdx.y, kv_head = sizes.kv_head(h);
    load_tile(shared.queries, sizes.query(qkv, b, h), first_query, T, HD, sizes.aligned);
    load_tile(shared.d_outs, sizes.out(d_out, b, h), first_query, T, HD, sizes.aligned);
    float d_queries[kA][kHD / 16] = {};
    const int begin =
        kDocuments ? sizes.first_seen(b, first_query) / kRows * kRows : sizes.first_key_tile(first_query, kRows);
    for (int first_key = begin; first_key < min(T, first_query + kRows); first_key += kRows) {
        __syncthreads();
        load_tile(shared.keys, sizes.key(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
        load_tile(shared.values, sizes.value(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
        __syncthreads();
        float p[kA][kA], d_scores[kA][kA];
        score_gradients<kDocuments>(p, d_scores, shared, rows + sizes.row_index(b, h), sizes, b, first_query,
                                    first_key);
        store_scores(shared.scores, d_scores);
        __syncthreads();
        add_products<kA, kA, kHD>(d_queries, shared.scores, shared.keys);
    }
#pragma unroll
    for (int i = 0; i < kA; ++i)
        store_sums<kHD>(gradients.query(sizes, b, h), first_query + group() * kA + i, sizes, d_queries[i], sizes.scale);
}

}  // namespace llmc::cuda
