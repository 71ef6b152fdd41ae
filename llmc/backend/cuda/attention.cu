// Causal attention, forward (Dao et al. 2022, Dao 2023): scores exist for one tile at a time, with an online softmax.
//
// bf16: a block has 128 queries of one head, a warp 32 of them; two row tiles per warp halve the shared-memory traffic
// per product, which tensor cores are otherwise bound by. It walks the keys in tiles of 64 up to its diagonal. While
// the warps work on a key tile the value tile is being copied (cp.async), and the next key tile while they work on the
// values. With a window, or documents, it begins at the first tile that its first query sees. The longest blocks of a
// head start first. attention_tile.cuh has the products, attention_fp32.cuh the kernel for fp32, attention_backward.cu
// the other pass.
#include "llmc/backend/cuda/attention_fp32.cuh"
#include "llmc/backend/cuda/attention_hopper.h"
#include "llmc/backend/cuda/attention_tile.cuh"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <cstdint>
#include <type_traits>

namespace llmc::cuda {

inline namespace attention_kernels {

constexpr int kThreads = 128;
constexpr int kQueries = 128;
constexpr int kKeys = 64;
constexpr int kRowTiles = 2;  ///< Of 16 queries, per warp.

/// A lane's four rows of the online softmax: row lane/4 of each half of each row tile.
struct SoftmaxRows {
    float max[2 * kRowTiles];  ///< Of the products, not yet scaled; probabilities are relative to it.
    float sum[2 * kRowTiles];  ///< Of this lane's columns.
};

/// The maximum of a row that has seen no key yet: below every score, but finite, since a window may hide all keys of
/// the first tiles from it. Its products with the scale are finite, too.
constexpr float kNoScore = -0x1p126f;

/// Turns the scores of one key tile into probabilities. The maximum they are relative to may lag behind the true one by
/// a factor of 2^8, which costs no accuracy; so the sums are rarely rescaled. A warp decides for all of its rows.
template <int kHD>
__device__ __forceinline__ void online_softmax(float (&scores)[kRowTiles][kKeys / 8][4], SoftmaxRows& rows,
                                               float (&out)[kRowTiles][kHD / 8][4], float scale_log2) {
    constexpr float kLag = 8;
    float tile_max[2 * kRowTiles];
    bool raise = false;
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) {
        float largest = -INFINITY;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j)
            largest = fmaxf(largest, fmaxf(scores[r / 2][j][r % 2 * 2], scores[r / 2][j][r % 2 * 2 + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
        tile_max[r] = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
        raise = raise || (tile_max[r] - rows.max[r]) * scale_log2 > kLag;
    }
    if (__any_sync(kFullMask, raise)) {
#pragma unroll
        for (int r = 0; r < 2 * kRowTiles; ++r) {
            const float raised = fmaxf(rows.max[r], tile_max[r]);
            const float correction = exp2_approx((rows.max[r] - raised) * scale_log2);
            rows.max[r] = raised;
            rows.sum[r] *= correction;
#pragma unroll
            for (int j = 0; j < kHD / 8; ++j) {
                out[r / 2][j][r % 2 * 2] *= correction;
                out[r / 2][j][r % 2 * 2 + 1] *= correction;
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) {
        const float offset = -rows.max[r] * scale_log2;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int e = r % 2 * 2; e < r % 2 * 2 + 2; ++e) {
                scores[r / 2][j][e] = exp2_approx(fmaf(scores[r / 2][j][e], scale_log2, offset));
                rows.sum[r] += scores[r / 2][j][e];
            }
    }
}

template <int kHD, Sight kSight>
__global__ void __launch_bounds__(kThreads, 2)
    attention_forward_kernel(bf16* out, float* lse, const bf16* qkv, AttentionSizes sizes) {
    DYNAMIC_SHARED(bf16, shared);
    bf16* const query_tile = shared;
    bf16* const key_tile = query_tile + kQueries * kHD;
    bf16* const value_tile = key_tile + kKeys * kHD;
    int* const first_seen = reinterpret_cast<int*>(value_tile + kKeys * kHD);  // By query.
    const int first_query = (gridDim.x - 1 - blockIdx.x) * kQueries, h = blockIdx.y, b = blockIdx.z;
    const int T = sizes.T, HD = sizes.HD, lane = threadIdx.x % kWarpSize;
    const int warp_row = threadIdx.x / kWarpSize * 16 * kRowTiles, warp_query = first_query + warp_row;
    const HeadRows<const bf16> keys = sizes.key(qkv, b, sizes.kv_head(h));
    const HeadRows<const bf16> values = sizes.value(qkv, b, sizes.kv_head(h));

    copy_tile<kQueries, kHD, kThreads>(query_tile, sizes.query(qkv, b, h), first_query, T, HD, sizes.aligned);
    cp_async_commit();
    constexpr bool kWindow = kSight != Sight::Whole, kDocuments = kSight == Sight::Documents;
    static_assert(kQueries == kThreads);
    if (kDocuments) {
        first_seen[threadIdx.x] = sizes.first_seen(b, first_query + static_cast<int>(threadIdx.x));
        __syncthreads();
    }
    const int begin = kDocuments ? first_seen[0] / kKeys * kKeys
                      : kWindow  ? sizes.first_key_tile(first_query, kKeys)
                                 : 0;
    copy_tile<kKeys, kHD, kThreads>(key_tile, keys, begin, T, HD, sizes.aligned);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    using Queries = std::conditional_t<kHD <= 64, RegisterRows<kHD, kRowTiles>, SharedRows<kHD>>;
    const Queries queries(SharedRows<kHD>{query_tile, warp_row});

    const float scale_log2 = sizes.scale * kLog2e;
    float sums[kRowTiles][kHD / 8][4];
    clear(sums);
    SoftmaxRows rows;
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) {
        rows.max[r] = kNoScore;
        rows.sum[r] = 0;
    }
    const int end = min(T, first_query + kQueries);
    for (int first_key = begin; first_key < end; first_key += kKeys) {
        // Of this tile, to this warp.
        const bool visible =
            first_key < warp_query + 16 * kRowTiles && (!kDocuments || first_key + kKeys > first_seen[warp_row]);
        float scores[kRowTiles][kKeys / 8][4];
        cp_async_wait<0>();
        __syncthreads();
        copy_tile<kKeys, kHD, kThreads>(value_tile, values, first_key, T, HD, sizes.aligned);
        cp_async_commit();
        if (visible) {
            multiply_transposed<kHD>(scores, queries, key_tile, 0);
            if (kDocuments)
                mask_unseen(scores, first_seen + warp_row, warp_query, first_key);
            else if (kWindow || first_key + kKeys > warp_query + 1)
                mask_unseen<false>(scores, first_key - warp_query, kWindow ? sizes.window : sizes.kNoWindow);
            online_softmax<kHD>(scores, rows, sums, scale_log2);
        }
        cp_async_wait<0>();
        __syncthreads();
        if (first_key + kKeys < end) {
            copy_tile<kKeys, kHD, kThreads>(key_tile, keys, first_key + kKeys, T, HD, sizes.aligned);
            cp_async_commit();
        }
        if (visible) multiply_add<kHD>(sums, scores, value_tile, 0);
    }

    float inverse[2 * kRowTiles];
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) {
        float sum = rows.sum[r] + __shfl_xor_sync(kFullMask, rows.sum[r], 1);
        sum += __shfl_xor_sync(kFullMask, sum, 2);
        inverse[r] = 1.0f / sum;
        const int query = warp_query + 8 * r + lane / 4;
        if (lane % 4 == 0 && query < T)
            lse[(int64_t{b} * T + query) * sizes.NH + h] = rows.max[r] * sizes.scale + logf(sum);
    }
    store_rows<kHD, kRowTiles>(sizes.out(out, b, h), warp_query, T, HD, sizes.aligned, query_tile, warp_row, sums,
                               inverse);
}

}  // namespace attention_kernels

void CudaBackend::attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, Tensor workspace) {
    if (shape.B > kMaxGridRows) {
        return for_each_part(shape, [&](const AttentionShape& part, int64_t row, int64_t rows) {
            attention_forward(out.row_range(row, rows), lse.row_range(row, rows), qkv.row_range(row, rows), part,
                              workspace);
        });
    }
    const AttentionSizes sizes = attention_sizes(shape, {qkv}, {out}, lse);
    if (qkv.count() == 0) return;
    if (qkv.dtype == DType::F32) {
        with_head_size<64>(shape.HD, [&](auto head_size) {
            constexpr int kHD = head_size;
            using Shared = ForwardShared<kHD>;
            const dim3 grid(ceil_div(shape.T, Shared::kQueries), shape.NH, shape.B);
            launch(
                sizes.documents ? attention_forward_fp32_kernel<kHD, true> : attention_forward_fp32_kernel<kHD, false>,
                grid, kThreadsFp32, sizeof(Shared), stream_, elements_of<float>(out), elements_of<float>(lse),
                elements_of<const float>(qkv), sizes);
        });
    } else if (runs_on_hopper(hopper_, sizes)) {
        attention_forward_hopper(elements_of<bf16>(out), elements_of<float>(lse), elements_of<const bf16>(qkv), sizes,
                                 shape.B, stream_);
    } else {
        with_head_size<32>(shape.HD, [&](auto head_size) {
            constexpr int kHD = head_size;
            const dim3 grid(ceil_div(shape.T, kQueries), shape.NH, shape.B);
            const Sight sight = sight_of(sizes);
            const size_t of_documents = sight == Sight::Documents ? sizeof(int) * kQueries : 0;
            const size_t bytes = sizeof(bf16) * (kQueries + 2 * kKeys) * kHD + of_documents;
            launch(sight == Sight::Documents ? attention_forward_kernel<kHD, Sight::Documents>
                   : sight == Sight::Window  ? attention_forward_kernel<kHD, Sight::Window>
                                             : attention_forward_kernel<kHD, Sight::Whole>,
                   grid, kThreads, bytes, stream_, elements_of<bf16>(out), elements_of<float>(lse),
                   elements_of<const bf16>(qkv), sizes);
        });
    }
}

int64_t CudaBackend::attention_forward_workspace(DType, const AttentionShape&) const { return 0; }

}  // namespace llmc::cuda
