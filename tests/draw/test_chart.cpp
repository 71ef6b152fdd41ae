#include "llmc/draw/chart.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llmc {
namespace {

TEST(Ticks, AreRoundAndFew) {
    EXPECT_EQ(linear_ticks(0, 100, 11), (std::vector<double>{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}));
    EXPECT_EQ(linear_ticks(0, 100, 5), (std::vector<double>{0, 50, 100}));
    EXPECT_EQ(linear_ticks(-3, 43, 6), (std::vector<double>{0, 10, 20, 30, 40}));
    EXPECT_EQ(linear_ticks(2, 2, 5), std::vector<double>{2});
    for (double high = 1e-6; high < 1e12; high *= 1.37) {
        for (const int most : {4, 9, 12}) {
            const std::vector<double> ticks = linear_ticks(0, high, most);
            ASSERT_GE(ticks.size(), 2u) << high;
            EXPECT_LE(static_cast<int>(ticks.size()), most) << high;
            EXPECT_EQ(ticks.front(), 0);
            EXPECT_LE(ticks.back(), high * (1 + 1e-9));
        }
    }
}

TEST(Ticks, OfALogarithmicAxis) {
    EXPECT_EQ(log_ticks(0.8, 60, 12), (std::vector<double>{1, 2, 5, 10, 20, 50}));
    EXPECT_EQ(log_ticks(10, 25, 5), linear_ticks(10, 25, 5));  // Too short for powers of ten.
    for (double high = 2; high < 1e12; high *= 3.1) {
        const std::vector<double> ticks = log_ticks(1.3, high * 1.3, 10);
        ASSERT_GE(ticks.size(), 2u) << high;
        EXPECT_LE(ticks.size(), 10u) << high;
        for (size_t i = 0; i + 1 < ticks.size(); ++i) EXPECT_LT(ticks[i], ticks[i + 1]);
    }
}

TEST(ByteUnit, MakesSmallNumbers) {
    EXPECT_STREQ(byte_unit(5).name, "B");
    EXPECT_STREQ(byte_unit(int64_t{1} << 20).name, "MiB");
    EXPECT_STREQ(byte_unit((int64_t{1} << 30) - 1).name, "MiB");
    EXPECT_STREQ(byte_unit(int64_t{5000} << 40).name, "TiB");
    EXPECT_EQ(byte_unit(int64_t{3} << 30).bytes, 1073741824.0);
}

TEST(Chart, PlacesValuesBetweenItsEdges) {
    const Chart chart({100, 50, 200, 400}, {"x", 1, 100, {}, true}, {"y", 0, 8, {}});
    EXPECT_DOUBLE_EQ(chart.x(1), 100);
    EXPECT_DOUBLE_EQ(chart.x(10), 200);
    EXPECT_DOUBLE_EQ(chart.x(100), 300);
    EXPECT_DOUBLE_EQ(chart.y(0), 450);
    EXPECT_DOUBLE_EQ(chart.y(8), 50);
    EXPECT_DOUBLE_EQ(chart.at(10, 2).y, 350);
}

TEST(Chart, DrawsEveryTickAndBothLabels) {
    const Chart chart({100, 50, 200, 400}, {"memory, GiB", 0, 100, {0, 50}}, {"time, ms", 0, 8, {0, 2.5}});
    SvgCanvas canvas(400, 500, "");
    chart.draw_grid(&canvas);
    chart.draw_axes(&canvas);
    const std::string svg = canvas.finish();
    for (const char* words : {">memory, GiB<", ">time, ms<", ">50<", ">2.5<"}) {
        EXPECT_NE(svg.find(words), std::string::npos) << words;
    }
}

TEST(Legend, BreaksIntoRows) {
    SvgCanvas canvas(300, 100, "");
    const LegendEntry entry = {"twenty letters, about", {.fill = "#aaa"}};
    EXPECT_EQ(draw_legend(&canvas, {0, 0, 250, 0}, {entry}), 22);
    EXPECT_EQ(draw_legend(&canvas, {0, 0, 250, 0}, {entry, entry, entry}), 66);
    EXPECT_EQ(draw_legend(&canvas, {0, 0, 900, 0}, {entry, entry, entry}), 22);
}

}  // namespace
}  // namespace llmc
