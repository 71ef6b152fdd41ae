// Tiles of bf16 rows in shared memory as Hopper's kernels have them: filled by bulk copies, read by wgmma, and written
// and read by threads on the way out.
#pragma once

#include "llmc/backend/cuda/hopper.cuh"

#include <cstdint>

namespace llmc::cuda {

constexpr int kConsumerRows = 64;  ///< Of a wgmma.

/// Rows of kColumns columns, as parts of 64 columns one after the other; a part's rows are 128 bytes, under the swizzle
/// of 128 bytes. Boxes of 64 x 64 elements fill it.
template <int kRows, int kColumns>
struct SwizzledTile {
    static_assert(kRows % 64 == 0 && kColumns % 64 == 0);
    static constexpr int kRowBytes = 128, kPattern = 8 * kRowBytes, kPart = kRows * kRowBytes;
    static constexpr int kBytes = kColumns / 64 * kPart;
    char* data;  ///< Aligned to 1024 bytes.

    /// Starts loading all of it by a map of (columns, c1, rows, c3); kBytes arrive at the barrier.
    __device__ __forceinline__ void load(const CUtensorMap* map, uint64_t* barrier, int c1, int first_row, int c3,
                                         int first_column = 0) const {
#pragma unroll
        for (int part = 0; part < kColumns / 64; ++part)
#pragma unroll
            for (int row = 0; row < kRows; row += 64)
                tensor_load(data + part * kPart + row * kRowBytes, map, barrier, first_column + part * 64, c1,
                            first_row + row, c3);
    }
    /// Rows from `row` on, 16 columns of each, which are K.
    __device__ __forceinline__ uint64_t k_major(int row, int step) const {
        return matrix_descriptor(data + step / 4 * kPart + row * kRowBytes + step % 4 * 32, 0, kPattern,
                                 Swizzle::Bytes128);
    }
    /// 16 rows, which are K, the columns of each from `column` on, a multiple of 64.
    __device__ __forceinline__ uint64_t mn_major(int step, int column = 0) const {
        return matrix_descriptor(data + column / 64 * kPart + step * 16 * kRowBytes, kPart, kPattern,
                                 Swizzle::Bytes128);
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

}  // namespace llmc::cuda
