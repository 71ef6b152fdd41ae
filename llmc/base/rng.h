// Counter-based random numbers: every draw is a pure function of (seed, stream, index), so any element of any tensor,
// any shuffle position and any sampled token can be reached at once, in any order, on any thread, and a resumed run
// needs no generator state. The function is Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace llmc {

/// What a random number is for. Part of the counter, so that two uses never share a draw.
enum class RngStream : uint32_t { Init = 1, Shuffle = 2, Sample = 3, Test = 4, Rounding = 5, Dropout = 6 };

/// Four independent 32-bit words for counter (stream, item, index) under `seed`.
std::array<uint32_t, 4> philox(uint64_t seed, RngStream stream, uint32_t item, uint64_t index);

/// Uniform in [0, 1) with 24 bits.
inline float uniform_from_bits(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1.0p-24f; }

/// Uniform in [0, 1) with 53 bits.
double uniform(uint64_t seed, RngStream stream, uint32_t item, uint64_t index);

/// Standard normals number `first` .. `first + count - 1` of a sequence, times `stddev`, written to `out`
/// (Box-Muller). The value at an index does not depend on how the range is cut.
void fill_normal(float* out, int64_t count, float stddev, uint64_t seed, RngStream stream, uint32_t item,
                 uint64_t first = 0);

/// The same of numbers uniform in [-bound, bound).
void fill_uniform(float* out, int64_t count, float bound, uint64_t seed, RngStream stream, uint32_t item,
                  uint64_t first = 0);

/// A pseudo-random bijection of [0, size): position -> element. Four-round Feistel network on the next even power of
/// two, walked until it falls inside. `key` separates epochs.
uint64_t permute(uint64_t position, uint64_t size, uint64_t seed, uint64_t key);

}  // namespace llmc
