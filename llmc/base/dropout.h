// Dropout (Srivastava et al. 2014, the inverted form): an element becomes 0 with probability p, and counts 1/(1 - p)
// times otherwise, so that its mean stays.
//
// A mask is never stored: an element's draw is a function of a counter, (seed; number of the row's document or sequence
// in the order of the data, position in it, layer, site, channel), by Philox-4x32-10. What a micro-batch, a rank or a
// packed sequence holds is no part of it, so an element meets the same mask however the data is cut, whenever an
// operation runs again, and in the backward.
#pragma once

#include "llmc/base/rng.h"
#include "llmc/base/tensor.h"

#include <array>
#include <cstdint>

namespace llmc {

/// Where masks are drawn in a layer; the embedding's count as layer 0's. Each group of an adapter has a site of its
/// own.
enum class DropoutSite : int32_t { Embedding, Attention, Mlp, Adapters };

/// Channels whose draws come from one counter: channel c has the c % 8-th half word of counter c / 8, lower halves
/// first, and is kept where that is not below threshold().
constexpr int64_t kDropoutChannels = 8;

/// Beyond it next to nothing is left.
constexpr double kLargestDropout = 0.99;

struct Dropout {
    float p = 0;  ///< Below 1, in steps of 2^-16; 0: nothing is dropped, and nothing else is read.
    uint64_t seed = 0;
    int32_t layer = 0;  ///< Counted modulo 1024.
    int32_t site = 0;   ///< Below 64.
    Tensor rows = {};   ///< (N, 2) int32: number of the row's document or sequence, and the row's position in it.

    explicit operator bool() const { return p > 0; }
    float scale() const { return 1 / (1 - p); }
    uint32_t threshold() const { return static_cast<uint32_t>(p * 65536.0f + 0.5f); }
    std::array<uint32_t, 2> key() const { return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}; }
    /// What counters of group 0 have in their third word.
    uint32_t place() const {
        return (static_cast<uint32_t>(layer) & 1023u) << 22 | (static_cast<uint32_t>(site) & 63u) << 16;
    }
    /// The same of another site.
    Dropout at(int64_t other) const {
        Dropout result = *this;
        result.site = static_cast<int32_t>(other);
        return result;
    }
};

/// The counter of channels [8 group, 8 group + 8) of a row, group < 2^16.
constexpr std::array<uint32_t, 4> dropout_counter(uint32_t number, uint32_t position, uint32_t place, uint32_t group) {
    return {position, number, place | group, static_cast<uint32_t>(RngStream::Dropout)};
}

/// A tile of factors, 0 or scale(): of rows [first_row, first_row + rows) and channels [first, first + channels), where
/// `first` is a multiple of kDropoutChannels. `out` has its rows `channels` rounded up to such a multiple apart, and
/// all of that is written. The rows of `dropout` are read by the host.
void fill_dropout_factors(float* out, const Dropout& dropout, int64_t first_row, int64_t rows, int64_t first,
                          int64_t channels);

}  // namespace llmc
