// What the bf16 kernels of attention share: tiles of a head's rows in shared memory, and products of tiles by warps on
// tensor cores (mma.sync m16n8k16, fp32 sums).
//
// A tile has kHD columns, the head size rounded up to 32, 64 or 128, with zeros beyond the head's own columns and
// beyond the sequence's rows. Its 16-byte chunks are permuted within each row such that eight rows of one chunk column,
// which is what ldmatrix reads at a time, lie in different banks.
#pragma once

#include "llmc/backend/cuda/attention_heads.cuh"

#include <cstdint>

namespace llmc::cuda {

/// Where the chunk of 8 columns of a row begins, in elements.
template <int kHD>
__device__ __forceinline__ int tile_offset(int row, int chunk) {
    const int twist = kHD >= 64 ? row & 7 : (row >> 1) & 3;  // a row of 32 columns fills only half of the banks
    return row * kHD + (chunk ^ twist) * 8;
}

/// Starts copying rows [first, first + kRows) of a head into a tile; the block's kThreads threads share the work. The
/// caller commits and waits. Rows that are not aligned to 16 bytes are copied at once, element by element.
template <int kRows, int kHD, int kThreads>
__device__ __forceinline__ void copy_tile(bf16* tile, const HeadRows<const bf16>& head, int first, int T, int HD,
                                          bool aligned) {
    if (aligned) {
        constexpr int kChunks = kHD / 8;
        static_assert(kRows * kChunks % kThreads == 0 && kThreads % kChunks == 0);
        const int chunk = threadIdx.x % kChunks;
#pragma unroll
        for (int i = 0; i < kRows * kChunks / kThreads; ++i) {
            const int row = threadIdx.x / kChunks + i * (kThreads / kChunks);
            const bool valid = first + row < T && chunk * 8 < HD;
            cp_async_16_or_zero(tile + tile_offset<kHD>(row, chunk), head.row(first + row) + chunk * 8, valid);
        }
    } else {
        const int column = threadIdx.x % kHD;
#pragma unroll 1
        for (int row = threadIdx.x / kHD; row < kRows; row += kThreads / kHD) {
            const bool valid = first + row < T && column < HD;
            tile[tile_offset<kHD>(row, column / 8) + column % 8] =
                valid ? head.row(first + row)[column] : from_float<bf16>(0.0f);
        }
    }
}

/// Which chunk a lane names when a warp loads the 16x16 elements at row 16·i (added by the caller) and column 16·step:
/// of the first eight rows the left and the right half, then of the other eight. It is the same for all operands, so
/// that the compiler keeps one set of offsets.
template <int kHD>
__device__ __forceinline__ int fragment_offset(int step) {
    const int lane = threadIdx.x % kWarpSize;
    return tile_offset<kHD>(lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2);
}

/// The left operand of a product, kTiles·16 rows of a tile from `row` on, as fragments: read whenever they are needed,
template <int kHD>
struct SharedRows {
    const bf16* tile;
    int row;
    __device__ __forceinline__ void load(uint32_t (&a)[4], int i, int step) const {
        uint32_t r[4];
        ldmatrix_x4(r, tile + (row + 16 * i) * kHD + fragment_offset<kHD>(step));
        a[0] = r[0], a[1] = r[2], a[2] = r[1], a[3] = r[3];
    }
};
/// or held in registers.
template <int kHD, int kTiles>
struct RegisterRows {
    uint32_t fragments[kTiles][kHD / 16][4];
    __device__ __forceinline__ explicit RegisterRows(const SharedRows<kHD>& rows) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i)
#pragma unroll
            for (int step = 0; step < kHD / 16; ++step) rows.load(fragments[i][step], i, step);
    }
    __device__ __forceinline__ void load(uint32_t (&a)[4], int i, int step) const {
#pragma unroll
        for (int r = 0; r < 4; ++r) a[r] = fragments[i][step][r];
    }
};

template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void clear(float (&x)[kRowTiles][kColumnTiles][4]) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) x[i][j][e] = 0;
}

/// Hides keys after their query, or outside its window, in scores of 16·kRowTiles queries (or keys, if transposed) and
/// 8·kColumnTiles keys (or queries). `keys_ahead` is the position of the first key minus that of the first query.
template <bool kTransposed, int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void mask_unseen(float (&scores)[kRowTiles][kColumnTiles][4], int keys_ahead, int window) {
    const int lane = threadIdx.x % kWarpSize, row = lane / 4, column = lane % 4 * 2;
    const int query_minus_key = (kTransposed ? column - row : row - column) - keys_ahead;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int rows = 16 * i + e / 2 * 8, columns = 8 * j + e % 2;
                const int behind = query_minus_key + (kTransposed ? columns - rows : rows - columns);
                // Seen where 0 <= behind < window.
                if (static_cast<unsigned>(behind) >= static_cast<unsigned>(window)) scores[i][j][e] = -INFINITY;
            }
}

