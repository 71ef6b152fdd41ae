#include "llmc/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace llmc {
namespace {

using Words = std::array<uint32_t, 4>;

/// Philox-4x32-10 of a counter and a key as Random123 writes them, through the mapping of llmc::philox().
Words philox_of(const Words& counter, const std::array<uint32_t, 2>& key) {
    const uint64_t seed = uint64_t{key[1]} << 32 | key[0];
    const uint64_t index = uint64_t{counter[1]} << 32 | counter[0];
    return philox(seed, static_cast<RngStream>(counter[3]), counter[2], index);
}

// The three vectors that Random123's kat_vectors file lists for philox4x32 with ten rounds.
TEST(Philox, MatchesTheKnownAnswersOfItsAuthors) {
    EXPECT_EQ(philox_of({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    constexpr uint32_t kOnes = 0xffffffff;
    EXPECT_EQ(philox_of({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox_of({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryArgumentMatters) {
    const Words base = philox(1, RngStream::Test, 2, 3);
    EXPECT_EQ(philox(1, RngStream::Test, 2, 3), base);
    const std::set<Words> all = {base,
                                 philox(2, RngStream::Test, 2, 3),
                                 philox(1 + (uint64_t{1} << 32), RngStream::Test, 2, 3),
                                 philox(1, RngStream::Init, 2, 3),
                                 philox(1, RngStream::Test, 3, 3),
                                 philox(1, RngStream::Test, 2, 4),
                                 philox(1, RngStream::Test, 2, 3 + (uint64_t{1} << 32))};
    EXPECT_EQ(all.size(), 7u);
}

TEST(Uniform, BitsMapIntoTheHalfOpenInterval) {
    EXPECT_EQ(uniform_from_bits(0), 0.0f);
    EXPECT_EQ(uniform_from_bits(0xff), 0.0f);
    EXPECT_EQ(uniform_from_bits(0x100), 0x1.0p-24f);
    EXPECT_EQ(uniform_from_bits(0x80000000), 0.5f);
    EXPECT_EQ(uniform_from_bits(0xffffffff), 1.0f - 0x1.0p-24f);
}

TEST(Uniform, MomentsAndRange) {
    constexpr int kDraws = 20000;
    double sum = 0, sum_of_squares = 0;
    for (uint64_t i = 0; i < kDraws; ++i) {
        const double u = uniform(11, RngStream::Test, 0, i);
        ASSERT_GE(u, 0.0);
        ASSERT_LT(u, 1.0);
        sum += u;
        sum_of_squares += u * u;
    }
    // Five standard errors of the mean of u (variance 1/12) and of u^2 (variance 4/45).
    EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
    EXPECT_NEAR(sum_of_squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
}

TEST(FillNormal, AValueDoesNotDependOnHowTheRangeIsCut) {
    constexpr int64_t kCount = 101;
    std::vector<float> whole(kCount);
    fill_normal(whole.data(), kCount, 0.5f, 42, RngStream::Init, 7);
    for (const int64_t cut : {1, 2, 3, 4, 5, 7, 50, 100}) {
        std::vector<float> parts(kCount, -99.0f);
        for (int64_t first = 0; first < kCount; first += cut) {
            const int64_t count = std::min(cut, kCount - first);
            fill_normal(parts.data() + first, count, 0.5f, 42, RngStream::Init, 7, static_cast<uint64_t>(first));
        }
        EXPECT_EQ(parts, whole) << "cut into pieces of " << cut;
    }
}

TEST(FillNormal, WritesNothingBeyondItsRange) {
    std::vector<float> values(8, 77.0f);
    fill_normal(values.data() + 1, 5, 1.0f, 1, RngStream::Test, 0, 2);
    EXPECT_EQ(values[0], 77.0f);
    EXPECT_NE(values[5], 77.0f);
    EXPECT_EQ(values[6], 77.0f);
    fill_normal(values.data(), 0, 1.0f, 1, RngStream::Test, 0);
    EXPECT_EQ(values[0], 77.0f);
}

TEST(FillNormal, SeedsStreamsAndItemsDiffer) {
    const auto draw = [](uint64_t seed, RngStream stream, uint32_t item) {
        std::vector<float> values(16);
        fill_normal(values.data(), 16, 1.0f, seed, stream, item);
        return values;
    };
    const std::set<std::vector<float>> all = {draw(1, RngStream::Init, 0), draw(2, RngStream::Init, 0),
                                              draw(1, RngStream::Sample, 0), draw(1, RngStream::Init, 1)};
    EXPECT_EQ(all.size(), 4u);
}

TEST(FillNormal, HasTheMomentsOfANormal) {
    constexpr int64_t kCount = 40000;
    constexpr double kStddev = 0.02;
    std::vector<float> values(kCount);
    fill_normal(values.data(), kCount, static_cast<float>(kStddev), 1234, RngStream::Init, 3);
    double moment[5] = {};
    double lag = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        const double z = values[i] / kStddev;
        for (int p = 1; p <= 4; ++p) moment[p] += std::pow(z, p) / kCount;
        if (i + 1 < values.size()) lag += z * values[i + 1] / kStddev / kCount;
    }
    const double error = 1 / std::sqrt(static_cast<double>(kCount));
    // Five standard errors: the variances of z, z^2, z^3, z^4 are 1, 2, 15, 96.
    EXPECT_NEAR(moment[1], 0, 5 * error);
    EXPECT_NEAR(moment[2], 1, 5 * error * std::sqrt(2.0));
    EXPECT_NEAR(moment[3], 0, 5 * error * std::sqrt(15.0));
    EXPECT_NEAR(moment[4], 3, 5 * error * std::sqrt(96.0));
    EXPECT_NEAR(lag, 0, 5 * error) << "neighbours must not be correlated";
}

TEST(Permute, IsABijection) {
    for (const uint64_t size : {1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000, 4097}) {
        for (const uint64_t key : {0, 1, 99}) {
            std::vector<bool> seen(size, false);
            for (uint64_t position = 0; position < size; ++position) {
                const uint64_t element = permute(position, size, 5, key);
                ASSERT_LT(element, size);
                ASSERT_FALSE(seen[element]) << "size " << size << ", element " << element << " twice";
                seen[element] = true;
            }
        }
    }
}

TEST(Permute, KeysAndSeedsGiveOtherOrders) {
    for (const uint64_t size : {17, 1000, 4097}) {
        const auto order = [size](uint64_t seed, uint64_t key) {
            std::vector<uint64_t> elements;
            for (uint64_t position = 0; position < size; ++position)
                elements.push_back(permute(position, size, seed, key));
            return elements;
        };
        const auto first = order(1, 0);
        EXPECT_EQ(order(1, 0), first);
        EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
        const std::set<std::vector<uint64_t>> all = {first, order(1, 1), order(1, 2), order(2, 0)};
        EXPECT_EQ(all.size(), 4u) << "size " << size;
    }
}

TEST(Permute, MixesPositionsEvenly) {
    // The first tenth of the positions must not stay in one part of the range: 400 elements, 40 expected in each tenth
    // with a standard deviation of 6.
    constexpr uint64_t kSize = 4000;
    std::array<int, 10> histogram = {};
    for (uint64_t position = 0; position < kSize / 10; ++position)
        ++histogram[permute(position, kSize, 3, 0) * 10 / kSize];
    for (const int count : histogram) EXPECT_NEAR(count, 40, 30);
}

TEST(Permute, HugeRangesStayInRange) {
    constexpr uint64_t kSize = (uint64_t{1} << 40) + 12345;
    std::set<uint64_t> elements;
    for (uint64_t i = 0; i < 100; ++i) {
        const uint64_t element = permute(kSize - 1 - i, kSize, 9, 1);
        ASSERT_LT(element, kSize);
        elements.insert(element);
    }
    EXPECT_EQ(elements.size(), 100u);
}

}  // namespace
}  // namespace llmc
