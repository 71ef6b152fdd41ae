// Frozen parameters: what trains has the gradients it has in an unfrozen run, to the bit, under every policy; what does
// not train never changes; and memory and work are those of what is left.
#include "llmc/plan/communicate.h"
#include "llmc/plan/search.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/family_cases.h"
#include "tests/run/frozen_cases.h"
#include "tests/run/rank_team.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace llmc {
namespace {

ModelConfig tiny(Family family) {
    ModelConfig config = plan_cases::small_config(family, 5);
    config.C = 40, config.NH = 5, config.NKV = family == Family::Gpt2 ? 5 : 1, config.maxT = 13;
    config.F = family == Family::Gpt2 ? 160 : 52;
    return config;
}

class FrozenTest : public testing::TestWithParam<FamilyCase> {
  protected:
    void SetUp() override {
        if (GetParam().dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) {
            GTEST_SKIP() << "this processor or build has no bf16";
        }
    }
    ModelConfig config() const { return tiny(GetParam().family); }
    TinyTrainer trainer(const Model& model, const std::string& policy) const {
        return {model, kShape, GetParam().dtype, nullptr, policy, /*threads=*/1};
    }
    /// `test` for every pattern that the model has, or every some, and the model with it.
    template <typename Test>
    void for_each_pattern(Test test, size_t every = 1) const {
        int tried = 0;
        for (size_t i = 0; i < kFreezePatterns.size(); ++i) {
            bool applies = false;
            const Model model = frozen_model(config(), kFreezePatterns[i], &applies);
            if (!applies || tried++ % every != 0) continue;
            SCOPED_TRACE(kFreezePatterns[i]);
            test(model);
        }
        EXPECT_GE(tried, 15);
    }
    static constexpr BatchShape kShape = {2, 13};
};

TEST_P(FrozenTest, GradientsAreThoseOfAnUnfrozenRun) {
    TinyTrainer whole = trainer(make_model(config()), "none");
    const FrozenRun expected = run_frozen(whole);
    for_each_pattern([&](const Model& model) {
        TinyTrainer part = trainer(model, "none");
        const FrozenRun result = run_frozen(part);
        EXPECT_EQ(result.first_loss, expected.first_loss);
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            const bool is_same = same_bits(result.gradients[i], expected.gradients[i]);
            EXPECT_TRUE(row.trainable ? is_same : result.gradients[i].empty()) << row.name;
        }
    });
}

TEST_P(FrozenTest, OnlyWhatTrainsChanges) {
    for_each_pattern([&](const Model& model) {
        TinyTrainer part = trainer(model, "layer");
        part.state().initialise(7);
        const std::vector<std::vector<float>> before = weights_of(part.state());
        const FrozenRun after = run_frozen(part);
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            EXPECT_EQ(!same_bits(before[i], after.weights[i]), row.trainable) << row.name;
        }
    });
}

TEST_P(FrozenTest, SameBitsUnderEveryPolicyInTheMemoryPredicted) {
    size_t turn = 0;
    for_each_pattern([&](const Model& model) {
        TinyTrainer reference = trainer(model, "none");
        const FrozenRun expected = run_frozen(reference);
        ++turn;
        for (size_t i = 0; i < policies().size(); ++i) {
            if (i % 2 != turn % 2) continue;  // Each with half of the patterns, and each pattern with half of them.
            const PolicyRow& policy = policies()[i];
            TinyTrainer part = trainer(model, policy.name);
            EXPECT_TRUE(run_frozen(part) == expected) << policy.name;
            EXPECT_EQ(part.state().allocated_bytes(), part.memory().total_bytes()) << policy.name;
            EXPECT_EQ(part.executor().high_water_bytes(), part.memory().layout.arena_bytes) << policy.name;
        }
    });
}

