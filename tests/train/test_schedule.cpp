// Learning-rate schedules at their edges, against the formulas written out.
#include "llmc/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace llmc {
namespace {

Schedule schedule(const std::string& shape) {
    return {.shape = shape, .peak = 0.02, .final_fraction = 0.1, .warmup = 10, .steps = 110, .decay_fraction = 0.2};
}

TEST(Schedule, WarmUpIsLinearAndReachesThePeakWithItsLastUpdate) {
    for (const char* shape : {"cosine", "linear", "constant", "wsd"}) {
        const Schedule s = schedule(shape);
        EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.002) << shape;
        EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0.010) << shape;
        EXPECT_DOUBLE_EQ(learning_rate(s, 9), 0.020) << shape;
        EXPECT_DOUBLE_EQ(learning_rate(s, 10), 0.020) << shape;
    }
}

TEST(Schedule, WithoutWarmUpItStartsAtThePeak) {
    for (const char* shape : {"cosine", "linear", "constant", "wsd"}) {
        Schedule s = schedule(shape);
        s.warmup = 0;
        EXPECT_DOUBLE_EQ(learning_rate(s, 0), s.peak) << shape;
    }
}

TEST(Schedule, CosineFallsToTheFinalFraction) {
    const Schedule s = schedule("cosine");
    EXPECT_DOUBLE_EQ(learning_rate(s, 109), 0.002);
    for (int64_t step = 10; step < 110; ++step) {
        const double angle = std::numbers::pi * static_cast<double>(step - 10) / 99;
        ASSERT_NEAR(learning_rate(s, step), 0.002 + 0.018 * (1 + std::cos(angle)) / 2, 1e-15) << step;
    }
}

TEST(Schedule, LinearFallsToTheFinalFraction) {
    const Schedule s = schedule("linear");
    EXPECT_DOUBLE_EQ(learning_rate(s, 109), 0.002);
    for (int64_t step = 10; step < 110; ++step) {
        ASSERT_NEAR(learning_rate(s, step), 0.02 - 0.018 * static_cast<double>(step - 10) / 99, 1e-15) << step;
    }
}

TEST(Schedule, ConstantStays) {
    for (const int64_t step : {10, 50, 109}) EXPECT_EQ(learning_rate(schedule("constant"), step), 0.02);
}

TEST(Schedule, WsdDecaysInItsLastFifth) {
    const Schedule s = schedule("wsd");  // 22 of 110 updates
    for (const int64_t step : {10, 50, 87, 88}) EXPECT_EQ(learning_rate(s, step), 0.02) << step;
    EXPECT_DOUBLE_EQ(learning_rate(s, 109), 0.002);
    EXPECT_NEAR(learning_rate(s, 95), 0.02 - 0.018 * 7 / 21, 1e-15);
}

TEST(Schedule, WsdMayDecayNeverOrFromTheWarmUpOn) {
    Schedule s = schedule("wsd");
    s.decay_fraction = 0;
    EXPECT_EQ(learning_rate(s, 109), 0.02);
    s.decay_fraction = 1;
    for (const int64_t step : {10, 60, 109}) EXPECT_EQ(learning_rate(s, step), learning_rate(schedule("linear"), step));
}

TEST(Schedule, NeverRisesAfterTheWarmUp) {
    for (const char* shape : {"cosine", "linear", "constant", "wsd"}) {
        const Schedule s = schedule(shape);
        for (int64_t step = 10; step < 120; ++step) {
            ASSERT_LE(learning_rate(s, step + 1), learning_rate(s, step)) << shape << step;
            ASSERT_GE(learning_rate(s, step), 0.002) << shape << step;
        }
    }
}

TEST(Schedule, RunsAsShortAsTheirWarmUpOrOneUpdate) {
    for (const char* shape : {"cosine", "linear", "constant", "wsd"}) {
        Schedule s = schedule(shape);
        s.steps = 10;
        EXPECT_DOUBLE_EQ(learning_rate(s, 9), 0.02) << shape;
        s.steps = 1;
        s.warmup = 0;
        EXPECT_TRUE(std::isfinite(learning_rate(s, 0))) << shape;
        s.warmup = 100;  // Longer than the run: it ends on the way up.
        EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.0002) << shape;
    }
}

}  // namespace
}  // namespace llmc
