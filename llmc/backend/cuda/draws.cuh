// Random bits on the device, by counters (Philox-4x32-10, Salmon et al. 2011): a thread takes the eight elements of one
// counter, which it loads and stores at once.
#pragma once

#include "llmc/backend/cuda/elements.cuh"

namespace llmc::cuda {

constexpr int kDraws = 8;

/// The random bits of eight elements.
struct Draw {
    uint32_t words[4];
    __device__ __forceinline__ uint32_t bits(int i) const { return (words[i / 2] >> (16 * (i % 2))) & 0xffffu; }
};

__device__ __forceinline__ Draw philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = static_cast<uint64_t>(0xD2511F53u) * c0;
        const uint64_t product1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
        c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
        c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
        c1 = static_cast<uint32_t>(product1);
        c3 = static_cast<uint32_t>(product0);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

__device__ __forceinline__ bool is_aligned(const void* address) {
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

/// `count` of eight elements in fp32, the others 0; at once where all are there and the address is a multiple of 16.
__device__ __forceinline__ void load_floats(float (&x)[kDraws], const float* from, int count) {
    if (count == kDraws && is_aligned(from)) {
#pragma unroll
        for (int half = 0; half < kDraws; half += 4) {
            const Group<float, 4> group = load_group_streaming<4>(from + half);
#pragma unroll
            for (int k = 0; k < 4; ++k) x[half + k] = group[k];
        }
        return;
    }
#pragma unroll
    for (int k = 0; k < kDraws; ++k) x[k] = k < count ? from[k] : 0.0f;
}
__device__ __forceinline__ void load_floats(float (&x)[kDraws], const bf16* from, int count) {
    if (count == kDraws && is_aligned(from)) {
        const Group<bf16, kDraws> group = load_group_streaming<kDraws>(from);
#pragma unroll
        for (int k = 0; k < kDraws; ++k) x[k] = to_float(group[k]);
        return;
    }
#pragma unroll
    for (int k = 0; k < kDraws; ++k) x[k] = k < count ? to_float(from[k]) : 0.0f;
}

template <typename T>
__device__ __forceinline__ void store_elements(T* to, const Group<T, kDraws>& group, int count) {
    if (count == kDraws && is_aligned(to)) return store_group(to, group);
#pragma unroll
    for (int k = 0; k < kDraws; ++k)
        if (k < count) to[k] = group[k];
}
__device__ __forceinline__ void store_fp32(float* to, const float (&x)[kDraws], int count) {
    if (count == kDraws && is_aligned(to)) return store_floats(to, x);
#pragma unroll
    for (int k = 0; k < kDraws; ++k)
        if (k < count) to[k] = x[k];
}
__device__ __forceinline__ void store_nearest(bf16* to, const float (&x)[kDraws], int count) {
    Group<bf16, kDraws> group;
#pragma unroll
    for (int k = 0; k < kDraws; ++k) group[k] = from_float<bf16>(x[k]);
    store_elements(to, group, count);
}

}  // namespace llmc::cuda
