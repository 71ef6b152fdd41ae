// Masks of dropout on the device, by the counters of base/dropout.h.
#pragma once

#include "llmc/backend/cuda/draws.cuh"
#include "llmc/base/dropout.h"

namespace llmc::cuda {

static_assert(kDraws == kDropoutChannels);

/// What kernels take of a Dropout.
struct Masks {
    uint32_t threshold, place;
    uint32_t key[2];
    float scale;
    const int32_t* rows;

    /// A bit for each of the eight channels of a group of a row: it is kept. `site` counts from the dropout's.
    __device__ __forceinline__ uint32_t kept(int64_t row, int64_t group, int site = 0) const {
        const uint32_t where = place + (static_cast<uint32_t>(site) << 16);
        const Draw draw =
            philox(static_cast<uint32_t>(rows[2 * row + 1]), static_cast<uint32_t>(rows[2 * row]),
                   where | static_cast<uint32_t>(group), static_cast<uint32_t>(RngStream::Dropout), key[0], key[1]);
        uint32_t bits = 0;
#pragma unroll
        for (int k = 0; k < kDraws; ++k) bits |= (draw.bits(k) >= threshold ? 1u : 0u) << k;
        return bits;
    }
    __device__ __forceinline__ float factor(uint32_t kept_bits, int k) const {
        return ((kept_bits >> k) & 1u) != 0 ? scale : 0.0f;
    }
};

/// All zero where nothing is dropped.
inline Masks masks_of(const Dropout& dropout) {
    if (!dropout) return {};
    const auto key = dropout.key();
    return {dropout.threshold(),
            dropout.place(),
            {key[0], key[1]},
            dropout.scale(),
            elements_of<const int32_t>(dropout.rows)};
}

}  // namespace llmc::cuda
