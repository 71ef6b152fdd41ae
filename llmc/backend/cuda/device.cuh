// The one header that kernels include: what the device language has beyond C++, and the small helpers they share.
//
// language.cuh holds what only nvcc understands (shared memory, PTX, the launch); in the test build, where kernels run
// on the CPU, its twin gives the same names the same meaning. Kernels themselves use neither asm nor __shared__. What a
// file has for itself is in an inline namespace of its name, never in an unnamed one (dev/notes/security.md).
#pragma once

#include "llmc/backend/cuda/check.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#ifdef LLMC_CUDA_ON_CPU
#include "dev/cuda_on_cpu/language.h"
#else
#include "llmc/backend/cuda/language.cuh"
#endif

#include <cstdint>
#include <utility>

namespace llmc::cuda {

using bf16 = __nv_bfloat16;

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

/// Starts kernel<<<grid, block, shared_bytes, stream>>>(arguments...); fails with the kernel's name if that cannot be.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), shared_bytes);
    const cudaError_t status =
        start_kernel(kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
    if (status != cudaSuccess) launch_failed(reinterpret_cast<const void*>(kernel), status);
}

// ---- numbers ------------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

/// Rounded to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float x) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return x;
    } else {
        return __float2bfloat16_rn(x);
    }
}

/// Two values as the bf16 pair of one register, `low` in the lower half (the lower column or row of a fragment).
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    __builtin_memcpy(&bits, &pair, sizeof bits);
    return bits;
}

// ---- 128-bit accesses -----------------------------------------------------------------------------

/// 16 bytes of T: what one memory instruction moves at best.
template <typename T>
struct alignas(16) Pack {
    static constexpr int kSize = 16 / sizeof(T);
    T values[kSize];
    __device__ __forceinline__ T& operator[](int i) { return values[i]; }
    __device__ __forceinline__ const T& operator[](int i) const { return values[i]; }
};

/// Addresses must be multiples of 16.
template <typename T>
__device__ __forceinline__ Pack<T> load128(const T* from) {
    const int4 bits = *reinterpret_cast<const int4*>(from);
    Pack<T> pack;
    __builtin_memcpy(static_cast<void*>(&pack), &bits, sizeof pack);
    return pack;
}
template <typename T>
__device__ __forceinline__ void store128(T* to, const Pack<T>& pack) {
    int4 bits;
    __builtin_memcpy(&bits, &pack, sizeof bits);
    *reinterpret_cast<int4*>(to) = bits;
}

// ---- reductions -------------------------------------------------------------------------------------

/// Sum (float or double) or maximum over the 32 lanes, in a fixed order; every lane gets it. All lanes must call.
template <typename Real>
__device__ __forceinline__ Real warp_sum(Real x) {
#pragma unroll
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kFullMask, x, offset);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kFullMask, x, offset));
    return x;
}

/// Over all threads of a one-dimensional block of whole warps, in a fixed order; every thread gets it. All threads
/// must call. Two barriers, so that a call may follow a call.
template <typename Real>
__device__ __forceinline__ Real block_sum(Real x) {
    SHARED(Real[kWarpSize], warp_sums);
    const int lane = threadIdx.x % kWarpSize, warps = blockDim.x / kWarpSize;
    x = warp_sum(x);
    if (lane == 0) warp_sums[threadIdx.x / kWarpSize] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? warp_sums[lane] : Real(0));
    __syncthreads();
    return x;
}
__device__ __forceinline__ float block_max(float x) {
    SHARED(float[kWarpSize], warp_maxima);
    const int lane = threadIdx.x % kWarpSize, warps = blockDim.x / kWarpSize;
    x = warp_max(x);
    if (lane == 0) warp_maxima[threadIdx.x / kWarpSize] = x;
    __syncthreads();
    x = warp_max(lane < warps ? warp_maxima[lane] : -INFINITY);
    __syncthreads();
    return x;
}

}  // namespace llmc::cuda
