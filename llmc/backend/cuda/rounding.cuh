// Stochastic rounding on the device, by the counters of base/stochastic_rounding.h: a thread takes the eight elements
// of one counter.
#pragma once

#include "llmc/backend/cuda/optimizer.cuh"
#include "llmc/base/stochastic_rounding.h"

namespace llmc::cuda {

constexpr int kDraws = 8;
static_assert(kDraws == kDrawsOfCounter);

struct RoundingKey {
    uint32_t words[2];
};
inline RoundingKey key_of(uint64_t seed) {
    const auto words = rounding_key(seed);
    return {{words[0], words[1]}};
}

__device__ __forceinline__ uint32_t control_of(const double* controls, UpdateControl control) {
    return static_cast<uint32_t>(static_cast<unsigned long long>(controls[static_cast<int>(control)]));
}

/// The random bits of eight elements.
struct Draw {
    uint32_t words[4];
    __device__ __forceinline__ uint32_t bits(int i) const { return (words[i / 2] >> (16 * (i % 2))) & 0xffffu; }
};

class Rounding {
  public:
    __device__ Rounding(const RoundingKey& key, const double* controls, uint32_t micro_batch)
        : key_(key), update_(control_of(controls, UpdateControl::Updates)), micro_batch_(micro_batch) {}

    /// Of elements [element, element + 8) of a row; element is a multiple of 8. Philox-4x32-10.
    __device__ __forceinline__ Draw draw(RoundedBuffer buffer, int row, int64_t element) const {
        const uint64_t group = static_cast<uint64_t>(element) / kDraws;
        const uint32_t place = static_cast<uint32_t>(row) << 8 | static_cast<uint32_t>(buffer) << 4 |
                               (static_cast<uint32_t>(group >> 32) & 15u);
        uint32_t c0 = static_cast<uint32_t>(group), c1 = place, c2 = update_, c3 = micro_batch_;
        uint32_t k0 = key_.words[0], k1 = key_.words[1];
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

  private:
    RoundingKey key_;
    uint32_t update_, micro_batch_;
};

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
/// Rounded stochastically; a NaN stays one.
__device__ __forceinline__ void store_rounded(bf16* to, const float (&x)[kDraws], int count, const Draw& draw) {
    Group<bf16, kDraws> group;
#pragma unroll
    for (int k = 0; k < kDraws; ++k) {
        uint32_t bits;
        __builtin_memcpy(&bits, &x[k], sizeof bits);
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        const auto upper = static_cast<unsigned short>((is_nan ? bits | 0x00400000u : bits + draw.bits(k)) >> 16);
        __builtin_memcpy(static_cast<void*>(&group[k]), &upper, sizeof upper);
    }
    store_elements(to, group, count);
}

}  // namespace llmc::cuda
