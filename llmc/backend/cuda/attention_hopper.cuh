// What the Hopper kernels of attention share: tiles of a head's rows in shared memory, loaded by bulk copies and read
// by wgmma, and how a warpgroup's sums leave through them.
//
// A block is a warpgroup that loads and warpgroups that compute (`consumers`), each with 64 rows of its own. Stages of
// the tiles that all of them walk have two barriers each: `full`, which the copies' bytes complete, and `empty`, at
// which every consumer arrives once its products have read the stage.
#pragma once

#include "llmc/backend/cuda/attention_heads.cuh"
#include "llmc/backend/cuda/swizzled_tile.cuh"
#include "llmc/backend/cuda/tensor_map.h"

#include <cstdint>

namespace llmc::cuda {

constexpr int kStages = 2;

/// The first key that a query sees, by its window and, where there are any, its document.
__device__ __forceinline__ int first_key_seen(const AttentionSizes& sizes, int b, int query) {
    return sizes.documents != nullptr ? sizes.first_seen(b, query) : max(0, query + 1 - sizes.window);
}

/// The four registers of A that K-step `step` of sums has, rounded to bf16.
template <int kCount>
__device__ __forceinline__ void pack_fragment(uint32_t (&a)[4], const float (&sums)[kCount], int step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) a[r] = bf16_pair(sums[8 * step + 2 * r], sums[8 * step + 2 * r + 1]);
}

template <int kCount>
__device__ __forceinline__ void clear(float (&x)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = 0;
}

/// Stores a consumer's 64 rows, the thread's two times scale[0] and scale[1], into a head from position `first` on,
/// through the tile's rows from `tile_row` on, which no other consumer uses.
template <int kRows, int kHD>
__device__ __forceinline__ void store_consumer_rows(const HeadRows<bf16>& head, int first, int T,
                                                    const SwizzledTile<kRows, kHD>& tile, int tile_row,
                                                    const float (&x)[kHD / 2], const float (&scale)[2]) {
    const FragmentPlace place;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp_row = place.row / 16 * 16;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kHD / 8; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h)
            *tile.pair(tile_row + place.row + 8 * h, 8 * j + place.column) =
                bf16_pair(x[4 * j + 2 * h] * scale[h], x[4 * j + 2 * h + 1] * scale[h]);
    __syncwarp();
    constexpr int kChunks = kHD / 8;
    const int rows = min(16, T - first - warp_row);
    for (int r = lane / kChunks; r < rows; r += kWarpSize / kChunks) {
        const auto* from = reinterpret_cast<const bf16*>(tile.chunk(tile_row + warp_row + r, lane % kChunks));
        store128(head.row(first + warp_row + r) + lane % kChunks * 8, load128(from));
    }
}

/// A map of the heads in a (B*T, columns) tensor, for boxes of 64 rows of 64 columns of one head.
inline CUtensorMap head_map(const bf16* data, int HD, int columns, int T, int B) {
    const auto row_bytes = static_cast<uint64_t>(columns) * sizeof(bf16);
    return tensor_map({data,
                       {static_cast<uint64_t>(HD), static_cast<uint64_t>(columns / HD), static_cast<uint64_t>(T),
                        static_cast<uint64_t>(B)},
                       {static_cast<uint64_t>(HD) * sizeof(bf16), row_bytes, row_bytes * static_cast<uint64_t>(T)},
                       {64, 1, 64, 1}});
}

}  // namespace llmc::cuda