TEST_P(FrozenTest, SameBitsUnderSearchedPlans) {
    const auto backend = make_backend("cpu", 1);
    for_each_pattern(
        [&](const Model& model) {
            TinyTrainer reference = trainer(model, "none");
            const FrozenRun expected = run_frozen(reference);
            const Places places(GetParam().dtype);
            const PlanRequest request = plan_request(model, kShape, places, 0, *backend);
            const OpTimes times = analytic_times(model, kShape, places, {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
            const int64_t least = search_plan(model, request, times, 1).smallest_bytes;
            const int64_t most = reference.memory().layout.arena_bytes;
            ASSERT_LE(least, most);
            double seconds = 1e9;
            for (const int64_t budget : {least, (least + most) / 2, most}) {
                const SearchResult result = search_plan(model, request, times, budget);
                ASSERT_TRUE(result.found) << budget;
                EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
                EXPECT_LE(result.seconds, seconds);
                seconds = result.seconds;
                TinyTrainer part(model, kShape, GetParam().dtype, &result.keep, "none", 1);
                EXPECT_TRUE(run_frozen(part) == expected) << result.summary;
            }
            for (const PolicyRow& policy : policies()) {
                if (policy.host_memory) continue;
                const PlannedMemory fixed = plan_memory(model, kShape, places, policy, 0, *backend);
                const SearchResult result = search_plan(model, request, times, fixed.layout.arena_bytes);
                ASSERT_TRUE(result.found) << policy.name;
                EXPECT_LE(result.seconds, plan_seconds(times, fixed.plan)) << policy.name;
            }
        },
        /*every=*/4);
}

INSTANTIATE_TEST_SUITE_P(Families, FrozenTest, family_cases(), family_case_name);

/// Ranks: every ZeRO stage keeps the bits, with buckets that are frozen, mixed and trainable.
TEST(FrozenRanks, StagesGiveTheSameBits) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        for (const char* freeze : {"wte", "*,!layers.*.fc_*,!layers.1.*", "*,!*ln*", "layers.0-1.*,wte,wpe"}) {
            bool applies = false;
            TeamRun run;
            run.config = plan_cases::small_config(family, 3);
            run.config.maxT = 16;
            run.freeze = freeze;
            frozen_model(run.config, freeze, &applies);
            if (!applies) continue;
            run.parallel.ranks = 3;
            const TeamResult expected = RankTeam(run).train();
            for (int zero = 0; zero <= 3; ++zero) {
                for (const char* policy : {"none", "sqrt", "offload"}) {
                    run.zero = zero, run.policy = policy;
                    const TeamResult team = RankTeam(run).train();
                    EXPECT_EQ(team.losses, expected.losses) << freeze << ", ZeRO " << zero << ", " << policy;
                    EXPECT_EQ(team.norms, expected.norms) << freeze << ", ZeRO " << zero << ", " << policy;
                    EXPECT_EQ(team.weights, expected.weights) << freeze << ", ZeRO " << zero << ", " << policy;
                }
            }
        }
    }
}

TEST(FrozenRanks, FixedOrderGivesTheBitsOfOneRank) {
    TeamRun run;
    run.config = plan_cases::small_config(Family::Gpt2, 3);
    run.config.maxT = 16;
    run.freeze = "wte,layers.0.*,layers.*.ln*";
    run.parallel.rank_invariant = true;
    run.parallel.micro_batches = 4;
    const TeamResult expected = RankTeam(run).train();
    for (const int ranks : {2, 4}) {
        for (int zero = 0; zero <= 3; ++zero) {
            run.parallel.ranks = ranks, run.parallel.micro_batches = 4 / ranks, run.zero = zero;
            const TeamResult team = RankTeam(run).train();
            EXPECT_EQ(team.norms, expected.norms) << ranks << " ranks, ZeRO " << zero;
            EXPECT_EQ(team.weights, expected.weights) << ranks << " ranks, ZeRO " << zero;
        }
    }
}

}  // namespace
}  // namespace llmc
