#include "llmc/base/rng.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace llmc {
namespace {

/// Philox-4x32 with ten rounds: multipliers and Weyl constants from the paper.
std::array<uint32_t, 4> philox_4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
        const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
        counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
                   static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
        key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
    }
    return counter;
}

}  // namespace

std::array<uint32_t, 4> philox(uint64_t seed, RngStream stream, uint32_t item, uint64_t index) {
    return philox_4x32(
        {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), item, static_cast<uint32_t>(stream)},
        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

double uniform(uint64_t seed, RngStream stream, uint32_t item, uint64_t index) {
    const auto words = philox(seed, stream, item, index);
    const uint64_t bits = (uint64_t{words[0]} << 32 | words[1]) >> 11;
    return static_cast<double>(bits) * 0x1.0p-53;
}

namespace {

void fill_normal_alone(float* out, int64_t count, float stddev, uint64_t seed, RngStream stream, uint32_t item,
                       uint64_t first) {
    // One Philox block gives four words, two Box-Muller pairs, four normals.
    for (int64_t i = 0; i < count;) {
        const uint64_t index = first + static_cast<uint64_t>(i);
        const auto words = philox(seed, stream, item, index / 4);
        float normals[4];
        for (int pair = 0; pair < 2; ++pair) {
            const float u = (static_cast<float>(words[2 * pair] >> 8) + 1.0f) * 0x1.0p-24f;  // (0, 1]: log is finite
            const float angle = 2.0f * std::numbers::pi_v<float> * uniform_from_bits(words[2 * pair + 1]);
            const float radius = std::sqrt(-2.0f * std::log(u));
            normals[2 * pair] = radius * std::cos(angle);
            normals[2 * pair + 1] = radius * std::sin(angle);
        }
        for (uint64_t lane = index % 4; lane < 4 && i < count; ++lane, ++i) out[i] = stddev * normals[lane];
    }
}

}  // namespace

void fill_normal(float* out, int64_t count, float stddev, uint64_t seed, RngStream stream, uint32_t item,
                 uint64_t first) {
    constexpr int64_t kBlock = 16384;  // A value depends on its index alone, so any division gives the same ones.
#pragma omp parallel for schedule(static) if (count > 2 * kBlock)
    for (int64_t begin = 0; begin < count; begin += kBlock) {
        fill_normal_alone(out + begin, std::min(kBlock, count - begin), stddev, seed, stream, item,
                          first + static_cast<uint64_t>(begin));
    }
}

void fill_uniform(float* out, int64_t count, float bound, uint64_t seed, RngStream stream, uint32_t item,
                  uint64_t first) {
    std::array<uint32_t, 4> words = {};
    for (int64_t i = 0; i < count; ++i) {
        const uint64_t index = first + static_cast<uint64_t>(i);
        if (i == 0 || index % 4 == 0) words = philox(seed, stream, item, index / 4);
        out[i] = bound * (2 * uniform_from_bits(words[index % 4]) - 1);
    }
}

uint64_t permute(uint64_t position, uint64_t size, uint64_t seed, uint64_t key) {
    CHECK(position < size, position, size);
    if (size < 2) return 0;
    const int half_bits = (std::bit_width(size - 1) + 1) / 2;
    const uint64_t mask = (uint64_t{1} << half_bits) - 1;
    uint64_t value = position;
    do {  // The domain is at most four times the range, so this ends after a few turns.
        uint64_t left = value >> half_bits;
        uint64_t right = value & mask;
        for (uint32_t round = 0; round < 4; ++round) {
            const uint64_t mixed = philox(seed, RngStream::Shuffle, round, right ^ (key << 32))[0] & mask;
            const uint64_t next = left ^ mixed;
            left = right;
            right = next;
        }
        value = left << half_bits | right;
    } while (value >= size);
    return value;
}

}  // namespace llmc
