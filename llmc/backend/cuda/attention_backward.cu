// Causal attention, backward (Dao et al. 2022, Dao 2023). With P = exp(S - lse), from the saved log-sum-exp,
//   dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ∘ (dP - D),  dQ = dS K,  dK = dSᵀ Q,  D = rowsum(dO ∘ O).
//
// Three kernels. The first gathers each row's lse and D. The second walks, for each tile of keys, the queries that see
// it, of all heads that share it, and keeps dK and dV in registers; the third walks the keys of each tile of queries
// for dQ. So every gradient has one owner, who adds in a fixed order: no atomics, no partial sums in memory. The price
// is that S and dP are computed twice, 7 products instead of 5. What pays for it: scores stay in registers as operands
// of the next product (the second kernel computes them transposed), where a single kernel would pass them between warps
// through shared memory, and dQ is not sent through memory once per key tile, in whose order it would have to be added.
//
// In the place of qkv, for some heads at a time: dK and dV wait in the workspace, since the third kernel still reads
// keys and values; a block of that has read its queries, which no other reads, when it writes their gradients over
// them. A fourth kernel puts dK and dV in their place.
//
// A block has 4 warps with 16 or 32 rows each; the tiles it walks are double-buffered (cp.async). Sums, scores and, for
// heads up to 64, the fragments of the warp's own rows fill the registers up to two blocks on a multiprocessor; the
// columns of scores computed at a time (kStep) are as many as fit without spilling.
#include "llmc/backend/cuda/attention_fp32.cuh"
#include "llmc/backend/cuda/attention_hopper.h"
#include "llmc/backend/cuda/attention_tile.cuh"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace llmc::cuda {

inline namespace attention_backward_kernels {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;

/// Lanes that share a row of a head, 16 bytes to each: a power of two.
template <typename T>
__host__ __device__ int lanes_of_row(const AttentionSizes& sizes) {
    int lanes = sizes.aligned ? 1 : kWarpSize;
    while (lanes < kWarpSize && lanes * Pack<T>::kSize < sizes.HD) lanes *= 2;
    return lanes;
}

/// rows[b][h][t] = {lse, D}, lse in base 2 for bf16. Rows that pad T get probability 0. A warp has as many rows at a
/// time as its lanes can share.
/// Bytes: reads d_out, out and lse, writes rows, each once: 4 an element of bf16, and 12 a row. GPT-2 124M, 32 x 1024,
/// at 3.0 TB/s: 0.035 ms.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    attention_rows_kernel(float2* rows, const T* d_out, const T* out, const float* lse, AttentionSizes sizes) {
    const int lanes = lanes_of_row<T>(sizes), lane = threadIdx.x % lanes;
    const int t = blockIdx.x * (kThreads / lanes) + threadIdx.x / lanes, h = blockIdx.y, b = blockIdx.z;
    float sum = 0;
    if (t < sizes.T) {
        const T* x = sizes.out(out, b, h).row(t);
        const T* d_x = sizes.out(d_out, b, h).row(t);
        if (sizes.aligned) {
            const int i = lane * Pack<T>::kSize;
            if (i < sizes.HD) {
                const Pack<T> xs = load128(x + i), d_xs = load128(d_x + i);
#pragma unroll
                for (int e = 0; e < Pack<T>::kSize; ++e) sum = fmaf(to_float(xs[e]), to_float(d_xs[e]), sum);
            }
        } else {
            for (int i = lane; i < sizes.HD; i += kWarpSize) sum = fmaf(to_float(x[i]), to_float(d_x[i]), sum);
        }
    }
    for (int offset = lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullMask, sum, offset);
    if (lane != 0 || t >= sizes.padded_T()) return;
    const float base = sizeof(T) == sizeof(bf16) ? kLog2e : 1.0f;
    const float exponent = t < sizes.T ? lse[(int64_t{b} * sizes.T + t) * sizes.NH + h] * base : INFINITY;
    rows[sizes.row_index(b, h) + t] = {exponent, sum};
}

template <int kHD>
struct KeyTiling {
    static constexpr int kRowTiles = kHD == 128 ? 1 : 2;  ///< Of 16 keys, per warp: its sums take kHD registers.
    static constexpr int kKeys = kWarps * 16 * kRowTiles;
    static constexpr int kQueries = kHD == 128 ? 32 : 64;
    static constexpr int kStep = kHD == 128 ? 32 : 16;  ///< Queries whose scores are computed at a time.
    static constexpr size_t kBytes = sizeof(bf16) * (2 * kKeys + 4 * kQueries) * kHD + sizeof(float2) * 2 * kQueries;
};

