// What plans decide per layer: bytes that are kept and seconds that repeat add up to those of the plan, and every mode
// has words.
#include "llmc/plan/decisions.h"

#include "llmc/plan/search.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace llmc {
namespace {

using namespace plan_cases;

const DeviceProfile kDevice = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};

void expect_adds_up(const Model& model, const Plan& plan, const KeepSet& keep, const OpTimes& times) {
    const std::vector<LayerDecision> rows = layer_decisions(model, plan, keep, times);
    double repeated = 0, planned = 0;
    int64_t to_host = 0;
    int next = 0;
    for (const LayerDecision& row : rows) {
        EXPECT_EQ(row.first, next);
        next = row.last + 1;
        repeated += row.count() * row.repeated_seconds;
        to_host += row.count() * row.host_bytes;
        EXPECT_EQ(row.input_on_host, row.host_bytes > 0);
    }
    EXPECT_EQ(next, model.config.L);
    for (const Step& step : plan.steps) planned += step.phase == Phase::Recompute ? step_seconds(times, step) : 0;
    EXPECT_NEAR(repeated, planned, 1e-9 * planned + 1e-15);
    EXPECT_EQ(to_host, plan.host_bytes);
    for (const LayerDecision& row : rows) {
        const std::vector<ModeWords> words = decision_words(rows);
        EXPECT_TRUE(std::any_of(words.begin(), words.end(), [&](const ModeWords& w) { return w.name == row.keeps; }))
            << row.keeps;
    }
}

TEST(LayerDecisions, AddUpForEveryPolicy) {
    for (const Model& model : small_models(7)) {
        const PlanRequest request = request_of(model, {2, 61}, DType::F32);
        const OpTimes times = analytic_times(model, request.shape, Places(), kDevice);
        for (const PolicyRow& policy : policies()) {
            expect_adds_up(model, make_training_plan(model, request, policy), policy.function(model), times);
        }
    }
}

TEST(LayerDecisions, AddUpForWhatTheSearchFinds) {
    const Model model = small_model(Family::Llama, 12);
    const PlanRequest request = request_of(model, {2, 61}, DType::F32);
    const OpTimes times = analytic_times(model, request.shape, Places(), kDevice);
    const int64_t most = make_layout(make_training_plan(model, request, find_policy("none"))).arena_bytes;
    for (int64_t budget = search_plan(model, request, times, 1).smallest_bytes; budget <= most; budget += most / 12) {
        const SearchResult found = search_plan(model, request, times, budget);
        ASSERT_TRUE(found.found);
        expect_adds_up(model, found.plan, found.keep, times);
    }
}

TEST(LayerDecisions, AreNamedAsTheSearchNamesThem) {
    const Model model = small_model(Family::Gpt2, 6);
    const PlanRequest request = request_of(model, {2, 61}, DType::F32);
    const OpTimes times = analytic_times(model, request.shape, Places(), kDevice);
    const auto names_of = [&](const char* name) {
        const PolicyRow& policy = find_policy(name);
        std::string names;
        const Plan plan = make_training_plan(model, request, policy);
        for (const LayerDecision& row : layer_decisions(model, plan, policy.function(model), times)) {
            names += row.keeps + " ";
        }
        return names;
    };
    EXPECT_EQ(names_of("none"), "all ");
    EXPECT_EQ(names_of("layer"), "boundary all ");
    EXPECT_EQ(names_of("act"), "act all ");
    EXPECT_EQ(names_of("attn"), "attn all ");
    EXPECT_NE(names_of("sqrt").find("in-segment"), std::string::npos);
}

TEST(PolicyWords, SqrtSaysItsK) {
    EXPECT_NE(policy_words(find_policy("sqrt"), small_model(Family::Gpt2, 12)).find("(k = 3)"), std::string::npos);
    EXPECT_NE(policy_words(find_policy("sqrt"), small_model(Family::Gpt2, 48)).find("(k = 6)"), std::string::npos);
    EXPECT_EQ(policy_words(find_policy("none"), small_model(Family::Gpt2, 12)), find_policy("none").description);
}

}  // namespace
}  // namespace llmc
