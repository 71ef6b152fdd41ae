// exp, tanh and the logistic function in single precision, without branches or tables, so that a loop over them under
// `#pragma omp simd` becomes vector code at any instruction set (libm's need a call per element). Needs
// -fno-trapping-math to vectorise. Between instruction sets with and without FMA results may differ in the last bits;
// between calls and threads they never do.
// The accuracy stated here is checked in tests/backend/test_vector_math.cpp.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace llmc::cpu {

/// Adding this to |v| < 2^22 rounds v to an integer, which then stands in the low bits of the sum.
constexpr float kRoundingShift = 0x1.8p23f;

/// exp(r) - 1 - r for |r| <= ln(2)/2, over r^2 (Cephes' expf).
inline float exp_tail(float r) {
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p;
}

/// x = n ln(2) + r. The first part of ln(2) has nine bits, so n times it is exact.
inline float exp_remainder(float x, float n) { return (x - n * 0x1.63p-1f) + n * 2.12194440e-4f; }

/// e^x within 2 ulp. Results below the smallest normal number are 0; NaN stays NaN.
inline float fast_exp(float x) {
    const float shifted = x * 1.44269504088896341f + kRoundingShift;
    const float r = exp_remainder(x, shifted - kRoundingShift);
    const float p = (exp_tail(r) * (r * r) + r) + 1.0f;
    // 2^n p, by adding n to the exponent of p in [0.7, 1.42]. Unsigned, so that overflow is defined.
    const uint32_t scaled = std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23);
    float result = std::bit_cast<float>(scaled);
    result = x > 88.7228317f ? std::numeric_limits<float>::infinity() : result;
    result = x < -87.3365402f ? 0.0f : result;
    return x == x ? result : x;
}

/// 1 / (1 + e^-x) within 4 ulp while e^-x is finite, 0 below that.
inline float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/// The normal distribution: its density at x, and the probability of what lies below x within 4e-7 of itself (1e-6
/// where |x| > 5). Below x < 0 that is density(x) times a function of 1/(1 + |x|/4), near enough, which a polynomial of
/// degree 9 gives to 3e-8; fitted for this file.
struct Normal {
    float density, below;
    explicit Normal(float x) {
        const float t = 1.0f / (1.0f + 0.247487373f * std::fabs(x));
        float p = 2.021093797e-2f;
        p = p * t - 8.504227993e-2f;
        p = p * t + 1.040881509e-1f;
        p = p * t - 3.202981627e-2f;
        p = p * t + 5.897130060e-2f;
        p = p * t + 6.451099346e-2f;
        p = p * t + 7.861830977e-2f;
        p = p * t + 9.328250498e-2f;
        p = p * t + 9.865246290e-2f;
        p = p * t + 9.873744011e-2f;
        const float e = fast_exp(-0.5f * x * x), tail = e * t * p;
        density = 0.398942280f * e;
        below = x < 0 ? tail : 1.0f - tail;
    }
};

}  // namespace llmc::cpu