template <int kHD, bool kDocuments>
__global__ void __launch_bounds__(kThreads, 2)
    attention_backward_keys_kernel(HeadGradients<bf16> gradients, const bf16* d_out, const bf16* qkv,
                                   const float2* rows, AttentionSizes sizes) {
    using Tiling = KeyTiling<kHD>;
    constexpr int kRowTiles = Tiling::kRowTiles, kKeys = Tiling::kKeys, kQueries = Tiling::kQueries;
    constexpr int kStep = Tiling::kStep;
    DYNAMIC_SHARED(bf16, shared);
    bf16* const key_tile = shared;
    bf16* const value_tile = key_tile + kKeys * kHD;
    bf16* const query_tiles = value_tile + kKeys * kHD;
    bf16* const d_out_tiles = query_tiles + 2 * kQueries * kHD;
    float2* const row_tiles = reinterpret_cast<float2*>(d_out_tiles + 2 * kQueries * kHD);
    int* const documents = reinterpret_cast<int*>(row_tiles + 2 * kQueries);  // Where those of the queries begin.
    const int first_key = blockIdx.x * kKeys, kv_head = gradients.first + blockIdx.y, b = blockIdx.z;
    const int T = sizes.T, HD = sizes.HD, heads = sizes.NH / sizes.NKV, lane = threadIdx.x % kWarpSize;
    const int warp_row = threadIdx.x / kWarpSize * 16 * kRowTiles, warp_key = first_key + warp_row;

    const auto copy_queries = [&](int h, int first_query, int buffer) {
        copy_tile<kQueries, kHD, kThreads>(query_tiles + buffer * kQueries * kHD, sizes.query(qkv, b, h), first_query,
                                           T, HD, sizes.aligned);
        copy_tile<kQueries, kHD, kThreads>(d_out_tiles + buffer * kQueries * kHD, sizes.out(d_out, b, h), first_query,
                                           T, HD, sizes.aligned);
        const float2* from = rows + sizes.row_index(b, h) + first_query + 2 * threadIdx.x;
        if (threadIdx.x < kQueries / 2) cp_async_16(row_tiles + buffer * kQueries + 2 * threadIdx.x, from);
        if (kDocuments && threadIdx.x < kQueries)
            documents[buffer * kQueries + threadIdx.x] = sizes.document_start(b, first_query + threadIdx.x);
        cp_async_commit();
    };
    copy_tile<kKeys, kHD, kThreads>(key_tile, sizes.key(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
    copy_tile<kKeys, kHD, kThreads>(value_tile, sizes.value(qkv, b, kv_head), first_key, T, HD, sizes.aligned);
    copy_queries(kv_head * heads, first_key, 0);
    cp_async_wait<0>();
    __syncthreads();
    using Keys = std::conditional_t<kHD <= 64, RegisterRows<kHD, kRowTiles>, SharedRows<kHD>>;
    const Keys keys(SharedRows<kHD>{key_tile, warp_row});
    const SharedRows<kHD> values{value_tile, warp_row};
    const float scale_log2 = sizes.scale * kLog2e;
    float d_keys[kRowTiles][kHD / 8][4], d_values[kRowTiles][kHD / 8][4];
    clear(d_keys);
    clear(d_values);
    const int end =
        kDocuments ? sizes.end_seeing_in_document(b, first_key + kKeys - 1) : sizes.end_seeing(first_key + kKeys - 1);
    int h = kv_head * heads, tile_query = first_key, buffer = 0;
    while (h < (kv_head + 1) * heads) {
        const int next_query = tile_query + kQueries < end ? tile_query + kQueries : first_key;
        const int next_h = next_query == first_key ? h + 1 : h;
        cp_async_wait<0>();
        __syncthreads();
        if (next_h < (kv_head + 1) * heads) copy_queries(next_h, next_query, buffer ^ 1);
        const bf16* const query_tile = query_tiles + buffer * kQueries * kHD;
        const bf16* const d_out_tile = d_out_tiles + buffer * kQueries * kHD;
#pragma unroll 1
        for (int step = 0; step < kQueries; step += kStep) {
            const int first_query = tile_query + step;
            const int last_query = first_query + kStep - 1, last_key = warp_key + 16 * kRowTiles - 1;
            if (last_query < warp_key || first_query - last_key >= sizes.window) continue;
            const int* const of_step = documents + buffer * kQueries + step;
            if (kDocuments && of_step[0] > last_key) break;
            const float2* const row_tile = row_tiles + buffer * kQueries + step;
            float p[kRowTiles][kStep / 8][4], d_scores[kRowTiles][kStep / 8][4];
            multiply_transposed<kHD>(p, keys, query_tile, step);
            if (first_query < last_key || last_query - warp_key >= sizes.window)
                mask_unseen<true>(p, warp_key - first_query, sizes.window);
            if (kDocuments) hide_other_documents_transposed(p, of_step, warp_key);
#pragma unroll
            for (int j = 0; j < kStep / 8; ++j) {
                const int column = 8 * j + lane % 4 * 2;
                const float lse[2] = {row_tile[column].x, row_tile[column + 1].x};
#pragma unroll
                for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
                    for (int e = 0; e < 4; ++e) p[i][j][e] = exp2_approx(fmaf(p[i][j][e], scale_log2, -lse[e % 2]));
            }
            multiply_transposed<kHD>(d_scores, values, d_out_tile, step);
#pragma unroll
            for (int j = 0; j < kStep / 8; ++j) {
                const int column = 8 * j + lane % 4 * 2;
                const float D[2] = {row_tile[column].y, row_tile[column + 1].y};
#pragma unroll
                for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
                    for (int e = 0; e < 4; ++e) d_scores[i][j][e] = p[i][j][e] * (d_scores[i][j][e] - D[e % 2]);
            }
            multiply_add<kHD>(d_values, p, d_out_tile, step);
            multiply_add<kHD>(d_keys, d_scores, query_tile, step);
        }
        h = next_h;
        tile_query = next_query;
        buffer ^= 1;
    }

    float key_scale[2 * kRowTiles], value_scale[2 * kRowTiles];
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) {
        key_scale[r] = sizes.scale;
        value_scale[r] = 1.0f;
    }
    store_rows<kHD, kRowTiles>(gradients.key(sizes, b, kv_head), warp_key, T, HD, sizes.aligned, key_tile, warp_row,
                               d_keys, key_scale);
    store_rows<kHD, kRowTiles>(gradients.value(sizes, b, kv_head), warp_key, T, HD, sizes.aligned, value_tile, warp_row,
                               d_values, value_scale);
}

template <int kHD>
struct QueryTiling {
    static constexpr int kRowTiles = 2;  ///< Of 16 queries, per warp.
    static constexpr int kQueries = kWarps * 16 * kRowTiles;
    static constexpr int kKeys = kHD == 128 ? 32 : 64;
    static constexpr int kStep = 32;  ///< Keys for which scores are computed at a time.
    static constexpr size_t kBytes = sizeof(bf16) * (2 * kQueries + 4 * kKeys) * kHD + sizeof(float2) * kQueries;
};

template <int kHD, Sight kSight>
__global__ void __launch_bounds__(kThreads, 2)
    attention_backward_queries_kernel(HeadGradients<bf16> gradients, const bf16* d_out, const bf16* qkv,
                                      const float2* rows, AttentionSizes sizes) {
    using Tiling = QueryTiling<kHD>;
    constexpr int kRowTiles = Tiling::kRowTiles, kQueries = Tiling::kQueries, kKeys = Tiling::kKeys;
    constexpr int kStep = Tiling::kStep;
    DYNAMIC_SHARED(bf16, shared);
    bf16* const query_tile = shared;
    bf16* const d_out_tile = query_tile + kQueries * kHD;
    bf16* const key_tiles = d_out_tile + kQueries * kHD;
    bf16* const value_tiles = key_tiles + 2 * kKeys * kHD;
    float2* const row_tile = reinterpret_cast<float2*>(value_tiles + 2 * kKeys * kHD);
    int* const first_seen = reinterpret_cast<int*>(row_tile + kQueries);  // By query.
    const int first_query = (gridDim.x - 1 - blockIdx.x) * kQueries, b = blockIdx.z;
    const int h = gradients.first_query + blockIdx.y, kv_head = sizes.kv_head(h);
    const int T = sizes.T, HD = sizes.HD, lane = threadIdx.x % kWarpSize;
    const int warp_row = threadIdx.x / kWarpSize * 16 * kRowTiles, warp_query = first_query + warp_row;

    const auto copy_keys = [&](int first_key) {
        const int buffer = first_key / kKeys % 2;
#pragma unroll 1  // for fewer registers
        for (int part = 0; part < 2; ++part)
            copy_tile<kKeys, kHD, kThreads>(key_tiles + (buffer + 2 * part) * kKeys * kHD,
                                            sizes.query(qkv, b, sizes.NH + part * sizes.NKV + kv_head), first_key, T,
                                            HD, sizes.aligned);
        cp_async_commit();
    };
    copy_tile<kQueries, kHD, kThreads>(query_tile, sizes.query(qkv, b, h), first_query, T, HD, sizes.aligned);
    copy_tile<kQueries, kHD, kThreads>(d_out_tile, sizes.out(d_out, b, h), first_query, T, HD, sizes.aligned);
    static_assert(kQueries == kThreads);
    const int query = first_query + threadIdx.x;
    constexpr bool kWindow = kSight != Sight::Whole, kDocuments = kSight == Sight::Documents;
    if (kDocuments) {
        first_seen[threadIdx.x] = sizes.first_seen(b, query);
        __syncthreads();
    }
    row_tile[threadIdx.x] = query < T ? rows[sizes.row_index(b, h) + query] : float2{INFINITY, 0};
    cp_async_commit();
    const int begin = kDocuments ? first_seen[0] / kKeys * kKeys
                      : kWindow  ? sizes.first_key_tile(first_query, kKeys)
                                 : 0;
    copy_keys(begin);
    cp_async_wait<1>();
    __syncthreads();
    using Rows = std::conditional_t<kHD <= 64, RegisterRows<kHD, kRowTiles>, SharedRows<kHD>>;
    const Rows queries(SharedRows<kHD>{query_tile, warp_row}), d_outs(SharedRows<kHD>{d_out_tile, warp_row});
    const float scale_log2 = sizes.scale * kLog2e;
    float d_queries[kRowTiles][kHD / 8][4];
    clear(d_queries);
    const int end = min(T, first_query + kQueries);
    for (int tile_key = begin; tile_key < end; tile_key += kKeys) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile_key + kKeys < end) copy_keys(tile_key + kKeys);
        const bf16* const key_tile = key_tiles + tile_key / kKeys % 2 * kKeys * kHD;
        const bf16* const value_tile = value_tiles + tile_key / kKeys % 2 * kKeys * kHD;
#pragma unroll 1
        for (int step = 0; step < kKeys; step += kStep) {
            const int first_key = tile_key + step;
            if (first_key >= warp_query + 16 * kRowTiles) break;
            if (kDocuments && first_key + kStep <= first_seen[warp_row]) continue;
            float p[kRowTiles][kStep / 8][4], d_scores[kRowTiles][kStep / 8][4];
            multiply_transposed<kHD>(p, queries, key_tile, step);
            if (kDocuments)
                mask_unseen(p, first_seen + warp_row, warp_query, first_key);
            else if (kWindow || first_key + kStep > warp_query + 1)
                mask_unseen<false>(p, first_key - warp_query, kWindow ? sizes.window : sizes.kNoWindow);
#pragma unroll
            for (int r = 0; r < 2 * kRowTiles; ++r) {
                const float lse = row_tile[warp_row + 8 * r + lane / 4].x;
#pragma unroll
                for (int j = 0; j < kStep / 8; ++j)
#pragma unroll
                    for (int e = r % 2 * 2; e < r % 2 * 2 + 2; ++e)
                        p[r / 2][j][e] = exp2_approx(fmaf(p[r / 2][j][e], scale_log2, -lse));
            }
            multiply_transposed<kHD>(d_scores, d_outs, value_tile, step);
#pragma unroll
            for (int r = 0; r < 2 * kRowTiles; ++r) {
                const float D = row_tile[warp_row + 8 * r + lane / 4].y;
#pragma unroll
                for (int j = 0; j < kStep / 8; ++j)
#pragma unroll
                    for (int e = r % 2 * 2; e < r % 2 * 2 + 2; ++e)
                        d_scores[r / 2][j][e] = p[r / 2][j][e] * (d_scores[r / 2][j][e] - D);
            }
            multiply_add<kHD>(d_queries, d_scores, key_tile, step);
        }
    }
    float scale[2 * kRowTiles];
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) scale[r] = sizes.scale;
    store_rows<kHD, kRowTiles>(gradients.query(sizes, b, h), warp_query, T, HD, sizes.aligned, query_tile, warp_row,
                               d_queries, scale);
}

