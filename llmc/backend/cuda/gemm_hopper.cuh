// A matrix product of a warpgroup that loads and two that multiply, on wgmma and bulk copies (the shape of it: Shah et
// al. 2024, "FlashAttention-3", section 3.1; Bikshandi and Shah 2023, "Developing CUDA Kernels for GEMM on Hopper").
//
// Blocks stay and take tile after tile of 128 rows and twice 128 columns; the two halves may lie anywhere, which is how
// gate and up of SwiGLU meet in one block. A stage of the ring is 64 of K: rows of the left operand, columns of the
// right one for either half, as they lie in memory, K inside or outside. It has two barriers: `full`, which the copies'
// bytes complete, and `empty`, at which both consumers arrive once their products have read it. A consumer has 64 rows
// and all 256 columns, 128 sums in each thread. Loads of the next tile go on while they are stored.
#pragma once

#include "llmc/backend/cuda/gemm_epilogue_hopper.cuh"
#include "llmc/backend/cuda/gemm_tiles_hopper.cuh"

#include <cstdint>

namespace llmc::cuda {

struct GemmMaps {
    CUtensorMap left, right;
};

template <HopperKind kKind, Applied kApplied>
class HopperGemm {
    using T_ = GemmTiling;
    using Layout = GemmLayout<kKind>;
    using Left = GemmOperand<Layout::kLeft>;
    using Right = GemmOperand<Layout::kRight>;

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
        for (int index = static_cast<int>(blockIdx.x); index < tiles_.count(); index += static_cast<int>(gridDim.x)) {
            const GemmPlace place = at(index);
#pragma unroll 1
            for (int k = place.first_k; k < place.end_k; k += T_::kK) {
                uint64_t* const full = &barriers_.full[stage.index];
                barrier_wait(&barriers_.empty[stage.index], stage.parity ^ 1);
                barrier_arrive_expect(full, T_::kStageBytes);
                left(stage).load(&maps.left, full, place.row, k);
                for (int half = 0; half < 2; ++half) right(stage, half).load(&maps.right, full, place.column(half), k);
                stage.advance();
            }
        }
    }

    /// By a warpgroup.
    __device__ __forceinline__ void consume() const {
        const int first_row = (static_cast<int>(threadIdx.x) / kWarpgroupSize - 1) * kConsumerRows;
        const GemmEpilogue<typename Layout::Out, kApplied> epilogue(product_, memory_ + T_::kRingBytes);
        float sums[T_::kColumns / 2];
        GemmStage stage;
#pragma unroll 1
        for (int index = static_cast<int>(blockIdx.x); index < tiles_.count(); index += static_cast<int>(gridDim.x)) {
            const GemmPlace place = at(index);
            wgmma_fence(sums);
            int last = 0;
#pragma unroll 1
            for (int k = place.first_k; k < place.end_k; k += T_::kK) {
                barrier_wait(&barriers_.full[stage.index], stage.parity);
                wgmma_fence();
                // The second half follows the first in memory: to wgmma they are 256 columns.
                const Left rows = left(stage);
                const Right columns = right(stage, 0);
#pragma unroll
                for (int step = 0; step < T_::kSteps; ++step)
                    wgmma<T_::kColumns, Layout::kLeft == Major::Mn, Layout::kRight == Major::Mn>(
                        sums, rows.descriptor(first_row, step), columns.descriptor(0, step),
                        k > place.first_k || step > 0);
                wgmma_commit();
                wgmma_wait<1>();
                if (k > place.first_k) release(last);
                last = stage.index;
                stage.advance();
            }
            wgmma_wait<0>(sums);
            release(last);
            epilogue.store(place, first_row, sums);
        }
    }

  private:
    __device__ __forceinline__ GemmPlace at(int index) const {
        return GemmPlace(product_, tiles_, kApplied == Applied::Swiglu, index);
    }
    __device__ __forceinline__ Left left(const GemmStage& stage) const {
        return Left(memory_ + stage.index * T_::kStageBytes);
    }
    __device__ __forceinline__ Right right(const GemmStage& stage, int half) const {
        return Right(memory_ + stage.index * T_::kStageBytes + (1 + half) * T_::kOperandBytes);
    }
    __device__ __forceinline__ void release(int stage) const {
        if (threadIdx.x % kWarpgroupSize == 0) barrier_arrive(&barriers_.empty[stage]);
    }

    const HopperProduct& product_;
    const GemmTiles& tiles_;
    Barriers& barriers_;
    char* memory_;
};

template <HopperKind kKind, Applied kApplied>
__global__ void __launch_bounds__(GemmTiling::kThreads, 1)
    gemm_hopper_kernel(const __grid_constant__ HopperProduct product, const __grid_constant__ GemmTiles tiles,
                       const __grid_constant__ GemmMaps maps) {
    using Gemm = HopperGemm<kKind, kApplied>;
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
