// The frontier's picture names every policy and has no number that is none.
#include "llmc/draw/frontier_plot.h"

#include "tests/plan/frontier_cases.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(FrontierPlot, IsDrawnWithEveryPolicy) {
    for (const int L : {1, 2, 12}) {  // Few layers: several policies are one point, and their labels must not meet.
        const Frontier frontier = frontier_of(small_model(Family::Gpt2, L), {2, 64});
        const std::string svg = draw_frontier(frontier, "title", "subtitle", int64_t{3} << 20);
        for (const PolicyRow& policy : policies()) {
            if (policy.host_memory && L < 12) continue;  // Nothing to move, or nowhere near.
            EXPECT_NE(svg.find(policy.name + std::string(" +")), std::string::npos) << policy.name << ", " << L;
        }
        for (const char* words : {"title", "subtitle", "predicted time", "activation arena, ", "3.00 MiB of it"}) {
            EXPECT_NE(svg.find(words), std::string::npos) << words;
        }
        EXPECT_EQ(svg.find("nan"), std::string::npos);
        EXPECT_EQ(svg.find("inf"), std::string::npos);
    }
}

TEST(FrontierPlot, HasTheBudgetOrTheFloor) {
    const Frontier frontier = frontier_of(small_model(Family::Gpt2, 12), {2, 64});
    const int64_t state = int64_t{3} << 20;
    const auto draw = [&](int64_t limit) { return draw_frontier(frontier, "title", "subtitle", state, limit); };
    const int64_t between = state + (frontier.points.front().arena_bytes + frontier.points.back().arena_bytes) / 2;
    EXPECT_NE(draw(between).find(" in all<"), std::string::npos);
    EXPECT_EQ(draw(0).find(" in all<"), std::string::npos);
    EXPECT_EQ(draw(int64_t{1} << 50).find(" in all<"), std::string::npos) << "beyond the axis";
    EXPECT_NE(draw(state - 1).find("optimiser alone take 3.00 MiB"), std::string::npos);
}

}  // namespace
}  // namespace llmc
