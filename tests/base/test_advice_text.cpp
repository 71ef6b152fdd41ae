// Sizes that can be typed are read back to the byte, or as no less.
#include "llmc/base/advice_text.h"

#include "llmc/base/units.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(AdviceText, NearestMultiplesAreBelowAndAbove) {
    EXPECT_EQ(nearest_multiples(1000, 64), "960 or 1024");
    EXPECT_EQ(nearest_multiples(63, 64), "64");
    EXPECT_EQ(nearest_multiples(65, 64), "64 or 128");
}

TEST(SizeOption, IsReadBackToTheByte) {
    EXPECT_EQ(size_option(int64_t{24} << 30), "24GiB");
    EXPECT_EQ(size_option(24683479040), "23540MiB");
    EXPECT_EQ(size_option(1500), "1500B");
    EXPECT_EQ(size_option_from((int64_t{24} << 30) + 1), "24577MiB");
    EXPECT_EQ(size_option_from(1500), "2KiB");
    for (int64_t bytes = 1; bytes < int64_t{1} << 50; bytes = bytes * 3 + 7) {
        int64_t exact = 0, rounded = 0;
        ASSERT_TRUE(parse_bytes(size_option(bytes), &exact));
        ASSERT_TRUE(parse_bytes(size_option_from(bytes), &rounded));
        EXPECT_EQ(exact, bytes);
        EXPECT_GE(rounded, bytes);
        EXPECT_LE(rounded - bytes, bytes < 64 << 20 ? 1023 : (1 << 20) - 1);
    }
}

TEST(FormatStepSeconds, ChangesToSecondsAtTen) {
    EXPECT_EQ(format_step_seconds(0.4124), "412 ms");
    EXPECT_EQ(format_step_seconds(9.9), "9900 ms");
    EXPECT_EQ(format_step_seconds(4412.7), "4413 s");
}

}  // namespace
}  // namespace llmc