template <typename T>
void gather_statistics(float2* rows, const T* d_out, const T* out, const float* lse, const AttentionShape& shape,
                       const AttentionSizes& sizes, cudaStream_t stream) {
    const dim3 grid(ceil_div(sizes.padded_T(), kThreads / lanes_of_row<T>(sizes)), shape.NH, shape.B);
    launch(attention_rows_kernel<T>, grid, kThreads, 0, stream, rows, d_out, out, lse, sizes);
}

/// Keys' and values' gradients that wait, row by row, go to their columns. A thread moves a group of elements.
template <typename T, int kSize>
__global__ void __launch_bounds__(kElementThreads)
    place_key_gradients_kernel(HeadGradients<T> gradients, int64_t count, AttentionSizes sizes) {
    const int64_t i = group_begin<kSize>();
    if (i >= count) return;
    const int64_t row = i / gradients.columns;
    const int column = static_cast<int>(i % gradients.columns), of_keys = gradients.count * sizes.HD;
    const int head = column < of_keys ? sizes.NH : sizes.NH + sizes.NKV - gradients.count;
    T* const to = gradients.queries + row * sizes.qkv_columns + (head + gradients.first) * sizes.HD + column;
    store_group(to, load_group<kSize>(gradients.keys + i));
}

template <typename T>
void place_key_gradients(const HeadGradients<T>& gradients, int64_t N, const AttentionSizes& sizes,
                         cudaStream_t stream) {
    constexpr int kSize = Pack<T>::kSize;
    const int64_t count = N * gradients.columns, groups = sizes.aligned ? count / kSize : count;
    launch(sizes.aligned ? place_key_gradients_kernel<T, kSize> : place_key_gradients_kernel<T, 1>,
           blocks_of(ceil_div(groups, kElementThreads)), kElementThreads, 0, stream, gradients, count, sizes);
}

