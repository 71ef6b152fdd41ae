// Drawing tokens: frequencies against probabilities computed from the definition.
#include "llmc/train/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

namespace llmc {
namespace {

const std::vector<float> kLogits = {0.5F, 2.0F, -1.0F, 2.0F, 1.5F, -30.0F, 0.0F, 1.0F};

/// Probabilities after temperature, top-k, top-p, by the definitions: softmax, the k largest, the shortest prefix of
/// the sorted rest whose share reaches p.
std::vector<double> expected(const std::vector<float>& logits, const SamplerSettings& settings) {
    std::vector<double> p(logits.size());
    for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp(logits[i] / settings.temperature);
    std::vector<size_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
    size_t kept = settings.top_k > 0 ? std::min(p.size(), static_cast<size_t>(settings.top_k)) : p.size();
    double total = 0;
    for (size_t i = 0; i < kept; ++i) total += p[order[i]];
    double sum = 0;
    size_t prefix = 0;
    while (prefix < kept && sum < settings.top_p * total) sum += p[order[prefix++]];
    std::vector<double> result(p.size(), 0.0);
    for (size_t i = 0; i < prefix; ++i) result[order[i]] = p[order[i]] / sum;
    return result;
}

void expect_frequencies(const SamplerSettings& settings) {
    constexpr int kDraws = 20'000;
    std::vector<int> count(kLogits.size(), 0);
    for (int i = 0; i < kDraws; ++i) {
        const int32_t token = sample_token(kLogits, settings, 3, static_cast<uint64_t>(i));
        ASSERT_GE(token, 0);
        ASSERT_LT(token, static_cast<int32_t>(kLogits.size()));
        ++count[static_cast<size_t>(token)];
    }
    const std::vector<double> p = expected(kLogits, settings);
    for (size_t i = 0; i < p.size(); ++i) {
        const double frequency = static_cast<double>(count[i]) / kDraws;
        EXPECT_NEAR(frequency, p[i], 5 * std::sqrt(p[i] * (1 - p[i]) / kDraws)) << "token " << i;
    }
}

TEST(Sampler, TemperatureZeroTakesTheMostLikely) {
    for (uint64_t position = 0; position < 50; ++position) {
        SamplerSettings settings = {.temperature = 0, .seed = position};
        EXPECT_EQ(sample_token(std::vector<float>{1, 5, 3}, settings, 0, position), 1);
        EXPECT_EQ(sample_token(kLogits, settings, 0, position), 1);  // Tied with 3; the smaller id wins.
    }
}

TEST(Sampler, FrequenciesFollowTheTemperature) {
    for (const double temperature : {0.3, 1.0, 2.5}) expect_frequencies({.temperature = temperature, .seed = 1});
}

TEST(Sampler, TopKKeepsTheMostLikely) {
    for (const int64_t k : {1, 2, 3, 5, 8, 100}) expect_frequencies({.temperature = 1, .top_k = k, .seed = 2});
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
    for (const double p : {1e-6, 0.2, 0.5, 0.9, 0.999999})
        expect_frequencies({.temperature = 1, .top_p = p, .seed = 3});
}

TEST(Sampler, TopPCountsAfterTopK) {
    expect_frequencies({.temperature = 0.8, .top_k = 4, .top_p = 0.75, .seed = 4});
    expect_frequencies({.temperature = 1.3, .top_k = 6, .top_p = 0.95, .seed = 5});
}

TEST(Sampler, TheSameNumbersGiveTheSameToken) {
    std::set<std::vector<int32_t>> texts;
    for (const uint64_t seed : {1, 2}) {
        for (const uint32_t text : {0, 1}) {
            std::vector<int32_t> tokens, again;
            for (uint64_t i = 0; i < 40; ++i) {
                const SamplerSettings seeded = {.temperature = 1, .seed = seed};
                tokens.push_back(sample_token(kLogits, seeded, text, i));
                again.push_back(sample_token(kLogits, seeded, text, i));
            }
            EXPECT_EQ(tokens, again);
            texts.insert(tokens);
        }
    }
    EXPECT_EQ(texts.size(), 4u);
}

TEST(Sampler, TopOneIsTemperatureZero) {
    for (uint64_t i = 0; i < 200; ++i) {
        const int32_t greedy = sample_token(kLogits, {.temperature = 0, .seed = 1}, 0, i);
        EXPECT_EQ(sample_token(kLogits, {.temperature = 1, .top_k = 1, .seed = 1}, 0, i), greedy);
    }
}

TEST(Sampler, HugeLogitsDoNotOverflow) {
    const std::vector<float> logits = {3e38F, -3e38F, 3e38F};
    std::set<int32_t> seen;
    for (uint64_t i = 0; i < 100; ++i) seen.insert(sample_token(logits, {.temperature = 0.01, .seed = 1}, 0, i));
    EXPECT_EQ(seen, (std::set<int32_t>{0, 2}));
    EXPECT_EQ(sample_token(std::vector<float>{7}, {.temperature = 1}, 0, 0), 0);
}

TEST(Sampler, NeverDrawsWhatIsRuledOut) {
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> logits = {kNever, 1, nan, -50, kNever};
    for (const SamplerSettings& settings :
         {SamplerSettings{100}, SamplerSettings{0}, SamplerSettings{100, 4}, SamplerSettings{100, 0, 0.999999}}) {
        for (uint64_t i = 0; i < 500; ++i) {
            const int32_t token = sample_token(logits, settings, 0, i);
            ASSERT_TRUE(token == 1 || token == 3) << token;
        }
    }
    EXPECT_EQ(sample_token(std::vector<float>{kNever, nan}, {}, 0, 0), -1);
    EXPECT_EQ(sample_token(std::vector<float>{0, -kNever, 1}, {}, 0, 0), 1);
}

}  // namespace
}  // namespace llmc
