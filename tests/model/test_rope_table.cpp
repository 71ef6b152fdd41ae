// The table of rotary angles against the papers' formulas.
#include "llmc/model/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>

namespace llmc {
namespace {

/// e^(i t f) for pair `pair` of a position, from Su et al.'s f = theta^(-2i/HD).
std::complex<double> turn(const ModelConfig& config, int64_t t, int64_t pair, double stretch = 1) {
    const double f = 1 / std::pow(config.rope_theta, 2.0 * static_cast<double>(pair) / static_cast<double>(config.HD));
    return std::polar(1.0, static_cast<double>(t) * f / stretch);
}

void expect_turn(const std::vector<float>& table, const ModelConfig& config, int64_t t, int64_t pair,
                 std::complex<double> value) {
    const auto at = static_cast<size_t>(t * config.HD + pair);
    EXPECT_NEAR(table[at], value.real(), 1e-7) << "cosine of pair " << pair << " at " << t;
    EXPECT_NEAR(table[at + static_cast<size_t>(config.HD / 2)], value.imag(), 1e-7)
        << "sine of pair " << pair << " at " << t;
}

TEST(RopeTable, WithoutScalingFollowsTheFormula) {
    const ModelConfig config = preset("llama2-7b");
    const auto table = rope_table(config, 300);
    ASSERT_EQ(table.size(), 300u * 128);
    for (const int64_t t : {0, 1, 2, 77, 299}) {
        for (int64_t pair = 0; pair < 64; ++pair) expect_turn(table, config, t, pair, turn(config, t, pair));
    }
}

/// Angles of a million radians: in fp32 they would be off by a sixteenth.
TEST(RopeTable, IsExactAtAMillionPositions) {
    ModelConfig config = preset("llama-mini");
    constexpr int64_t kPositions = 1 << 20;
    const auto table = rope_table(config, kPositions);
    for (const int64_t t : {kPositions - 1, kPositions / 2 + 1}) {
        for (int64_t pair = 0; pair < config.HD / 2; ++pair) {
            const long double f =
                std::pow(static_cast<long double>(config.rope_theta),
                         -2.0L * static_cast<long double>(pair) / static_cast<long double>(config.HD));
            const long double angle = static_cast<long double>(t) * f;
            expect_turn(table, config, t, pair,
                        {static_cast<double>(std::cos(angle)), static_cast<double>(std::sin(angle))});
        }
    }
}

TEST(RopeTable, LinearScalingStretchesEveryPair) {
    ModelConfig config = preset("llama-mini");
    config.rope_scaling.kind = RopeScaling::Kind::Linear;
    config.rope_scaling.factor = 4;
    const auto table = rope_table(config, 41);
    for (int64_t pair = 0; pair < config.HD / 2; ++pair) {
        expect_turn(table, config, 40, pair, turn(config, 10, pair));
        expect_turn(table, config, 3, pair, turn(config, 3, pair, 4));
    }
}

TEST(RopeTable, Llama3ScalingHasThreeBranches) {
    // As the reference code of Llama 3.1 has it: by wavelength against 8192/4 and 8192/1, smooth in between.
    for (const char* name : {"llama3-70b", "llama3.2-1b"}) {
        const ModelConfig config = preset(name);
        const double factor = config.rope_scaling.factor;
        const auto table = rope_table(config, 1001);
        int kept = 0, stretched = 0, blended = 0;
        for (int64_t pair = 0; pair < config.HD / 2; ++pair) {
            const double f = std::pow(5e5, -2.0 * static_cast<double>(pair) / static_cast<double>(config.HD));
            const double wavelength = 2 * std::numbers::pi / f;
            double scaled = 0;
            if (wavelength < 8192.0 / 4) {
                scaled = f, ++kept;
            } else if (wavelength > 8192.0 / 1) {
                scaled = f / factor, ++stretched;
            } else {
                const double smooth = (8192 / wavelength - 1) / (4 - 1);
                scaled = (1 - smooth) * f / factor + smooth * f, ++blended;
            }
            for (const int64_t t : {1, 999, 1000}) {
                expect_turn(table, config, t, pair, std::polar(1.0, static_cast<double>(t) * scaled));
            }
        }
        EXPECT_GT(kept, 0) << name;
        EXPECT_GT(stretched, 0) << name;
        EXPECT_GT(blended, 0) << name;
    }
}

TEST(RopeTable, YarnBlendsByPairAndScalesQueriesAndKeys) {
    ModelConfig config = preset("llama-nano");
    config.HD = 64, config.rope_theta = 10000;
    RopeScaling& scaling = config.rope_scaling;
    scaling.kind = RopeScaling::Kind::Yarn;
    scaling.factor = 16, scaling.original_max_position = 4096, scaling.attention_factor = 1.25;
    // Where Peng et al.'s code puts the ends for these numbers: dim ln(4096 / (2 pi n)) / (2 ln base), n = 32 and 1.
    const double fast = 64 * std::log(4096 / (32 * 2 * std::numbers::pi)) / (2 * std::log(1e4));
    const double slow = 64 * std::log(4096 / (2 * std::numbers::pi)) / (2 * std::log(1e4));
    for (const bool truncate : {true, false}) {
        scaling.truncate = truncate;
        const double low = truncate ? std::floor(fast) : fast, high = truncate ? std::ceil(slow) : slow;
        const auto table = rope_table(config, 41);
        for (int64_t pair = 0; pair < 32; ++pair) {
            const double f = std::pow(1e4, -2.0 * static_cast<double>(pair) / 64);
            const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
            const double scaled = f * (1 - ramp) + f / 16 * ramp;
            expect_turn(table, config, 40, pair, std::polar(1.25, 40 * scaled));
        }
    }
}

TEST(RopeTable, DynamicGrowsItsBaseForLongerSequencesOnly) {
    ModelConfig config = preset("llama-nano");
    config.rope_scaling.kind = RopeScaling::Kind::Dynamic;
    config.rope_scaling.factor = 4, config.rope_scaling.original_max_position = 16;
    ModelConfig plain = config;
    plain.rope_scaling = {};
    EXPECT_EQ(rope_table(config, 16), rope_table(plain, 16));
    const auto HD = static_cast<double>(config.HD);
    plain.rope_theta *= std::pow(4.0 * 40 / 16 - 3, HD / (HD - 2));
    const auto longer = rope_table(config, 40), expected = rope_table(plain, 40);
    for (size_t i = 0; i < longer.size(); ++i) ASSERT_NEAR(longer[i], expected[i], 1e-6);
}

TEST(RopeTable, LongRopeHasFactorsByPairAndLength) {
    ModelConfig config = preset("llama-nano");
    config.HD = 8, config.rotary_size = 4;
    RopeScaling& scaling = config.rope_scaling;
    scaling.kind = RopeScaling::Kind::LongRope;
    scaling.original_max_position = 24, scaling.attention_factor = 1.5;
    scaling.short_factors = {1, 1.25}, scaling.long_factors = {2, 5};
    for (const int64_t length : {24, 25}) {
        const auto table = rope_table(config, length);
        ASSERT_EQ(table.size(), static_cast<size_t>(length * 4));
        for (size_t pair = 0; pair < 2; ++pair) {
            const double factor = (length > 24 ? scaling.long_factors : scaling.short_factors)[pair];
            const double angle = 7 * std::pow(config.rope_theta, -2.0 * static_cast<double>(pair) / 4) / factor;
            EXPECT_NEAR(table[7 * 4 + pair], 1.5 * std::cos(angle), 1e-6);
            EXPECT_NEAR(table[7 * 4 + 2 + pair], 1.5 * std::sin(angle), 1e-6);
        }
    }
}

TEST(RopeTable, APrefixDoesNotDependOnTheLength) {
    const ModelConfig config = preset("llama3.2-1b");
    const auto shorter = rope_table(config, 5), longer = rope_table(config, 50);
    EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

}  // namespace
}  // namespace llmc