void run_kernels(const HeadGradients<float>& gradients, const float* d_out, const float* qkv, const float2* rows,
                 const AttentionShape& shape, const AttentionSizes& sizes, bool, cudaStream_t stream) {
    with_head_size<64>(shape.HD, [&](auto head_size) {
        using Shared = BackwardShared<head_size>;
        const int64_t tiles = ceil_div(shape.T, Shared::kRows), heads = gradients.count;
        launch(sizes.documents ? attention_backward_keys_fp32_kernel<head_size, true>
                               : attention_backward_keys_fp32_kernel<head_size, false>,
               dim3(tiles, heads, shape.B), kThreadsFp32, sizeof(Shared), stream, gradients, d_out, qkv, rows, sizes);
        launch(sizes.documents ? attention_backward_queries_fp32_kernel<head_size, true>
                               : attention_backward_queries_fp32_kernel<head_size, false>,
               dim3(tiles, heads * (shape.NH / shape.NKV), shape.B), kThreadsFp32, sizeof(Shared), stream, gradients,
               d_out, qkv, rows, sizes);
    });
}

void run_kernels(const HeadGradients<bf16>& gradients, const bf16* d_out, const bf16* qkv, const float2* rows,
                 const AttentionShape& shape, const AttentionSizes& sizes, bool hopper, cudaStream_t stream) {
    if (runs_on_hopper(hopper, sizes))
        return attention_backward_hopper(gradients, d_out, qkv, rows, sizes, shape.B, stream);
    with_head_size<32>(shape.HD, [&](auto head_size) {
        using Keys = KeyTiling<head_size>;
        using Queries = QueryTiling<head_size>;
        const int64_t heads = gradients.count;
        launch(sizes.documents ? attention_backward_keys_kernel<head_size, true>
                               : attention_backward_keys_kernel<head_size, false>,
               dim3(ceil_div(shape.T, Keys::kKeys), heads, shape.B), kThreads,
               Keys::kBytes + (sizes.documents ? sizeof(int) * 2 * Keys::kQueries : 0), stream, gradients, d_out, qkv,
               rows, sizes);
        const Sight sight = sight_of(sizes);
        launch(sight == Sight::Documents ? attention_backward_queries_kernel<head_size, Sight::Documents>
               : sight == Sight::Window  ? attention_backward_queries_kernel<head_size, Sight::Window>
                                         : attention_backward_queries_kernel<head_size, Sight::Whole>,
               dim3(ceil_div(shape.T, Queries::kQueries), heads * (shape.NH / shape.NKV), shape.B), kThreads,
               Queries::kBytes + (sizes.documents ? sizeof(int) * Queries::kQueries : 0), stream, gradients, d_out, qkv,
               rows, sizes);
    });
}

