// The search: optimal against brute force and closed forms, honest about the budget, never slower with more memory.
#include "llmc/plan/search.h"

#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/long_tests.h"
#include "tests/plan/search_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace llmc {
namespace {

using namespace search_cases;

double binomial(int n, int k) {
    double value = 1;
    for (int i = 1; i <= k; ++i) value = value * (n - k + i) / i;
    return value;
}

/// Fewest forward steps to reverse a chain of l equal steps with s checkpoints, the first state among them: Griewank &
/// Walther 2000, r l - beta(s + 1, r - 1) with beta(s, r) = C(s + r, s) and beta(s, r - 1) < l <= beta(s, r).
double griewank(int l, int s) {
    int r = 0;
    while (binomial(s + r, s) < l) ++r;
    return r == 0 ? 0 : r * static_cast<double>(l) - binomial(s + r, s + 1);
}

TEST(ChainCheckpointing, MeetsTheBinomialBound) {
    const ChainCheckpointing chain(60, 1.0, 0.0);
    for (int l = 1; l <= 60; ++l) {
        for (int s = 1; s <= 12; ++s) EXPECT_EQ(chain.seconds(l, s - 1), griewank(l, s)) << l << " steps, " << s;
    }
}

TEST(ChainCheckpointing, WalksCostWhatTheTableSays) {
    const Model model = small_model(Family::Gpt2, 24);
    const PlanRequest request = request_for(model);
    const OpTimes times = times_for(model, request);
    double layer = 0;
    for (const OpTimes::Row& row : times.block) layer += row.forward;
    const double repeat = layer - times.block.back().forward;
    const ChainCheckpointing chain(24, layer, repeat);
    for (const int slots : {0, 1, 2, 3, 5, 22}) {
        // One segment of all layers but the last, which keeps everything.
        KeepSet keep;
        keep.slots.assign(24, std::vector<bool>(model.activations.size(), false));
        keep.slots.front()[kLayerInput] = true;
        keep.slots.back().assign(model.activations.size(), true);
        keep.walk.resize(24);
        chain.fill_walks(0, 23, slots, &keep.walk);
        const Plan plan = make_training_plan(model, request, keep, "segment");
        double repeated = 0;
        for (const Step& step : plan.steps) {
            if (step.phase == Phase::Recompute) repeated += step_seconds(times, step);
        }
        EXPECT_NEAR(repeated, chain.seconds(23, slots), 1e-9 * repeated) << slots << " slots";
    }
}

class SearchTest : public testing::TestWithParam<Family> {};

/// The search beside all keep-sets there are, at a ladder of their budgets. It finds something wherever there is
/// something, and what it finds is as fast as all that leaves the share `spare` of the budget free: an arena can have
/// gaps, and the search decides by live bytes.
void expect_as_brute_force(const Model& model, const PlanRequest& request, int zero, int rungs, double spare) {
    const OpTimes times = times_for(model, request);
    const BruteForce all(model, request, times);
    const std::string where = fmt::format("{} layers, {} ranks, ZeRO {}", model.config.L, request.parallel.ranks, zero);
    std::vector<int64_t> budgets;
    for (const Outcome& outcome : all.outcomes()) budgets.push_back(outcome.bytes);
    std::sort(budgets.begin(), budgets.end());
    for (int i = 0; i < rungs; ++i) {
        const int64_t budget = budgets[static_cast<size_t>(i) * (budgets.size() - 1) / static_cast<size_t>(rungs - 1)];
        const SearchResult result = search_plan(model, request, times, budget);
        ASSERT_TRUE(result.found) << where << ", " << budget << " bytes";
        EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
        EXPECT_EQ(find_fault(model, result.plan, make_layout(result.plan)), "");
        const auto needed = static_cast<int64_t>((1 - spare) * static_cast<double>(budget));
        EXPECT_LE(result.seconds, all.fastest_within(needed) * (1 + 1e-9)) << where << ", " << budget << " bytes";
    }
    EXPECT_FALSE(search_plan(model, request, times, budgets.front() - 1).found) << where;
}

TEST_P(SearchTest, MatchesBruteForce) {
    // 123,000 keep-sets for six layers of GPT-2.
    const int64_t deepest = !long_tests() ? 4 : GetParam() == Family::Gpt2 ? 6 : 5;
    for (int64_t L = 1; L <= deepest; ++L) {
        const Model model = small_model(GetParam(), L);
        expect_as_brute_force(model, request_for(model), 0, 60, 0);
    }
}

/// With inputs in host memory among the choices, over links that hide every copy, some, and hardly any.
TEST_P(SearchTest, MatchesBruteForceWithHostMemory) {
    for (int64_t L = 2; L <= (long_tests() ? 4 : 3); ++L) {
        const Model model = small_model(GetParam(), L);
        const PlanRequest request = request_for(model);
        OpTimes times = times_for(model, request);
        double layer = 0;
        for (const OpTimes::Row& row : times.block) layer += row.forward;
        const auto input = static_cast<double>(4 * 64 * model.config.C * 4);
        for (const double layers_per_copy : {0.0, 0.7, 5.0}) {
            if (L == 4 && layers_per_copy != 0.7) continue;  // The most keep-sets, 17,000.
            times.host_bandwidth =
                layers_per_copy > 0 ? input / (layers_per_copy * layer) : std::numeric_limits<double>::infinity();
            const BruteForce all(model, request, times, /*with_host=*/true);
            std::vector<int64_t> budgets;
            for (const Outcome& outcome : all.outcomes()) budgets.push_back(outcome.bytes);
            std::sort(budgets.begin(), budgets.end());
            for (const int64_t host : {int64_t{0}, static_cast<int64_t>(input), int64_t{1} << 30}) {
                for (size_t i = 0; i < 25; ++i) {
                    const int64_t budget = budgets[i * (budgets.size() - 1) / 24];
                    const double fastest = all.fastest_within(budget, host);
                    const SearchResult result = search_plan(model, request, times, {budget, host});
                    ASSERT_EQ(result.found, fastest < 1e300) << L << " layers, " << budget << ", " << host;
                    if (!result.found) continue;
                    EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
                    EXPECT_LE(result.plan.host_bytes, host);
                    EXPECT_EQ(find_fault(model, result.plan, make_layout(result.plan)), "");
                    EXPECT_LE(result.seconds, fastest * (1 + 1e-9))
                        << L << " layers, " << budget << " and " << host << " bytes, " << layers_per_copy;
                }
            }
        }
    }
}

/// More of either memory is never slower, and the policy with inputs in host memory never faster.
TEST_P(SearchTest, IsNeverSlowerWithMoreHostMemory) {
    const Model model = small_model(GetParam(), 24);
    const PlanRequest request = request_for(model, {2, 61});
    const OpTimes times = times_for(model, request);
    const int64_t most = make_layout(make_training_plan(model, request, find_policy("none"))).arena_bytes;
    const Plan offload = make_training_plan(model, request, find_policy("offload"));
    for (int64_t budget = make_layout(offload).arena_bytes; budget <= most; budget += most / 11) {
        double before = std::numeric_limits<double>::infinity();
        for (const int64_t host :
             {int64_t{0}, offload.host_bytes / 4, offload.host_bytes / 2, offload.host_bytes, 2 * offload.host_bytes}) {
            const SearchResult result = search_plan(model, request, times, {budget, host});
            if (!result.found) continue;
            EXPECT_LE(result.plan.host_bytes, host);
            EXPECT_LE(result.seconds, before * (1 + 1e-9)) << budget << " and " << host;
            before = result.seconds;
            if (host >= offload.host_bytes) {
                EXPECT_LE(result.seconds, plan_seconds(times, offload) * (1 + 1e-9)) << budget << " and " << host;
            }
        }
        EXPECT_LT(before, std::numeric_limits<double>::infinity()) << budget;
    }
}

TEST(SearchFits, IsTrueOnlyWhereThereIsAPlan) {
    for (const int ranks : {1, 4}) {
        const Model model = small_model(Family::Llama, 7);
        const PlanRequest request = request_for(model, {2, 61}, ranks, ranks > 1 ? 3 : 0);
        const OpTimes times = times_for(model, request);
        const int64_t smallest = search_plan(model, request, times, 1).smallest_bytes;
        EXPECT_TRUE(search_fits(model, request, times, smallest + 8192));
        EXPECT_FALSE(search_fits(model, request, times, smallest / 2));
        for (int64_t budget = smallest / 2; budget < 2 * smallest; budget += smallest / 16) {
            if (!search_fits(model, request, times, budget)) continue;
            EXPECT_TRUE(search_plan(model, request, times, budget).found) << budget;
            EXPECT_TRUE(search_plan(model, request, times, budget, SearchEffort::Quick).found) << budget;
        }
    }
}

TEST_P(SearchTest, MatchesBruteForceWithRanks) {
    for (const int zero : {0, 2, 3}) {  // ZeRO 1 has the plans of ZeRO 0.
        for (int64_t L = 1; L <= (long_tests() ? 4 : 3); ++L) {
            const Model model = small_model(GetParam(), L);
            expect_as_brute_force(model, request_for(model, {4, 64}, 4, zero), zero, 25, 1 / 40.0);
            if (L <= 3) expect_as_brute_force(model, request_for(model, {1, 16}, 4, zero), zero, 25, 0);
        }
    }
}

void expect_never_slower_with_more(const Model& model, const PlanRequest& request, int rungs, double spare) {
    const OpTimes times = times_for(model, request);
    const int64_t most = make_layout(make_training_plan(model, request, find_policy("none"))).arena_bytes;
    std::vector<std::pair<int64_t, double>> found;  ///< Budgets and seconds.
    for (int64_t budget = most / 30; budget <= most + most / 20; budget += most / rungs) {
        const SearchResult result = search_plan(model, request, times, budget);
        if (!result.found) {
            EXPECT_GT(result.smallest_bytes, budget);
            EXPECT_FALSE(result.binding_step.empty());
            EXPECT_TRUE(found.empty()) << "nothing at " << budget << ", but something below";
            continue;
        }
        EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
        EXPECT_EQ(find_fault(model, result.plan, make_layout(result.plan)), "");
        for (const auto& [less, seconds] : found) {
            if (static_cast<double>(less) > (1 - spare) * static_cast<double>(budget)) continue;
            EXPECT_LE(result.seconds, seconds * (1 + 1e-9)) << budget << " after " << less;
        }
        found.emplace_back(budget, result.seconds);
    }
    EXPECT_FALSE(found.empty());
}

TEST_P(SearchTest, KeepsTheBudgetAndIsNeverSlowerWithMore) {
    const Model model = small_model(GetParam(), 24);
    expect_never_slower_with_more(model, request_for(model, {2, 61}), 150, 0);
}

TEST_P(SearchTest, KeepsTheBudgetAndIsNeverSlowerWithMoreWithRanks) {
    const Model model = small_model(GetParam(), 13);
    for (int zero = 0; zero <= 3; ++zero) {
        expect_never_slower_with_more(model, request_for(model, {2, 61}, 4, zero), 25, 1 / 40.0);
    }
}

TEST_P(SearchTest, IsAtLeastAsFastAsEveryPolicyInItsOwnMemory) {
    for (const int64_t L : {4, 12, 25}) {
        const Model model = small_model(GetParam(), L);
        for (const int zero : {-1, 0, 2, 3}) {  // -1: one rank.
            const PlanRequest request = request_for(model, {4, 64}, zero < 0 ? 1 : 4, std::max(zero, 0));
            const OpTimes times = times_for(model, request);
            for (const PolicyRow& policy : policies()) {
                if (policy.host_memory) continue;  // The search keeps to the device's.
                const Plan plan = make_training_plan(model, request, policy);
                const SearchResult result = search_plan(model, request, times, make_layout(plan).arena_bytes);
                ASSERT_TRUE(result.found) << policy.name << ", ZeRO " << zero;
                EXPECT_LE(result.seconds, plan_seconds(times, plan) * (1 + 1e-9))
                    << policy.name << ", " << L << " layers, ZeRO " << zero;
            }
        }
    }
}

TEST_P(SearchTest, SaysTheSmallestBudgetThatWouldDo) {
    const Model model = small_model(GetParam(), 12);
    for (const int ranks : {1, 4}) {
        for (int zero = 0; zero <= (ranks > 1 ? 3 : 0); ++zero) {
            const PlanRequest request = request_for(model, {4, 64}, ranks, zero);
            const OpTimes times = times_for(model, request);
            const SearchResult nothing = search_plan(model, request, times, 1);
            ASSERT_FALSE(nothing.found);
            EXPECT_TRUE(search_plan(model, request, times, nothing.smallest_bytes).found);
            EXPECT_FALSE(search_plan(model, request, times, nothing.smallest_bytes - 8192).found);
        }
    }
}

TEST_P(SearchTest, CountsWhatLinksAreTooSlowFor) {
    const Model model = small_model(GetParam(), 8);
    for (int zero = 0; zero <= 3; ++zero) {
        const PlanRequest request = request_for(model, {2, 61}, 4, zero);
        OpTimes times = times_for(model, request);
        const int64_t budget = make_layout(make_training_plan(model, request, find_policy("attn"))).arena_bytes;
        const double hidden = search_plan(model, request, times, budget).seconds;
        times.link_bandwidth = 1e7;
        const SearchResult slow = search_plan(model, request, times, budget);
        ASSERT_TRUE(slow.found);
        const double sending = static_cast<double>(communication_bytes(slow.plan)) / times.link_bandwidth;
        EXPECT_GT(slow.seconds, sending);
        EXPECT_LT(slow.seconds, hidden + 1.5 * sending);
    }
}

INSTANTIATE_TEST_SUITE_P(Families, SearchTest, testing::Values(Family::Gpt2, Family::Llama),
                         [](const auto& info) { return info.param == Family::Gpt2 ? "Gpt2" : "Llama"; });

TEST(SearchOfRanks, RepeatsNothingWhereTheEmbeddingsReductionNeedsTheMost) {
    ModelConfig config = small_model(Family::Gpt2, 5).config;
    config.V = 50000;
    const Model model = make_model(config);
    const PlanRequest request = request_for(model, {1, 4}, 4, 1);
    const OpTimes times = times_for(model, request);
    const SearchResult nothing = search_plan(model, request, times, 1 << 20);
    ASSERT_FALSE(nothing.found);
    EXPECT_EQ(nothing.binding_step, "embedding, reduce gradients");
    const SearchResult least = search_plan(model, request, times, nothing.smallest_bytes);
    ASSERT_TRUE(least.found);
    const Plan none = make_training_plan(model, request, find_policy("none"));
    EXPECT_NEAR(least.seconds, plan_seconds(times, none), 1e-9 * least.seconds);
    EXPECT_FALSE(search_plan(model, request, times, nothing.smallest_bytes - 1).found);
}

}  // namespace
}  // namespace llmc
