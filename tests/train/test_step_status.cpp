#include "llmc/train/step_status.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(StepStatus, SaysHowFarAStepIs) {
    const StepStatus status = {.step = 12,
                               .steps = 1000,
                               .micro_batch = 3,
                               .micro_batches = 8,
                               .seconds = 4.2,
                               .expected_seconds = 12,
                               .loss = 3.21034};
    EXPECT_EQ(words_of(status), "step 12/1000 | micro-batch 3/8 | 4s of about 12s | loss 3.2103 | 3h 17m left");
}

TEST(StepStatus, LeavesOutWhatNobodyKnows) {
    const StepStatus first = {.step = 1, .steps = 10, .seconds = 61};
    EXPECT_EQ(words_of(first), "step 1/10 | 1m 01s");
}

TEST(StepStatus, AStepThatTakesLongerThanExpectedHasNoNegativeRest) {
    const StepStatus last = {.step = 10, .steps = 10, .seconds = 30, .expected_seconds = 12};
    EXPECT_EQ(words_of(last), "step 10/10 | 30s of about 12s | 0s left");
}

}  // namespace
}  // namespace llmc
