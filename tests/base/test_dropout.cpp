// Masks of dropout: the share that is kept, the factor that keeps the mean, and draws by counters alone.
#include "llmc/base/dropout.h"

#include "tests/backend/dropout_testing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace llmc {
namespace {

std::vector<float> factors_of(const Dropout& dropout, int64_t first_row, int64_t rows, int64_t first,
                              int64_t channels) {
    std::vector<float> all(static_cast<size_t>(rows * round_up(channels, kDropoutChannels)));
    fill_dropout_factors(all.data(), dropout, first_row, rows, first, channels);
    return all;
}

TEST(Dropout, TheShareIsKeptAndTheMeanStays) {
    constexpr int64_t N = 512, C = 2048;
    const TestBuffer rows = mask_rows(N);
    for (const float p : {0.001f, 0.1f, 0.25f, 0.5f, 0.9f, 0.99f}) {
        const std::vector<float> factors = factors_of({p, 7, 3, 1, rows}, 0, N, 0, C);
        double kept = 0, mean = 0;
        for (const float factor : factors) {
            ASSERT_TRUE(factor == 0 || factor == 1 / (1 - p)) << factor;
            kept += factor > 0 ? 1 : 0, mean += factor;
        }
        const auto count = static_cast<double>(N * C);
        const double error = 5 * std::sqrt(p * (1 - p) / count) + 1e-5;  // And the step of p.
        EXPECT_NEAR(kept / count, 1 - p, error);
        EXPECT_NEAR(mean / count, 1, error / (1 - p));
        // Neighbours along rows and channels are independent.
        double beside = 0, below = 0;
        for (int64_t n = 0; n + 1 < N; ++n) {
            for (int64_t c = 0; c + 1 < C; ++c) {
                const auto at = static_cast<size_t>(n * C + c);
                beside += factors[at] * factors[at + 1], below += factors[at] * factors[at + static_cast<size_t>(C)];
            }
        }
        const auto pairs = static_cast<double>((N - 1) * (C - 1));
        EXPECT_NEAR(beside / pairs, 1, 5 / (1 - p) / std::sqrt(pairs) + 3e-5 / (1 - p)) << p;
        EXPECT_NEAR(below / pairs, 1, 5 / (1 - p) / std::sqrt(pairs) + 3e-5 / (1 - p)) << p;
    }
}

TEST(Dropout, AnElementsDrawIsThatOfItsCounter) {
    constexpr int64_t N = 9, C = 77;
    const TestBuffer rows = mask_rows(N);
    const Dropout dropout = {0.3f, 0x123456789abcdefull, 1023, 63, rows};
    const std::vector<float> all = factors_of(dropout, 0, N, 0, C);
    const int64_t stride = round_up(C, kDropoutChannels);
    for (int64_t n = 0; n < N; ++n) {
        for (int64_t c = 0; c < C; ++c) {
            ASSERT_EQ(all[static_cast<size_t>(n * stride + c)], plain_factor(dropout, rows, n, c)) << n << " " << c;
        }
    }
    const std::vector<float> tile = factors_of(dropout, 3, 4, 24, 17);  // However it is cut.
    for (int64_t n = 0; n < 4; ++n) {
        for (int64_t c = 0; c < 17; ++c) {
            ASSERT_EQ(tile[static_cast<size_t>(n * 24 + c)], all[static_cast<size_t>((n + 3) * stride + 24 + c)]);
        }
    }
}

TEST(Dropout, EveryPartOfTheCounterCounts) {
    const TestBuffer rows(DType::I32, 3, 2), others(DType::I32, 1, 2);
    const std::vector<int32_t> values = {5, 9, 5, 10, 6, 9};
    std::copy(values.begin(), values.end(), rows.tensor().as<int32_t>());
    const Dropout dropout = {0.5f, 11, 2, 1, rows};
    std::set<std::vector<float>> masks;
    for (int64_t row = 0; row < 3; ++row) masks.insert(factors_of(dropout, row, 1, 0, 256));
    Dropout other = dropout;
    other.seed = uint64_t{11} << 32;
    masks.insert(factors_of(other, 0, 1, 0, 256));
    other = dropout, other.layer = 3;
    masks.insert(factors_of(other, 0, 1, 0, 256));
    masks.insert(factors_of(dropout.at(2), 0, 1, 0, 256));
    masks.insert(factors_of(dropout, 0, 1, 256, 256));
    EXPECT_EQ(masks.size(), 7u);
}

}  // namespace
}  // namespace llmc
