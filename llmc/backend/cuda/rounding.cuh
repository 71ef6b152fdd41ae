// Stochastic rounding on the device, by the counters of base/stochastic_rounding.h: a thread takes the eight elements
// of one counter.
#pragma once

#include "llmc/backend/cuda/draws.cuh"
#include "llmc/backend/cuda/optimizer.cuh"
#include "llmc/base/stochastic_rounding.h"

namespace llmc::cuda {

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

class Rounding {
  public:
    __device__ Rounding(const RoundingKey& key, const double* controls, uint32_t micro_batch)
        : key_(key), update_(control_of(controls, UpdateControl::Updates)), micro_batch_(micro_batch) {}

    /// Of elements [element, element + 8) of a row; element is a multiple of 8.
    __device__ __forceinline__ Draw draw(RoundedBuffer buffer, int row, int64_t element) const {
        const uint64_t group = static_cast<uint64_t>(element) / kDraws;
        const uint32_t place = static_cast<uint32_t>(row) << 8 | static_cast<uint32_t>(buffer) << 4 |
                               (static_cast<uint32_t>(group >> 32) & 15u);
        return philox(static_cast<uint32_t>(group), place, update_, micro_batch_, key_.words[0], key_.words[1]);
    }

  private:
    RoundingKey key_;
    uint32_t update_, micro_batch_;
};

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
