#include "llmc/base/dtype.h"
#include "llmc/io/gguf/gguf_type.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace llmc {
namespace {

double half_at(const std::byte* bytes) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes, sizeof bits);
    return fp16_to_float(bits);
}

/// A block by the definition, in double: the scale, rounded to a half, and the levels of the scale before rounding.
struct Block {
    double scale = 0;
    double levels[32] = {};
};
Block exact_block(const float* x) {
    double largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(static_cast<double>(x[i])));
    Block block;
    block.scale = largest / 127;
    for (int i = 0; i < 32; ++i) block.levels[i] = largest == 0 ? 0 : x[i] / block.scale;
    return block;
}

TEST(GgufType, FactsAreThoseOfTheFormat) {
    EXPECT_EQ(static_cast<int>(gguf_type("bf16")), 30);
    EXPECT_EQ(facts_of(gguf_type("q8_0")).file_type, 7u);
    EXPECT_EQ(bytes_of(GgufType::Q8_0, 96), 102);
    EXPECT_EQ(bytes_of(GgufType::F32, 5), 20);
}

TEST(GgufType, Q8BlocksAreWithinRoundingOfTheDefinition) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (int trial = 0; trial < 300; ++trial) {
        const float spread = std::ldexp(1.0f, trial % 40 - 26);
        float x[32];
        for (float& value : x) value = normal(random) * spread;
        if (trial == 0) std::fill(std::begin(x), std::end(x), 0.0f);
        if (trial == 1) x[3] = -std::fabs(x[3]) - 100 * spread;  // The largest is negative.
        std::byte block[34];
        encode(GgufType::Q8_0, x, block);
        const Block exact = exact_block(x);
        const double scale = half_at(block);
        EXPECT_LE(std::fabs(scale - exact.scale), std::max(exact.scale * 0x1p-11, 0x1p-25)) << trial;
        bool has_largest = exact.scale == 0;
        for (int i = 0; i < 32; ++i) {
            const auto level = static_cast<int8_t>(block[2 + i]);
            EXPECT_LE(std::fabs(level - exact.levels[i]), 0.5 + 1e-4) << trial << " " << i;
            has_largest = has_largest || std::abs(level) == 127;
        }
        EXPECT_TRUE(has_largest) << trial;
    }
}

TEST(GgufType, Q8RoundsHalvesAwayFromZero) {
    float x[64] = {};
    x[0] = 127, x[1] = 2.5f, x[2] = -2.5f, x[3] = 3.5f, x[4] = 0.5f, x[5] = -0.49f, x[6] = -126.5f;
    std::byte blocks[68];
    encode(GgufType::Q8_0, x, blocks);
    EXPECT_EQ(half_at(blocks), 1.0);
    const int expected[] = {127, 3, -3, 4, 1, 0, -127};
    for (int i = 0; i < 7; ++i) EXPECT_EQ(static_cast<int8_t>(blocks[2 + i]), expected[i]) << i;
    EXPECT_EQ(half_at(blocks + 34), 0.0);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(static_cast<int8_t>(blocks[36 + i]), 0);
}

TEST(GgufType, LimitsAreTheFirstValuesThatOverflow) {
    for (const GgufType type : {GgufType::F16, GgufType::BF16}) {
        const float limit = facts_of(type).limit;
        std::byte bytes[2];
        const auto encoded = [&](float x) {
            encode(type, {&x, 1}, bytes);
            uint16_t bits = 0;
            std::memcpy(&bits, bytes, sizeof bits);
            return type == GgufType::F16 ? fp16_to_float(bits) : to_float(bf16{bits});
        };
        EXPECT_TRUE(std::isinf(encoded(limit)));
        EXPECT_TRUE(std::isfinite(encoded(std::nextafter(limit, 0.0f))));
    }
    float x[32] = {std::nextafter(facts_of(GgufType::Q8_0).limit, 0.0f)};
    std::byte block[34];
    encode(GgufType::Q8_0, x, block);
    EXPECT_TRUE(std::isfinite(half_at(block)));
}

}  // namespace
}  // namespace llmc