int64_t statistics_bytes(const AttentionShape& shape) {
    return shape.B * shape.NH * round_up(shape.T, AttentionSizes::kRowPadding) * int64_t{sizeof(float2)};
}

struct BackwardOperands {
    Tensor d_qkv, d_out, qkv, out, lse, workspace;
};

/// `at_once`: key/value heads.
template <typename T>
void backward(const BackwardOperands& x, const AttentionShape& shape, int64_t at_once, bool hopper,
              cudaStream_t stream) {
    const AttentionSizes sizes = attention_sizes(shape, {x.d_qkv, x.qkv}, {x.d_out, x.out}, x.lse);
    T* const d_qkv = elements_of<T>(x.d_qkv);
    const T *const d_out = elements_of<const T>(x.d_out), *const qkv = elements_of<const T>(x.qkv);
    const bool in_place = d_qkv == qkv;
    float2* const rows = static_cast<float2*>(x.workspace.data);
    T* const waiting = reinterpret_cast<T*>(static_cast<char*>(x.workspace.data) + statistics_bytes(shape));
    gather_statistics(rows, d_out, elements_of<const T>(x.out), elements_of<const float>(x.lse), shape, sizes, stream);
    const int most = static_cast<int>(at_once);
    for (int first = 0; first < sizes.NKV; first += most) {
        HeadGradients<T> gradients = {.queries = d_qkv,
                                      .keys = d_qkv + (sizes.NH + first) * sizes.HD,
                                      .values = d_qkv + (sizes.NH + sizes.NKV + first) * sizes.HD,
                                      .columns = sizes.qkv_columns,
                                      .first = first,
                                      .count = std::min(most, sizes.NKV - first),
                                      .first_query = first * (sizes.NH / sizes.NKV)};
        if (in_place) {
            gradients.keys = waiting, gradients.values = waiting + gradients.count * sizes.HD;
            gradients.columns = 2 * gradients.count * sizes.HD;
        }
        run_kernels(gradients, d_out, qkv, rows, shape, sizes, hopper, stream);
        if (in_place) place_key_gradients(gradients, shape.B * shape.T, sizes, stream);
    }
}

}  // namespace attention_backward_kernels

