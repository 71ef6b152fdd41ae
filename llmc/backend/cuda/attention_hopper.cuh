// What the Hopper kernels of attention share: tiles of a head's rows in shared memory, loaded by bulk copies and read
// by wgmma, and how a warpgroup's sums leave through them.
//
// A block is a warpgroup that loads and warpgroups that compute (`consumers`), each with 64 rows of its own. Stages of
// the tiles that all of them walk have two barriers each: `full`, which the copies' bytes complete, and `empty`, at
// which every consumer arrives once its products have read the stage.
#pragma once

#include "llmc/backend/cuda/attention_heads.cuh"
#include "llmc/backend/cuda/hopper.cuh"
#include "llmc/backend/cuda/tensor_map.h"

#include <cstdint>

namespace llmc::cuda {

constexpr int kConsumerRows = 64;  ///< Of a wgmma.
constexpr int kStages = 2;

/// Rows of kHD columns, as parts of 64 columns one after the other; a part's rows are 128 bytes, under the swizzle of
/// 128 bytes. Boxes of 64 x 64 elements fill it.
template <int kRows, int kHD>
struct SwizzledTile {
    static_assert(kRows % 64 == 0 && kHD % 64 == 0);
    static constexpr int kRowBytes = 128, kPattern = 8 * kRowBytes, kPart = kRows * kRowBytes;
    static constexpr int kBytes = kHD / 64 * kPart;
    char* data;  ///< Aligned to 1024 bytes.

    /// Starts loading a head's rows from `first` on; kBytes arrive at the barrier.
    __device__ __forceinline__ void load(const CUtensorMap* map, uint64_t* barrier, int head, int first, int b) const {
#pragma unroll
        for (int part = 0; part < kHD / 64; ++part)
#pragma unroll
            for (int row = 0; row < kRows; row += 64)
                tensor_load(data + part * kPart + row * kRowBytes, map, barrier, part * 64, head, first + row, b);
    }
    /// Rows from `row` on, 16 columns of each, which are K.
    __device__ __forceinline__ uint64_t k_major(int row, int step) const {
        return matrix_descriptor(data + step / 4 * kPart + row * kRowBytes + step % 4 * 32, 0, kPattern,
                                 Swizzle::Bytes128);
    }
    /// 16 rows, which are K, all columns of each.
    __device__ __forceinline__ uint64_t mn_major(int step) const {
        return matrix_descriptor(data + step * 16 * kRowBytes, kPart, kPattern, Swizzle::Bytes128);
    }
    /// 8 columns of a row.
    __device__ __forceinline__ char* chunk(int row, int chunk) const {
        return data + chunk / 8 * kPart + row * kRowBytes + (chunk % 8 ^ row % 8) * 16;
    }
    __device__ __forceinline__ uint32_t* pair(int row, int column) const {
        return reinterpret_cast<uint32_t*>(chunk(row, column / 8) + column % 8 * 2);
    }
};

/// A thread's place in the fragments of its consumer: rows `row` and row + 8, columns `column` and + 1 of every 8.
struct FragmentPlace {
    int row = static_cast<int>(threadIdx.x) % kWarpgroupSize / kWarpSize * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
    int column = static_cast<int>(threadIdx.x) % 4 * 2;
};

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
