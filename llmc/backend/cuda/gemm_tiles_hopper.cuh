// What Hopper's matrix products are cut into: tiles of the result, parts of their sums, and the operands' tiles of
// those in a ring of stages.
#pragma once

#include "llmc/backend/cuda/gemm_hopper.h"

#include "llmc/backend/cuda/swizzled_tile.cuh"

#include <cstdint>
#include <type_traits>

namespace llmc::cuda {

struct GemmTiling {
    static constexpr int kRows = 128, kHalf = 128, kColumns = 2 * kHalf, kK = 64, kSteps = kK / 16;
    static constexpr int kConsumers = kRows / kConsumerRows, kThreads = (1 + kConsumers) * kWarpgroupSize;
    static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
    static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 65536 / kThreads / 8 * 8 * 3, "the pool");
    /// Of the tile's rows and of either half of its columns.
    static constexpr int kOperandBytes = kHalf * kK * static_cast<int>(sizeof(bf16));
    static_assert(kRows == kHalf);
    static constexpr int kStages = 4, kStageBytes = 3 * kOperandBytes, kRingBytes = kStages * kStageBytes;
    static constexpr int kStagedBytes = 2 * kOperandBytes, kBytes = kRingBytes + kStagedBytes;
    static_assert(kBytes <= 226 << 10);
};

/// Which dimension an operand's rows have in memory: that which is summed, or the other one.
enum class Major : uint8_t { K, Mn };

template <HopperKind kKind>
struct GemmLayout {
    static constexpr Major kLeft = kKind == HopperKind::WeightGradient ? Major::Mn : Major::K;
    static constexpr Major kRight = kKind == HopperKind::Forward ? Major::K : Major::Mn;
    using Out = std::conditional_t<kKind == HopperKind::WeightGradient, float, bf16>;
};

/// 128 rows of the left operand, or columns of the right one, by 64 of K.
template <Major kMajor>
struct GemmOperand {
    using T_ = GemmTiling;
    using Tile =
        std::conditional_t<kMajor == Major::K, SwizzledTile<T_::kHalf, T_::kK>, SwizzledTile<T_::kK, T_::kHalf>>;
    static_assert(Tile::kBytes == T_::kOperandBytes);
    Tile tile;
    __device__ __forceinline__ explicit GemmOperand(char* data) : tile{data} {}

    __device__ __forceinline__ void load(const CUtensorMap* map, uint64_t* barrier, int first, int k) const {
        if constexpr (kMajor == Major::K)
            tile.load(map, barrier, 0, first, 0, k);
        else
            tile.load(map, barrier, 0, k, 0, first);
    }
    /// From `first` on, a multiple of 64. What follows the tile in memory is its continuation.
    __device__ __forceinline__ uint64_t descriptor(int first, int step) const {
        return kMajor == Major::K ? tile.k_major(first, step) : tile.mn_major(step, first);
    }
};

/// Which tiles there are, each in so many parts of K, and in which order: all of a part; of them groups of 16 tiles of
/// rows, column after column of each, so that what blocks load at the same time is shared in the cache.
struct GemmTiles {
    int rows, columns;  ///< In tiles.
    int parts;
    __device__ __forceinline__ int count() const { return rows * columns * parts; }
};

/// What a block sums at a time.
struct GemmPlace {
    int part, row, first_column;  ///< The first of its rows, and of its columns.
    int apart;                    ///< How far the halves of its columns are.
    int first_k, end_k;
    __device__ __forceinline__ int column(int half) const { return first_column + half * apart; }

    /// The halves of a tile of a paired product lie half its columns apart.
    __device__ __forceinline__ GemmPlace(const HopperProduct& product, const GemmTiles& tiles, bool paired, int index) {
        using T_ = GemmTiling;
        constexpr int kGroup = 16;
        const int of_part = tiles.rows * tiles.columns;
        part = index / of_part;
        const int tile = index - part * of_part;
        const int first = tile / (kGroup * tiles.columns) * kGroup, in_group = tile - first * tiles.columns;
        const int height = min(kGroup, tiles.rows - first);
        row = (first + in_group % height) * T_::kRows;
        first_column = in_group / height * (paired ? T_::kHalf : T_::kColumns);
        apart = paired ? product.columns / 2 : T_::kHalf;
        const int64_t steps = (product.depth + T_::kK - 1) / T_::kK;
        first_k = static_cast<int>(steps * part / tiles.parts) * T_::kK;
        end_k = static_cast<int>(steps * (part + 1) / tiles.parts) * T_::kK;
    }
};

/// A place in the ring.
struct GemmStage {
    int index = 0, parity = 0;
    __device__ __forceinline__ void advance() {
        index = (index + 1) % GemmTiling::kStages;
        parity ^= index == 0 ? 1 : 0;
    }
};

}  // namespace llmc::cuda
