// A matrix product of a warpgroup that loads and two that multiply, on wgmma and bulk copies (the shape of it: Shah et
// al. 2024, "FlashAttention-3", section 3.1; Bikshandi and Shah 2023, "Developing CUDA Kernels for GEMM on Hopper").
//
// Blocks stay and take tile after tile of 128 rows and twice 128 columns; the two halves may lie anywhere, which is how
// gate and up of SwiGLU meet in one block. A stage of the ring is 64 of K: rows of x, rows of weight for either half.
// It has two barriers: `full`, which the copies' bytes complete, and `empty`, at which both consumers arrive once their
// products have read it. A consumer has 64 rows and all 256 columns, 128 sums in each thread. They leave through shared
// memory, a warp's 16 rows at a time, so that a row's 64 columns are one access; there the bias, the residual and the
// activation join. Loads of the next tile go on meanwhile.
#pragma once

#include "llmc/backend/cuda/gemm_hopper.h"

#include "llmc/backend/cuda/activation.cuh"
#include "llmc/backend/cuda/swizzled_tile.cuh"

#include <cstdint>

namespace llmc::cuda {

struct GemmTiling {
    static constexpr int kRows = 128, kHalf = 128, kColumns = 2 * kHalf, kK = 64, kSteps = kK / 16;
    static constexpr int kConsumers = kRows / kConsumerRows, kThreads = (1 + kConsumers) * kWarpgroupSize;
    static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
    static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= 65536 / kThreads / 8 * 8 * 3, "the pool");
    using Tile = SwizzledTile<128, kK>;  ///< Of rows and of either half; staged sums have the same form.
    static constexpr int kStages = 4, kStageBytes = 3 * Tile::kBytes;
    static constexpr int kBytes = kStages * kStageBytes + 2 * Tile::kBytes;
    static_assert(kBytes <= 226 << 10);
};

/// Which tiles there are, and in which order: groups of 16 tiles of rows, column after column of each, so that what
/// blocks load at the same time is shared in the cache.
struct GemmTiles {
    int rows, columns;  ///< In tiles.
    __device__ __forceinline__ int count() const { return rows * columns; }
    __device__ __forceinline__ void place(int tile, int* row, int* column) const {
        constexpr int kGroup = 16;
        const int first = tile / (kGroup * columns) * kGroup, in_group = tile - first * columns;
        const int height = min(kGroup, rows - first);
        *row = first + in_group % height;
        *column = in_group / height;
    }
};

struct GemmMaps {
    CUtensorMap x, weight;
};

/// A place in the ring.
struct GemmStage {
    int index = 0, parity = 0;
    __device__ __forceinline__ void advance() {
        index = (index + 1) % GemmTiling::kStages;
        parity ^= index == 0 ? 1 : 0;
    }
};

template <Applied kApplied>
class HopperGemm {
    using T_ = GemmTiling;
    using Tile = T_::Tile;

  public:
    struct Barriers {
        uint64_t full[T_::kStages], empty[T_::kStages];
        __device__ __forceinline__ void init() {
            for (int stage = 0; stage < T_::kStages; ++stage) {
                barrier_init(&full[stage], 1);
                barrier_init(&empty[stage], T_::kConsumers);
            }
            barrier_fence_init();
        }
    };

    __device__ __forceinline__ HopperGemm(const HopperProduct& product, const GemmTiles& tiles, Barriers& barriers,
                                          char* memory)
        : product_(product), tiles_(tiles), barriers_(barriers), memory_(memory) {}

    /// By one thread.
    __device__ __forceinline__ void produce(const GemmMaps& maps) const {
        GemmStage stage;
#pragma unroll 1
        for (int tile = static_cast<int>(blockIdx.x); tile < tiles_.count(); tile += static_cast<int>(gridDim.x)) {
            const Place place(*this, tile);
#pragma unroll 1
            for (int k = 0; k < product_.IC; k += T_::kK) {
                uint64_t* const full = &barriers_.full[stage.index];
                barrier_wait(&barriers_.empty[stage.index], stage.parity ^ 1);
                barrier_arrive_expect(full, T_::kStageBytes);
                of_stage(stage, 0).load(&maps.x, full, 0, place.row, 0, k);
                for (int half = 0; half < 2; ++half)
                    of_stage(stage, 1 + half).load(&maps.weight, full, 0, place.column[half], 0, k);
                stage.advance();
            }
        }
    }

