// Elements of tensors as memory-bound kernels see them: typed pointers, groups of consecutive elements that one
// memory instruction moves, arithmetic at the accuracy of the type, and launches over all elements. Kernels are
// instantiated for whole groups and for single elements; the host chooses by sizes and addresses.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cuda/device.cuh"
#include "llmc/base/check.h"
#include "llmc/base/tensor.h"
#include "llmc/base/units.h"

#include <initializer_list>
#include <type_traits>

namespace llmc::cuda {

/// The elements of a tensor, with the type checked; null if the tensor is empty.
template <typename T>
T* elements_of(Tensor tensor) {
    if (!tensor) return nullptr;
    if constexpr (std::is_same_v<std::remove_const_t<T>, bf16>) {
        return reinterpret_cast<T*>(tensor.as<llmc::bf16>());
    } else {
        return tensor.as<T>();
    }
}

/// What kernels take of a FirstPosition.
struct Position {
    int64_t offset;
    const int32_t* more;
    __device__ __forceinline__ int64_t value() const { return more ? offset + *more : offset; }
};
inline Position position_of(const FirstPosition& first) {
    return {first.offset, elements_of<const int32_t>(first.on_device)};
}

/// Whether all addresses are multiples of 16 (null is).
inline bool all_aligned(std::initializer_list<const void*> addresses) {
    for (const void* address : addresses)
        if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return false;
    return true;
}

/// The most blocks of a grid in its second and third dimension.
constexpr int64_t kMaxGridRows = 65535;

/// A grid of so many blocks.
inline dim3 blocks_of(int64_t count, int64_t rows = 1) {
    CHECK(count > 0 && count <= 0x7fffffff && rows > 0 && rows <= kMaxGridRows, count, rows);
    return dim3(static_cast<unsigned>(count), static_cast<unsigned>(rows));
}

/// kSize consecutive elements; their address must be a multiple of the group's size, at most 16 bytes.
template <typename T, int kSize>
struct alignas(kSize * sizeof(T)) Group {
    T values[kSize];
    __device__ __forceinline__ T& operator[](int i) { return values[i]; }
    __device__ __forceinline__ const T& operator[](int i) const { return values[i]; }
};

/// As many bytes as one instruction moves.
template <int kBytes>
using Bits =
    std::conditional_t<kBytes == 16, int4,
                       std::conditional_t<kBytes == 8, int2, std::conditional_t<kBytes == 4, int32_t, unsigned short>>>;

template <int kSize, typename T>
__device__ __forceinline__ Group<T, kSize> load_group(const T* from) {
    const auto bits = *reinterpret_cast<const Bits<kSize * sizeof(T)>*>(from);
    Group<T, kSize> group;
    __builtin_memcpy(&group, &bits, sizeof group);
    return group;
}
/// Streaming variants are for data that nobody reads again soon.
template <int kSize, typename T>
__device__ __forceinline__ Group<T, kSize> load_group_streaming(const T* from) {
    const auto bits = __ldcs(reinterpret_cast<const Bits<kSize * sizeof(T)>*>(from));
    Group<T, kSize> group;
    __builtin_memcpy(&group, &bits, sizeof group);
    return group;
}
template <int kSize, typename T>
__device__ __forceinline__ void store_group(T* to, const Group<T, kSize>& group) {
    Bits<kSize * sizeof(T)> bits;
    __builtin_memcpy(&bits, &group, sizeof bits);
    *reinterpret_cast<Bits<kSize * sizeof(T)>*>(to) = bits;
}
template <int kSize, typename T>
__device__ __forceinline__ void store_group_streaming(T* to, const Group<T, kSize>& group) {
    Bits<kSize * sizeof(T)> bits;
    __builtin_memcpy(&bits, &group, sizeof bits);
    __stcs(reinterpret_cast<Bits<kSize * sizeof(T)>*>(to), bits);
}

/// kSize floats, 16 bytes at a time where there are as many; then the address must be a multiple of 16.
template <int kSize>
__device__ __forceinline__ void store_floats(float* to, const float (&values)[kSize]) {
    constexpr int kStep = kSize % 4 == 0 ? 4 : 1;
#pragma unroll
    for (int i = 0; i < kSize; i += kStep) {
        Group<float, kStep> group;
#pragma unroll
        for (int j = 0; j < kStep; ++j) group[j] = values[i + j];
        store_group(to + i, group);
    }
}
/// to += values.
template <int kSize>
__device__ __forceinline__ void add_floats(float* to, const float (&values)[kSize]) {
    constexpr int kStep = kSize % 4 == 0 ? 4 : 1;
#pragma unroll
    for (int i = 0; i < kSize; i += kStep) {
        Group<float, kStep> group = load_group<kStep>(to + i);
#pragma unroll
        for (int j = 0; j < kStep; ++j) group[j] += values[i + j];
        store_group(to + i, group);
    }
}

// ---- arithmetic for results of type T: full accuracy for fp32, the hardware's approximation for bf16 ------------

template <typename T>
__device__ __forceinline__ float exponential(float x) {
    if constexpr (std::is_same_v<T, bf16>) {
        return __expf(x);
    } else {
        return expf(x);
    }
}
template <typename T>
__device__ __forceinline__ float reciprocal(float x) {
    if constexpr (std::is_same_v<T, bf16>) {
        return __fdividef(1.0f, x);
    } else {
        return 1.0f / x;
    }
}

// ---- launches ---------------------------------------------------------------------------------------------------

constexpr int kElementThreads = 256;

/// The first element of this thread's group, in a launch by launch_elementwise().
template <int kSize>
__device__ __forceinline__ int64_t group_begin() {
    return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kSize;
}

/// Starts a kernel (count, tensors...) over `count` elements: `groups`, whose threads take kSize elements each, where
/// the addresses allow it, and `singles` for the rest.
template <int kSize, typename... T>
void launch_elementwise(void (*groups)(int64_t, T*...), void (*singles)(int64_t, T*...), cudaStream_t stream,
                        int64_t count, std::type_identity_t<T*>... tensors) {
    const int64_t grouped = all_aligned({tensors...}) ? count / kSize * kSize : 0;
    const auto start = [&](auto kernel, int64_t first, int64_t threads, int64_t elements) {
        if (elements > 0)
            launch(kernel, blocks_of(ceil_div(threads, kElementThreads)), kElementThreads, 0, stream, elements,
                   tensors + first...);
    };
    start(groups, 0, grouped / kSize, grouped);
    start(singles, grouped, count - grouped, count - grouped);
}

/// How rows are cut for kernels whose blocks take a piece of one row each: `threads` in a block, a group of elements
/// each, and `pieces` blocks to a row. Block b does piece b % pieces of row b / pieces.
struct RowPieces {
    int threads;
    int64_t pieces;

    RowPieces(int64_t columns, int group_size) {
        const int64_t groups = ceil_div(columns, group_size);
        threads = static_cast<int>(groups < kElementThreads ? round_up(groups, kWarpSize) : kElementThreads);
        pieces = ceil_div(groups, threads);
    }
};

}  // namespace llmc::cuda
