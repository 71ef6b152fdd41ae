// The typical time of a step.
#include "llmc/train/step_times.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(StepTimes, LeaveOutTheFirstTwo) {
    StepTimes times;
    for (const double ms : {900.0, 800.0}) times.add(ms);
    EXPECT_EQ(times.size(), 0u);
    for (const double ms : {3.0, 1.0, 2.0}) times.add(ms);
    EXPECT_EQ(times.size(), 3u);
    EXPECT_EQ(times.steps(), 5);
    EXPECT_EQ(times.median_ms(), 2);
    times.add(4);
    EXPECT_EQ(times.median_ms(), 3) << "the upper of the two in the middle";
}

TEST(StepTimes, AreThoseOfTheMetrics) {
    StepTimes times;
    for (int i = 0; i < 3; ++i) times.add(0.35449);
    EXPECT_EQ(times.median_ms(), 0.354);
}

TEST(StepTimes, KeepTheLastThousand) {
    StepTimes times;
    for (int i = 0; i < 5000; ++i) times.add(i < 4002 ? 7 : i);
    EXPECT_EQ(times.size(), 1000u);
    EXPECT_EQ(times.median_ms(), 4500) << "of two of 7 ms and 4002 to 4999";
}

}  // namespace
}  // namespace llmc
