// Stochastic rounding of fp32 to bf16: a value between two neighbours becomes the upper one with the probability of its
// distance from the lower one, so that sums of many small steps keep their mean. What nearest rounding would lose (a
// second moment that decays by less than half a unit in the last place, a small step of a weight) happens now and then.
//
// The sixteen random bits of an element are a function of a counter: (seed; update, micro-batch, buffer, row of the
// table of parameters, element of the row), by Philox-4x32-10. A place in a flat buffer, a thread or a rank is no part
// of it, so the bits are the same however the buffers are cut, moved or walked.
#pragma once

#include "llmc/base/dtype.h"

#include <array>
#include <bit>
#include <cstdint>

namespace llmc {

/// What is rounded: part of the counter, so that buffers never share a draw.
enum class RoundedBuffer : uint32_t { Weights = 1, MomentM = 2, MomentV = 3, Gradients = 4 };

/// The part of the counter that all elements share which one operation rounds.
struct RoundingDraws {
    std::array<uint32_t, 2> key = {};  ///< rounding_key().
    uint32_t update = 0;
    uint32_t micro_batch = 0;  ///< Of gradients, among those of all ranks; else 0.
};

/// Of a run's seed.
std::array<uint32_t, 2> rounding_key(uint64_t seed);

/// Elements whose bits come from one counter: element e is the e % 8-th half word of counter e / 8, lower halves first.
constexpr int64_t kDrawsOfCounter = 8;

/// The counter of elements [8 group, 8 group + 8) of a row.
constexpr std::array<uint32_t, 4> rounding_counter(const RoundingDraws& draws, RoundedBuffer buffer, int32_t row,
                                                   uint64_t group) {
    const uint32_t place = static_cast<uint32_t>(row) << 8 | static_cast<uint32_t>(buffer) << 4 |
                           (static_cast<uint32_t>(group >> 32) & 15u);
    return {static_cast<uint32_t>(group), place, draws.update, draws.micro_batch};
}

/// The bits of elements [first, first + count) of a row; `first` is a multiple of kDrawsOfCounter. `out` has room for
/// count rounded up to such a multiple.
void fill_rounding_bits(uint16_t* out, const RoundingDraws& draws, RoundedBuffer buffer, int32_t row, int64_t first,
                        int64_t count);

/// Rounded by sixteen uniform bits; exact values stay, a NaN stays a NaN.
inline bf16 round_stochastically(float value, uint16_t random) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return {static_cast<uint16_t>((is_nan ? bits | 0x00400000u : bits + random) >> 16)};
}

}  // namespace llmc