void CudaBackend::attention_backward(Tensor d_qkv, Tensor d_out, Tensor qkv, Tensor out, Tensor lse,
                                     const AttentionShape& shape, Tensor workspace) {
    const bool in_place = d_qkv.data == qkv.data;
    CHECK(workspace.bytes() >= attention_backward_workspace(qkv.dtype, shape, in_place), workspace.bytes());
    CHECK(all_aligned({workspace.data}));
    if (qkv.count() == 0) return;
    const int64_t at_once = in_place ? shape.kv_heads_in_place() : shape.NKV;
    for_each_part(shape, [&](const AttentionShape& part, int64_t row, int64_t rows) {
        const BackwardOperands operands = {d_qkv.row_range(row, rows), d_out.row_range(row, rows),
                                           qkv.row_range(row, rows),   out.row_range(row, rows),
                                           lse.row_range(row, rows),   workspace};
        (qkv.dtype == DType::F32 ? backward<float> : backward<bf16>)(operands, part, at_once, hopper_, stream_);
    });
}

int64_t CudaBackend::attention_backward_workspace(DType activations, const AttentionShape& shape, bool in_place) const {
    const int64_t columns = in_place ? 2 * shape.kv_heads_in_place() * shape.HD : 0;
    return statistics_bytes(shape) + shape.B * shape.T * columns * size_of(activations);
}

}  // namespace llmc::cuda
