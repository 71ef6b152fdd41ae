#include "llmc/base/units.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(ParseBytes, AcceptsPowersOf1024And1000) {
    const struct {
        const char* text;
        int64_t bytes;
    } cases[] = {
        {"0", 0},
        {"1234", 1234},
        {"1234B", 1234},
        {"512KiB", 512 * 1024},
        {"6GiB", int64_t{6} << 30},
        {"1.5GiB", int64_t{3} << 29},
        {"0.5kib", 512},
        {"80MiB", 80 << 20},
        {"2TiB", int64_t{2} << 40},
        {"6GB", 6'000'000'000},
        {"3kb", 3000},
        {"2.5MB", 2'500'000},
        {"1TB", 1'000'000'000'000},
        {"16 GiB", int64_t{16} << 30},
        {"8000000TiB", int64_t{8000000} << 40},
    };
    for (const auto& row : cases) {
        int64_t bytes = -1;
        EXPECT_TRUE(parse_bytes(row.text, &bytes)) << row.text;
        EXPECT_EQ(bytes, row.bytes) << row.text;
    }
}

TEST(ParseBytes, RefusesWhatIsNoSizeAndLeavesTheResultAlone) {
    for (const char* text :
         {"",    " ",      "B",   "GiB", "-1",    "-5GiB", "12x",         "12PiB", "1.5.5GiB", "0x10", "6GiBs", "6BiB",
          "6bG", "1,5GiB", "nan", "inf", "1e400", "9e18",  "10000000TiB", "80%",   "6i",       "6iB",  "1 2"}) {
        int64_t bytes = 4711;
        EXPECT_FALSE(parse_bytes(text, &bytes)) << text;
        EXPECT_EQ(bytes, 4711) << text;
    }
}

TEST(FormatBytes, PicksTheUnitAndTheDigits) {
    EXPECT_EQ(format_bytes(0), "0 B");
    EXPECT_EQ(format_bytes(1023), "1023 B");
    EXPECT_EQ(format_bytes(1024), "1.00 KiB");
    EXPECT_EQ(format_bytes(512 * 1024), "512.0 KiB");
    EXPECT_EQ(format_bytes(int64_t{3} << 29), "1.50 GiB");
    EXPECT_EQ(format_bytes(int64_t{10} << 20), "10.0 MiB");
    EXPECT_EQ(format_bytes((int64_t{10} << 20) - (1 << 16)), "9.94 MiB");
    EXPECT_EQ(format_bytes(int64_t{5} << 40), "5.00 TiB");
    EXPECT_EQ(format_bytes(int64_t{1} << 60), "1024.0 PiB");
    EXPECT_EQ(format_bytes(-2048), "-2.00 KiB");
}

TEST(FormatBytes, ParsesBackToAboutTheSame) {
    for (int64_t bytes = 1; bytes < int64_t{1} << 50; bytes = bytes * 3 + 7) {
        int64_t back = 0;
        ASSERT_TRUE(parse_bytes(format_bytes(bytes), &back)) << format_bytes(bytes);
        EXPECT_NEAR(static_cast<double>(back), static_cast<double>(bytes), 0.005 * static_cast<double>(bytes)) << bytes;
    }
}

TEST(FormatCount, GroupsThousands) {
    EXPECT_EQ(format_count(0), "0");
    EXPECT_EQ(format_count(999), "999");
    EXPECT_EQ(format_count(1000), "1,000");
    EXPECT_EQ(format_count(124439808), "124,439,808");
    EXPECT_EQ(format_count(-999), "-999");
    EXPECT_EQ(format_count(-1234567), "-1,234,567");
}

TEST(FormatDuration, RoundsToWholeSecondsFirst) {
    EXPECT_EQ(format_duration(0), "0s");
    EXPECT_EQ(format_duration(45), "45s");
    EXPECT_EQ(format_duration(59.6), "1m 00s");
    EXPECT_EQ(format_duration(725), "12m 05s");
    EXPECT_EQ(format_duration(3599.7), "1h 00m");
    EXPECT_EQ(format_duration(3 * 3600 + 7 * 60 + 59), "3h 07m");
    EXPECT_EQ(format_duration(100 * 3600), "100h 00m");
}

TEST(Rounding, UpToMultiples) {
    EXPECT_EQ(round_up(0, 256), 0);
    EXPECT_EQ(round_up(1, 256), 256);
    EXPECT_EQ(round_up(256, 256), 256);
    EXPECT_EQ(round_up(257, 256), 512);
    EXPECT_EQ(ceil_div(0, 3), 0);
    EXPECT_EQ(ceil_div(1, 3), 1);
    EXPECT_EQ(ceil_div(3, 3), 1);
    EXPECT_EQ(ceil_div(4, 3), 2);
}

}  // namespace
}  // namespace llmc
