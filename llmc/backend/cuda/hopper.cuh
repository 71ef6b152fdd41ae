// For kernels of compute capability 9.0 (files *_hopper.cu, compiled for sm_90a alone): the instructions of
// language_hopper.cuh, and the descriptors of wgmma's operands in shared memory.
#pragma once

#include "llmc/backend/cuda/device.cuh"

#ifdef LLMC_CUDA_ON_CPU
#include "dev/cuda_on_cpu/language_hopper.h"
#else
#include "llmc/backend/cuda/language_hopper.cuh"
#endif

#include <cstdint>

namespace llmc::cuda {

constexpr int kWarpgroupSize = 128;

/// Which of the block's warpgroups this is; the compiler knows that a warp's lanes agree.
__device__ __forceinline__ int warpgroup() {
    return __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kWarpgroupSize, 0);
}

/// Which 16-byte chunks of a tile change places: chunk c of the row r of so many bytes lies at c ^ r % 8 (128 bytes),
/// c ^ r / 2 % 4 (64), c ^ r / 4 % 2 (32).
enum class Swizzle : uint64_t { None = 0, Bytes128 = 1, Bytes64 = 2, Bytes32 = 3 };

/// The descriptor of a tile ("matrix descriptor" in the PTX ISA). With a swizzle of S bytes, the tile has rows of S
/// bytes, along K if it is K-major, else along the other dimension; `stride` is 8·S for rows that follow each other,
/// `leading` how far the next S bytes of that other dimension are. Without, 8x16-byte matrices lie `leading` bytes
/// apart along K, `stride` along the other dimension.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* tile, int leading, int stride, Swizzle swizzle) {
    return (shared_address(tile) & 0x3ffffu) >> 4 | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 |
           static_cast<uint64_t>(swizzle) << 62;
}

}  // namespace llmc::cuda
