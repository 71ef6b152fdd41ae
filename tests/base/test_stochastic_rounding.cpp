// Stochastic rounding: unbiased, exact where it can be, and by counters alone.
#include "llmc/base/stochastic_rounding.h"

#include "llmc/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace llmc {
namespace {

RoundingDraws draws_of(uint64_t seed, uint32_t update = 3, uint32_t micro_batch = 0) {
    return {rounding_key(seed), update, micro_batch};
}

std::vector<uint16_t> bits_of(const RoundingDraws& draws, RoundedBuffer buffer, int32_t row, int64_t first,
                              int64_t count) {
    std::vector<uint16_t> bits(static_cast<size_t>(count) + kDrawsOfCounter);
    fill_rounding_bits(bits.data(), draws, buffer, row, first, count);
    bits.resize(static_cast<size_t>(count));
    return bits;
}

TEST(StochasticRounding, MeanOfAMillionDrawsIsTheValue) {
    constexpr int64_t kDraws = 1'000'000;
    const auto bits = bits_of(draws_of(1337), RoundedBuffer::MomentM, 5, 0, kDraws);
    for (const float value : {1.001f, -1.001f, 1.0039f, 0.999f, 3.14159e-12f, -2.5e17f, 1e-40f}) {
        double sum = 0, squares = 0;
        for (const uint16_t random : bits) {
            const double rounded = to_float(round_stochastically(value, random));
            sum += rounded;
            squares += rounded * rounded;
        }
        const double mean = sum / kDraws, variance = squares / kDraws - mean * mean;
        EXPECT_GT(variance, 0) << value;
        EXPECT_NEAR(mean, value, 4 * std::sqrt(variance / kDraws)) << value << ": four standard errors";
        EXPECT_GT(std::fabs(to_float(to_bf16(value)) - value), 8 * std::sqrt(variance / kDraws))
            << value << ": to nearest is not the mean";
    }
}

// Each of the sixteen bits, neighbours, and the whole spread.
TEST(StochasticRounding, BitsAreUniformAndIndependent) {
    constexpr int64_t kDraws = 1'000'000;
    const auto bits = bits_of(draws_of(7), RoundedBuffer::Weights, 0, 0, kDraws);
    const double tolerance = 5 * std::sqrt(kDraws) / 2;
    for (int bit = 0; bit < 16; ++bit) {
        int64_t ones = 0, equal = 0;
        for (int64_t i = 0; i < kDraws; ++i) {
            ones += bits[static_cast<size_t>(i)] >> bit & 1;
            if (i > 0) equal += ((bits[static_cast<size_t>(i)] ^ bits[static_cast<size_t>(i) - 1]) >> bit & 1) == 0;
        }
        EXPECT_NEAR(static_cast<double>(ones), kDraws / 2.0, tolerance) << "bit " << bit;
        EXPECT_NEAR(static_cast<double>(equal), kDraws / 2.0, tolerance) << "bit " << bit << " of neighbours";
    }
    std::vector<int64_t> counts(256, 0);
    for (const uint16_t random : bits) ++counts[random >> 8];
    double chi_squared = 0;
    for (const int64_t count : counts)
        chi_squared += (static_cast<double>(count) - kDraws / 256.0) * (static_cast<double>(count) - kDraws / 256.0) /
                       (kDraws / 256.0);
    EXPECT_LT(chi_squared, 255 + 5 * std::sqrt(2 * 255.0));
}

TEST(StochasticRounding, WhatIsExactStaysAndNothingOverflowsIntoNaN) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const uint16_t random : {uint16_t{0}, uint16_t{1}, uint16_t{0x8000}, uint16_t{0xffff}}) {
        for (const float value : {0.0f, -0.0f, 1.0f, -1.5f, 0x1.02p-100f, infinity, -infinity}) {
            const float rounded = to_float(round_stochastically(value, random));
            EXPECT_EQ(rounded, value);
            EXPECT_EQ(std::signbit(rounded), std::signbit(value));
        }
        EXPECT_TRUE(std::isnan(to_float(round_stochastically(std::nanf(""), random))));
        EXPECT_TRUE(std::isnan(to_float(round_stochastically(std::bit_cast<float>(0xffffffffu), random))));
        EXPECT_TRUE(std::isnan(to_float(round_stochastically(std::bit_cast<float>(0x7f800001u), random))));
    }
    EXPECT_EQ(to_float(round_stochastically(1.001f, 0)), 1.0f);
    EXPECT_EQ(to_float(round_stochastically(1.001f, 0xffff)), 1.0078125f);
}

// By the definition of Philox, word by word; however the elements are cut into calls.
TEST(StochasticRounding, BitsAreThoseOfTheirCounter) {
    const RoundingDraws draws = draws_of(1337, 41, 6);
    const auto all = bits_of(draws, RoundedBuffer::Gradients, 12, 0, 5000);
    for (const int64_t first : {8, 128, 4096})
        for (const int64_t count : {1, 8, 129, 700}) {
            const auto part = bits_of(draws, RoundedBuffer::Gradients, 12, first, count);
            for (int64_t i = 0; i < count; ++i)
                ASSERT_EQ(part[static_cast<size_t>(i)], all[static_cast<size_t>(first + i)]) << first << " + " << i;
        }
    // philox() of another stream is the same function: key (seed), counter (index, item, stream).
    RoundingDraws as_philox;
    as_philox.key = {7, 9};
    as_philox.micro_batch = static_cast<uint32_t>(RngStream::Test);
    as_philox.update = 77;
    const auto ours = bits_of(as_philox, RoundedBuffer::Weights, 3, 16, 8);
    const uint64_t index = uint64_t{3u << 8 | 1u << 4} << 32 | 2;
    const auto words = philox(uint64_t{9} << 32 | 7, RngStream::Test, 77, index);
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(ours[i], static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))) << i;
}

TEST(StochasticRounding, NoTwoPlacesShareTheirBits) {
    std::set<std::vector<uint16_t>> seen;
    size_t tried = 0;
    for (const uint64_t seed : {1u, 2u})
        for (const uint32_t update : {0u, 1u, 1000000u})
            for (const uint32_t micro_batch : {0u, 1u, 4u})
                for (const auto buffer :
                     {RoundedBuffer::Weights, RoundedBuffer::MomentM, RoundedBuffer::MomentV, RoundedBuffer::Gradients})
                    for (const int32_t row : {0, 1, 4000})
                        for (const int64_t first : {int64_t{0}, int64_t{8}, int64_t{1} << 35}) {
                            seen.insert(bits_of(draws_of(seed, update, micro_batch), buffer, row, first, 8));
                            ++tried;
                        }
    EXPECT_EQ(seen.size(), tried);
}

}  // namespace
}  // namespace llmc
