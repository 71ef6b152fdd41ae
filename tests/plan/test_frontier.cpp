// The frontier: falls as memory rises, has every fixed policy of the device's memory beside it, and is never above one.
#include "llmc/plan/frontier.h"

#include "tests/plan/frontier_cases.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(Frontier, FallsFromTheSmallestPlanToLevel0) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 12);
        const PlanRequest request = request_of(model, {4, 257}, DType::F32);
        const OpTimes times = analytic_times(model, request.shape, Places(), kDevice);
        const Frontier frontier = frontier_of(model, request.shape);
        ASSERT_GE(frontier.points.size(), 10u);
        for (size_t i = 1; i < frontier.points.size(); ++i) {
            EXPECT_GT(frontier.points[i].arena_bytes, frontier.points[i - 1].arena_bytes);
            EXPECT_LT(frontier.points[i].seconds, frontier.points[i - 1].seconds);
        }
        EXPECT_EQ(frontier.points.front().arena_bytes, search_plan(model, request, times, 1).smallest_bytes);
        EXPECT_DOUBLE_EQ(frontier.points.back().seconds, frontier.level0_seconds);
        EXPECT_FALSE(frontier.points.front().kept.empty());
    }
}

TEST(Frontier, ComparesEveryFixedPolicyInItsOwnMemory) {
    const Model model = small_model(Family::Gpt2, 12);
    const BatchShape shape = {2, 64};
    const Frontier frontier = frontier_of(model, shape);
    for (const PolicyRow& policy : policies()) {
        if (policy.host_memory) continue;
        const Plan plan = make_training_plan(model, request_of(model, shape, DType::F32), policy);
        const auto row = std::find_if(frontier.comparisons.begin(), frontier.comparisons.end(),
                                      [&](const auto& r) { return r.up_to.empty() && r.policy == policy.name; });
        ASSERT_NE(row, frontier.comparisons.end()) << policy.name;
        EXPECT_EQ(row->arena_bytes, make_layout(plan).arena_bytes);
        EXPECT_LE(row->found.arena_bytes, row->arena_bytes);
        EXPECT_LE(row->found.seconds, row->policy_seconds * (1 + 1e-9)) << policy.name;
    }
    EXPECT_TRUE(std::is_sorted(frontier.comparisons.begin(), frontier.comparisons.end(),
                               [](const auto& a, const auto& b) { return a.arena_bytes < b.arena_bytes; }));
}

TEST(Frontier, CountsMicroBatchesAndTheOptimiser) {
    const Model model = small_model(Family::Gpt2, 4);
    const BatchShape shape = {2, 64};
    const OpTimes times = analytic_times(model, shape, Places(), kDevice);
    const double one = frontier_of(model, shape, 1).level0_seconds, five = frontier_of(model, shape, 5).level0_seconds;
    // What runs once: gaps are zeroed before the first, and the update comes after the last.
    double once = 0;
    const Plan plan = make_training_plan(model, request_of(model, shape, DType::F32), find_policy("none"));
    for (const Step& step : plan.steps) {
        const bool zeroes = step.kind == StepKind::ZeroGradients;
        if (zeroes || step.phase == Phase::Update) once += step_seconds(times, step);
    }
    EXPECT_GT(once, 0);
    EXPECT_NEAR(five - once, 5 * (one - once), 1e-9 * five);
}

/// What the search is for: gpt2-xl between level 2 and level 1.
TEST(Frontier, OfGpt2XlBeatsLevel2ByPointsAndHalfwayByMany) {
    const Model model = make_model(preset("gpt2-xl"));
    const BatchShape shape = {8, 1024};
    const PlanRequest request = request_of(model, shape, DType::F32);
    const OpTimes times = analytic_times(model, shape, Places(), find_device_profile("a100"));
    const Frontier frontier = find_frontier(model, request, times, 2);
    const auto gained = [&](const std::string& policy, const std::string& up_to) {
        for (const FrontierComparison& row : frontier.comparisons) {
            if (row.policy != policy || row.up_to != up_to) continue;
            return 100 * (frontier.over_level0(row.policy_seconds) - frontier.over_level0(row.found.seconds));
        }
        return -1.0;
    };
    EXPECT_GE(gained("sqrt", ""), 2);
    EXPECT_GE(gained("sqrt", "layer"), 10);
}

}  // namespace
}  // namespace llmc