    /// By a warpgroup.
    __device__ __forceinline__ void consume() const {
        const int first_row = (static_cast<int>(threadIdx.x) / kWarpgroupSize - 1) * kConsumerRows;
        float sums[T_::kColumns / 2];
        GemmStage stage;
#pragma unroll 1
        for (int tile = static_cast<int>(blockIdx.x); tile < tiles_.count(); tile += static_cast<int>(gridDim.x)) {
            wgmma_fence(sums);
            int last = 0;
#pragma unroll 1
            for (int k = 0; k < product_.IC; k += T_::kK) {
                barrier_wait(&barriers_.full[stage.index], stage.parity);
                wgmma_fence();
                // The second half follows the first in memory: to wgmma they are 256 rows.
                const Tile rows = of_stage(stage, 0), columns = of_stage(stage, 1);
#pragma unroll
                for (int step = 0; step < T_::kSteps; ++step)
                    wgmma<T_::kColumns, false, false>(sums, rows.k_major(first_row, step), columns.k_major(0, step),
                                                      k + step > 0);
                wgmma_commit();
                wgmma_wait<1>();
                if (k > 0) release(last);
                last = stage.index;
                stage.advance();
            }
            wgmma_wait<0>(sums);
            release(last);
            store(Place(*this, tile), first_row, sums);
        }
    }

  private:
    struct Place {
        int row, column[2];  ///< The first of its rows, and of either half.
        __device__ __forceinline__ Place(const HopperGemm& gemm, int tile) {
            int tile_column;
            gemm.tiles_.place(tile, &row, &tile_column);
            row *= T_::kRows;
            constexpr bool kPaired = kApplied == Applied::Swiglu;
            column[0] = tile_column * (kPaired ? T_::kHalf : T_::kColumns);
            column[1] = column[0] + (kPaired ? gemm.product_.OC / 2 : T_::kHalf);
        }
    };

    __device__ __forceinline__ Tile of_stage(const GemmStage& stage, int tile) const {
        return {memory_ + stage.index * T_::kStageBytes + tile * Tile::kBytes};
    }
    __device__ __forceinline__ Tile staged(int half) const {
        return {memory_ + T_::kStages * T_::kStageBytes + half * Tile::kBytes};
    }
    __device__ __forceinline__ void release(int stage) const {
        if (threadIdx.x % kWarpgroupSize == 0) barrier_arrive(&barriers_.empty[stage]);
    }
    /// Whether half `half` of a tile has a column; OC is a multiple of 8, so the 8 from a multiple of 8 on are alike.
    __device__ __forceinline__ bool has_column(int half, int column) const {
        return column < (kApplied == Applied::Swiglu && half == 0 ? product_.OC / 2 : product_.OC);
    }

