// Ranks on the CPU: what several of them train is what one trains, at every ZeRO stage and under every policy, in the
// memory that was planned.
#include "tests/run/rank_team.h"

#include <cmath>

namespace llmc {
namespace {

TeamRun tiny_run(Family family, int ranks, int zero, int64_t micro_batches) {
    TeamRun run;
    run.config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    run.config.family = family, run.config.features = row_of(family).features;
    run.config.L = 3, run.config.C = 32, run.config.NH = 2, run.config.HD = 16, run.config.V = 97;
    run.config.NKV = family == Family::Gpt2 ? 2 : 1;
    run.config.F = family == Family::Gpt2 ? 128 : 88;
    run.config.maxT = 16;
    run.parallel.ranks = ranks, run.zero = zero, run.parallel.micro_batches = micro_batches;
    return run;
}

class RanksTest : public testing::TestWithParam<Family> {};

TEST_P(RanksTest, TrainAsOneDoes) {
    const TeamResult alone = RankTeam(tiny_run(GetParam(), 1, 0, 12)).train();
    EXPECT_LT(alone.losses.back(), 6);
    for (const int ranks : {2, 3, 4}) {
        for (int zero = 0; zero <= 3; ++zero) {
            const TeamResult team = RankTeam(tiny_run(GetParam(), ranks, zero, 12 / ranks)).train();
            for (size_t step = 0; step < alone.losses.size(); ++step) {
                EXPECT_NEAR(team.losses[step] / alone.losses[step], 1, 1e-6) << ranks << " ranks, ZeRO " << zero;
                EXPECT_NEAR(team.norms[step] / alone.norms[step], 1, 1e-5) << ranks << " ranks, ZeRO " << zero;
            }
        }
    }
}

/// With one micro-batch per rank all stages add up the same parts in the same order.
TEST_P(RanksTest, StagesAndPoliciesGiveTheSameBits) {
    const TeamResult expected = RankTeam(tiny_run(GetParam(), 3, 0, 1)).train();
    for (int zero = 0; zero <= 3; ++zero) {
        for (const PolicyRow& policy : policies()) {
            TeamRun run = tiny_run(GetParam(), 3, zero, 1);
            run.policy = policy.name;
            const TeamResult team = RankTeam(run).train();
            EXPECT_EQ(team.losses, expected.losses) << "ZeRO " << zero << ", " << policy.name;
            EXPECT_EQ(team.norms, expected.norms) << "ZeRO " << zero << ", " << policy.name;
            EXPECT_EQ(team.weights, expected.weights) << "ZeRO " << zero << ", " << policy.name;
        }
    }
}

/// The order of sums that holds for any number of ranks, also where the micro-batches are no power of two.
TEST_P(RanksTest, FixedOrderGivesTheBitsOfOneRank) {
    for (const int64_t total : {4, 12}) {
        TeamRun one = tiny_run(GetParam(), 1, 0, total);
        one.parallel.rank_invariant = true;
        const TeamResult expected = RankTeam(one).train();
        for (const int ranks : {2, 4}) {
            for (int zero = 0; zero <= 3; ++zero) {
                TeamRun run = tiny_run(GetParam(), ranks, zero, total / ranks);
                run.parallel.rank_invariant = true;
                const TeamResult team = RankTeam(run).train();
                EXPECT_EQ(team.norms, expected.norms) << ranks << " ranks, ZeRO " << zero;
                EXPECT_EQ(team.weights, expected.weights) << ranks << " ranks, ZeRO " << zero;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Families, RanksTest, testing::Values(Family::Gpt2, Family::Llama, Family::Qwen3),
                         [](const auto& info) { return std::string(row_of(info.param).key); });

}  // namespace
}  // namespace llmc