/// Hides keys, from position `first_key` on, before the documents of their queries, from `first_query` on, begin.
template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void hide_other_documents(float (&scores)[kRowTiles][kColumnTiles][4],
                                                     const AttentionSizes& sizes, int b, int first_query,
                                                     int first_key) {
    const int lane = threadIdx.x % kWarpSize, column = first_key + lane % 4 * 2;
    if (sizes.document_start(b, first_query + 16 * kRowTiles - 1) <= first_key) return;  // Of the last query.
#pragma unroll
    for (int r = 0; r < 2 * kRowTiles; ++r) {
        const int document = sizes.document_start(b, first_query + 8 * r + lane / 4);
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
                if (column + 8 * j + e < document) scores[r / 2][j][r % 2 * 2 + e] = -INFINITY;
    }
}
/// The same of scores whose rows are keys, from position `first_key` on, and whose columns are queries.
template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void hide_other_documents_transposed(float (&scores)[kRowTiles][kColumnTiles][4],
                                                                const AttentionSizes& sizes, int b, int first_query,
                                                                int first_key) {
    const int lane = threadIdx.x % kWarpSize;
    if (sizes.document_start(b, first_query + 8 * kColumnTiles - 1) <= first_key) return;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            const int hidden = sizes.document_start(b, first_query + 8 * j + lane % 4 * 2 + c) - first_key - lane / 4;
#pragma unroll
            for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    if (16 * i + 8 * half < hidden) scores[i][j][2 * half + c] = -INFINITY;
        }
}

/// out = left · rightᵀ: dot products of a warp's kRowTiles·16 rows with the kColumnTiles·8 rows of a tile from `first`.
/// As everywhere here, out[i][j] is the accumulator fragment of rows 16·i and columns 8·j.
template <int kHD, int kRowTiles, int kColumnTiles, typename Left>
__device__ __forceinline__ void multiply_transposed(float (&out)[kRowTiles][kColumnTiles][4], const Left& left,
                                                    const bf16* right, int first) {
    clear(out);
#pragma unroll
    for (int step = 0; step < kHD / 16; ++step) {
        uint32_t a[kRowTiles][4];
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) left.load(a[i], i, step);
#pragma unroll
        for (int j = 0; j < kColumnTiles; j += 2) {
            uint32_t r[4];
            ldmatrix_x4(r, right + (first + 8 * j) * kHD + fragment_offset<kHD>(step));
            const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
#pragma unroll
            for (int i = 0; i < kRowTiles; ++i) {
                mma_m16n8k16(out[i][j], a[i], b[0]);
                mma_m16n8k16(out[i][j + 1], a[i], b[1]);
            }
        }
    }
}

/// out += left · right: `left` is accumulators, rounded to bf16, whose columns belong to the rows of a tile from
/// `first`.
template <int kHD, int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void multiply_add(float (&out)[kRowTiles][kHD / 8][4],
                                             const float (&left)[kRowTiles][kColumnTiles][4], const bf16* right,
                                             int first) {
#pragma unroll
    for (int step = 0; step < kColumnTiles / 2; ++step) {
        uint32_t a[kRowTiles][4];
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const float(&from)[4] = left[i][2 * step + r / 2];
                a[i][r] = bf16_pair(from[r % 2 * 2], from[r % 2 * 2 + 1]);
            }
#pragma unroll
        for (int j = 0; j < kHD / 8; j += 2) {
            uint32_t r[4];
            ldmatrix_x4_trans(r, right + (first + 16 * step) * kHD + fragment_offset<kHD>(j / 2));
            const uint32_t b[2][2] = {{r[0], r[2]}, {r[1], r[3]}};
#pragma unroll
            for (int i = 0; i < kRowTiles; ++i) {
                mma_m16n8k16(out[i][j], a[i], b[0]);
                mma_m16n8k16(out[i][j + 1], a[i], b[1]);
            }
        }
    }
}

/// Stores a warp's kRowTiles·16 rows, row `row` of each 16 times scale[2·i] or scale[2·i + 1], into a head from
/// position `first` on, through rows `row` .. of a tile that only this warp still uses.
template <int kHD, int kRowTiles>
__device__ __forceinline__ void store_rows(const HeadRows<bf16>& head, int first, int T, int HD, bool aligned,
                                           bf16* tile, int row, const float (&x)[kRowTiles][kHD / 8][4],
                                           const float (&scale)[2 * kRowTiles]) {
    const int lane = threadIdx.x % kWarpSize;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
        for (int j = 0; j < kHD / 8; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int r = row + 16 * i + 8 * half + lane / 4;
                const float s = scale[2 * i + half];
                *reinterpret_cast<uint32_t*>(tile + tile_offset<kHD>(r, j) + lane % 4 * 2) =
                    bf16_pair(x[i][j][2 * half] * s, x[i][j][2 * half + 1] * s);
            }
    __syncwarp();
    const int rows = min(16 * kRowTiles, T - first);
    if (aligned) {
        constexpr int kChunks = kHD / 8;
        const int chunk = lane % kChunks;
        if (chunk * 8 < HD)
            for (int r = lane / kChunks; r < rows; r += kWarpSize / kChunks)
                store128(head.row(first + r) + chunk * 8, load128(tile + tile_offset<kHD>(row + r, chunk)));
    } else {
        for (int r = 0; r < rows; ++r)
            for (int column = lane; column < HD; column += kWarpSize)
                head.row(first + r)[column] = tile[tile_offset<kHD>(row + r, column / 8) + column % 8];
    }
}

}  // namespace llmc::cuda
