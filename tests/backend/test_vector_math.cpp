// vector_math.h against double precision, over every 61st float of the range that matters.
#include "llmc/backend/cpu/vector_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace llmc::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// |value - exact| in units of the last place of exact.
double ulps(float value, double exact) {
    const float rounded = static_cast<float>(std::fabs(exact));
    const double ulp = static_cast<double>(std::nextafter(rounded, kInfinity)) - rounded;
    return std::fabs(value - exact) / ulp;
}

/// Floats of both signs with magnitudes from `smallest` to `largest`, evenly spread over their bit patterns.
std::vector<float> sample(float smallest, float largest) {
    std::vector<float> values;
    for (uint32_t bits = std::bit_cast<uint32_t>(smallest); bits <= std::bit_cast<uint32_t>(largest); bits += 61) {
        values.push_back(std::bit_cast<float>(bits));
        values.push_back(-std::bit_cast<float>(bits));
    }
    return values;
}

/// Applies `function` as the kernels do, in a vectorised loop, and returns the worst error.
template <typename Function, typename Reference>
double worst_error(const std::vector<float>& x, Function function, Reference reference) {
    std::vector<float> y(x.size());
#pragma omp simd
    for (size_t i = 0; i < x.size(); ++i) y[i] = function(x[i]);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) worst = std::fmax(worst, ulps(y[i], reference(static_cast<double>(x[i]))));
    return worst;
}

}  // namespace

TEST(VectorMath, ExpIsWithinTwoUlp) {
    const auto exact = [](double x) { return std::exp(x); };
    EXPECT_LE(worst_error(
                  sample(1e-10f, 87.33f), [](float x) { return fast_exp(x); }, exact),
              2.0);
    EXPECT_LE(
        worst_error(
            {88.0f, 88.5f, 88.7f, 88.72f, 88.7228f, -87.3f, -87.336f}, [](float x) { return fast_exp(x); }, exact),
        2.0);
}

TEST(VectorMath, ExpAtTheEndsOfTheRange) {
    EXPECT_EQ(fast_exp(0.0f), 1.0f);
    EXPECT_EQ(fast_exp(-0.0f), 1.0f);
    EXPECT_EQ(fast_exp(1e-30f), 1.0f);
    EXPECT_EQ(fast_exp(-kInfinity), 0.0f);
    EXPECT_EQ(fast_exp(kInfinity), kInfinity);
    EXPECT_TRUE(std::isnan(fast_exp(kNan)));
    EXPECT_TRUE(std::isnan(fast_exp(std::bit_cast<float>(0x7fffffffu))));
    for (const float x : {-88.0f, -100.0f, -1000.0f, -1e10f, -3e38f}) EXPECT_EQ(fast_exp(x), 0.0f) << x;
    for (const float x : {88.73f, 89.0f, 1000.0f, 1e10f, 3e38f}) EXPECT_EQ(fast_exp(x), kInfinity) << x;
}

TEST(VectorMath, SigmoidIsWithinFourUlp) {
    const auto exact = [](double x) { return 1 / (1 + std::exp(-x)); };
    EXPECT_LE(worst_error(
                  sample(1e-10f, 87.3f), [](float x) { return fast_sigmoid(x); }, exact),
              4.0);
    EXPECT_EQ(fast_sigmoid(0.0f), 0.5f);
    EXPECT_EQ(fast_sigmoid(1000.0f), 1.0f);
    EXPECT_EQ(fast_sigmoid(-1000.0f), 0.0f);
    EXPECT_TRUE(std::isnan(fast_sigmoid(kNan)));
}

}  // namespace llmc::cpu