    __device__ __forceinline__ void store(const Place& place, int first_row, const float (&sums)[128]) const {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            __syncwarp();  // Nobody reads the part before any more.
            if (product_.residual != nullptr) {
                for_each_chunk(place, first_row, part, [&](int64_t at, int half, int row, int chunk) {
                    store128(staged_chunk(half, row, chunk), load128(product_.residual + at));
                });
                __syncwarp();
            }
            stage_sums(place, first_row, part, sums);
            __syncwarp();
            for_each_chunk(place, first_row, part, [&](int64_t at, int half, int row, int chunk) {
                const Pack<bf16> values = load128<bf16>(staged_chunk(half, row, chunk));
                store128(product_.out + at, values);
                if constexpr (kApplied == Applied::Gelu) store128(product_.activated + at, gelu(values));
                if constexpr (kApplied == Applied::Swiglu)
                    if (half == 0)
                        store128(product_.activated + at - (place.row + row) * int64_t{product_.OC / 2},
                                 swiglu(values, load128<bf16>(staged_chunk(1, row, chunk))));
            });
        }
    }
    /// work(element of out, half, row of the tile, chunk) for what a lane has of its warp's 16 rows of 64 columns in
    /// either half: 8 columns of every fourth row.
    template <typename Work>
    __device__ __forceinline__ void for_each_chunk(const Place& place, int first_row, int part, Work work) const {
        const int lane = static_cast<int>(threadIdx.x) % kWarpSize, chunk = lane % 8;
        const int warp_row = first_row + FragmentPlace().row / 16 * 16;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int column = place.column[half] + part * 64 + chunk * 8;
            if (!has_column(half, column)) continue;
#pragma unroll
            for (int r = lane / 8; r < 16; r += 4)
                if (place.row + warp_row + r < product_.N)
                    work((place.row + warp_row + r) * int64_t{product_.OC} + column, half, warp_row + r, chunk);
        }
    }
    __device__ __forceinline__ bf16* staged_chunk(int half, int row, int chunk) const {
        return reinterpret_cast<bf16*>(staged(half).chunk(row, chunk));
    }
    /// Rounds the sums of 64 columns of either half, with the bias and what was staged of the residual.
    __device__ __forceinline__ void stage_sums(const Place& place, int first_row, int part,
                                               const float (&sums)[128]) const {
        const FragmentPlace mine;
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const int in_part = 8 * j + mine.column, column = place.column[half] + part * 64 + in_part;
                const bool is_column = has_column(half, column);
                float2 bias = {0, 0};
                if (product_.bias != nullptr && is_column)
                    bias = unpacked(*reinterpret_cast<const uint32_t*>(product_.bias + column));
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int row = first_row + mine.row + 8 * h, sum = 4 * (16 * half + 8 * part + j) + 2 * h;
                    uint32_t* const pair = staged(half).pair(row, in_part);
                    float2 residual = {0, 0};
                    if (product_.residual != nullptr && is_column && place.row + row < product_.N)
                        residual = unpacked(*pair);
                    *pair = bf16_pair(sums[sum] + bias.x + residual.x, sums[sum + 1] + bias.y + residual.y);
                }
            }
    }
    /// bf16_pair() in reverse.
    __device__ __forceinline__ static float2 unpacked(uint32_t pair) {
        return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
    }
    __device__ __forceinline__ static Pack<bf16> gelu(Pack<bf16> values) {
#pragma unroll
        for (bf16& value : values.values) value = from_float<bf16>(gelu_tanh<bf16>(to_float(value)));
        return values;
    }
    __device__ __forceinline__ static Pack<bf16> swiglu(Pack<bf16> gate, const Pack<bf16>& up) {
#pragma unroll
        for (int i = 0; i < Pack<bf16>::kSize; ++i)
            gate[i] = from_float<bf16>(silu_times<bf16>(to_float(gate[i]), to_float(up[i])));
        return gate;
    }

    const HopperProduct& product_;
    const GemmTiles& tiles_;
    Barriers& barriers_;
    char* memory_;
};

template <Applied kApplied>
__global__ void __launch_bounds__(GemmTiling::kThreads, 1)
    gemm_hopper_kernel(const __grid_constant__ HopperProduct product, const __grid_constant__ GemmTiles tiles,
                       const __grid_constant__ GemmMaps maps) {
    using Gemm = HopperGemm<kApplied>;
    DYNAMIC_TILES(char, memory);
    SHARED(typename Gemm::Barriers, barriers);
    if (threadIdx.x == 0) barriers.init();
    __syncthreads();
    const Gemm gemm(product, tiles, barriers, memory);
    if (warpgroup() == 0) {
        give_registers<GemmTiling::kProducerRegisters>();
        if (threadIdx.x == 0) gemm.produce(maps);
    } else {
        take_registers<GemmTiling::kConsumerRegisters>();
        gemm.consume();
    }
}

}  // namespace llmc::cuda
