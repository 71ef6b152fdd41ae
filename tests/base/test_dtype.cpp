#include "llmc/base/dtype.h"
#include "llmc/base/fp16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace llmc {
namespace {

float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

/// The bf16 nearest to a finite value, by comparing exact distances to the two neighbours in double precision; at equal
/// distance the one with an even last bit. Shares no bit trick with to_bf16().
uint16_t nearest_bf16(float value) {
    const auto below = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);  // Truncation, towards zero.
    const auto above = static_cast<uint16_t>(below + 1);                             // Away from zero; may be infinity.
    const double magnitude = std::fabs(static_cast<double>(value));
    const auto size = [](uint16_t bits) {
        const double finite = std::fabs(static_cast<double>(to_float(bf16{bits})));
        return std::isinf(finite) ? 0x1.0p128 : finite;  // Infinity stands where the next binade would begin.
    };
    const double down = magnitude - size(below), up = size(above) - magnitude;
    if (down != up) return down < up ? below : above;
    return below % 2 == 0 ? below : above;
}

TEST(Bf16, EveryValueSurvivesTheRoundTrip) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const bf16 value = {static_cast<uint16_t>(bits)};
        const float wide = to_float(value);
        ASSERT_EQ(std::bit_cast<uint32_t>(wide), bits << 16);
        if (std::isnan(wide)) {
            ASSERT_TRUE(std::isnan(to_float(to_bf16(wide)))) << bits;
        } else {
            ASSERT_EQ(to_bf16(wide).bits, bits);
        }
    }
}

TEST(Bf16, RoundsToNearestWithTiesToEven) {
    // Every upper half but NaN, and lower halves around the ends, the tie and in between: 65280 x 13 values.
    for (uint32_t high = 0; high < 0x10000; ++high) {
        if ((high & 0x7fff) >= 0x7f80) continue;  // Infinity and NaN.
        for (const uint32_t low : {0x0000u, 0x0001u, 0x0002u, 0x1234u, 0x7ffeu, 0x7fffu, 0x8000u, 0x8001u, 0x8002u,
                                   0xabcdu, 0xfffdu, 0xfffeu, 0xffffu}) {
            const float value = float_of(high << 16 | low);
            ASSERT_EQ(to_bf16(value).bits, nearest_bf16(value)) << std::hexfloat << value;
        }
    }
}

TEST(Bf16, TiesByHand) {
    EXPECT_EQ(to_bf16(float_of(0x3f808000)).bits, 0x3f80);  // 1 + half a step: down to even.
    EXPECT_EQ(to_bf16(float_of(0x3f818000)).bits, 0x3f82);  // 1 + a step and a half: up to even.
    EXPECT_EQ(to_bf16(float_of(0x3f808001)).bits, 0x3f81);
    EXPECT_EQ(to_bf16(float_of(0xbf818000)).bits, 0xbf82);
    EXPECT_EQ(to_bf16(float_of(0x00008000)).bits, 0x0000);  // Half the smallest subnormal.
    EXPECT_EQ(to_bf16(float_of(0x00008001)).bits, 0x0001);
    EXPECT_EQ(to_bf16(-0.0f).bits, 0x8000);
}

TEST(Bf16, OverflowRoundsToInfinityOnlyBeyondTheLastTie) {
    constexpr float kMax = std::numeric_limits<float>::max();
    EXPECT_EQ(to_bf16(kMax).bits, 0x7f80);
    EXPECT_EQ(to_bf16(-kMax).bits, 0xff80);
    EXPECT_EQ(to_bf16(float_of(0x7f7f7fff)).bits, 0x7f7f);
    EXPECT_EQ(to_bf16(float_of(0x7f7f8000)).bits, 0x7f80);
    EXPECT_EQ(to_bf16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
    EXPECT_EQ(to_bf16(-std::numeric_limits<float>::infinity()).bits, 0xff80);
}

TEST(Bf16, EveryKindOfNanStaysAQuietNanWithItsSign) {
    for (const uint32_t bits : {0x7f800001u, 0x7f80ffffu, 0x7fbfffffu, 0x7fc00000u, 0x7fffffffu, 0x7fff8000u}) {
        for (const uint32_t sign : {0u, 0x80000000u}) {
            const uint16_t result = to_bf16(float_of(bits | sign)).bits;
            EXPECT_GT(result & 0x7fff, 0x7f80) << bits;
            EXPECT_NE(result & 0x0040, 0) << "signalling: " << bits;
            EXPECT_EQ(result >> 15, sign >> 31);
        }
    }
}

TEST(DType, SizesAndNames) {
    EXPECT_EQ(size_of(DType::F32), 4);
    EXPECT_EQ(size_of(DType::BF16), 2);
    EXPECT_EQ(size_of(DType::F64), 8);
    EXPECT_EQ(size_of(DType::U8), 1);
    EXPECT_EQ(size_of(dtype_of<bf16>()), static_cast<int64_t>(sizeof(bf16)));
    EXPECT_EQ(name_of(DType::BF16), "bf16");
    EXPECT_EQ(name_of(dtype_of<float>()), "fp32");
}

TEST(Fp16, EveryValueIsItsFormula) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto exponent = static_cast<int>((bits >> 10) & 31u);
        const auto mantissa = static_cast<double>(bits & 0x3ffu);
        const float value = fp16_to_float(static_cast<uint16_t>(bits));
        EXPECT_EQ(std::signbit(value), (bits & 0x8000u) != 0) << bits;
        if (exponent == 31) {
            EXPECT_TRUE(mantissa == 0 ? std::isinf(value) : std::isnan(value)) << bits;
            continue;
        }
        const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
        EXPECT_EQ(std::fabs(static_cast<double>(value)), magnitude) << bits;
    }
}

TEST(Fp16, EveryHalfSurvivesTheRoundTrip) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<uint16_t>(bits);
        const float wide = fp16_to_float(half);
        if (std::isnan(wide)) {
            ASSERT_TRUE(std::isnan(fp16_to_float(float_to_fp16(wide)))) << bits;
        } else {
            ASSERT_EQ(float_to_fp16(wide), half);
        }
    }
}

TEST(Fp16, TheNearestAndOfTwoTheEvenOne) {
    for (uint16_t below = 0; below < 0x7c00; ++below) {
        const auto above = static_cast<uint16_t>(below + 1);
        const float low = fp16_to_float(below), high = above == 0x7c00 ? 65536.0f : fp16_to_float(above);
        const float middle = low + (high - low) / 2;  // Exact: fp32 has 13 bits more.
        ASSERT_EQ(float_to_fp16(middle), below % 2 == 0 ? below : above) << below;
        ASSERT_EQ(float_to_fp16(std::nextafter(middle, 0.0f)), below) << below;
        ASSERT_EQ(float_to_fp16(std::nextafter(middle, 1e9f)), above) << below;
        ASSERT_EQ(float_to_fp16(-middle), float_to_fp16(middle) | 0x8000) << below;
    }
    EXPECT_EQ(float_to_fp16(1e30f), 0x7c00);
    EXPECT_EQ(float_to_fp16(-std::numeric_limits<float>::infinity()), 0xfc00);
    EXPECT_EQ(float_to_fp16(1e-30f), 0);
}

}  // namespace
}  // namespace llmc
