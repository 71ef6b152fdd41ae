// Plans of models with frozen rows: what is not there any more, what is not kept, and what the verifier says of plans
// that work for frozen rows all the same.
#include "llmc/model/trainable.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/cost.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {2, 7};

Model frozen(const Model& model, const std::string& patterns) {
    return with_trainable(model, parse_patterns("--freeze", patterns, false));
}

Plan plan_of(const Model& model, const std::string& policy, int ranks = 1, int zero = 0) {
    return make_training_plan(model, request_of_ranks(model, kShape, DType::F32, ranks, zero), find_policy(policy));
}

bool is_backward(const Step& step) { return step.kind == StepKind::Compute && step.pass != Pass::Forward; }

/// `test` for every pattern that a model has.
template <typename Test>
void for_each_pattern(Test test) {
    for (const Model& model : small_models(5)) {
        for (const std::string& patterns : kFreezePatterns) {
            bool applies = false;
            const Model with = frozen_model(model.config, patterns, &applies);
            SCOPED_TRACE(model.config.name + ": " + patterns);
            if (applies) test(model, with);
        }
    }
}

TEST(FrozenPlan, WorksForWhatTrainsAndVerifies) {
    for_each_pattern([](const Model& whole, const Model& model) {
        const int lowest = GradientPath(model).lowest_layer();
        for (const PolicyRow& policy : policies()) {
            for (const auto& [ranks, zero] : {std::pair(1, 0), std::pair(3, 2), std::pair(3, 3)}) {
                const Plan plan = plan_of(model, policy.name, ranks, zero);
                EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << policy.name << ", ZeRO " << zero;
                std::vector<bool> written(model.parameters.size(), false);
                for (const Step& step : plan.steps) {
                    const bool of_backward = is_backward(step) || step.phase == Phase::Recompute;
                    EXPECT_FALSE(of_backward && step.layer >= 0 && step.layer < lowest) << describe_step(model, step);
                    if (!writes_gradients(model, step)) continue;
                    for (const int parameter : parameters_of(model, step)) {
                        if (parameter != kNone) written[static_cast<size_t>(parameter)] = true;
                    }
                }
                for (size_t i = 0; i < written.size(); ++i) {
                    EXPECT_TRUE(written[i] || !model.parameters[i].trainable) << model.parameters[i].name;
                }
                if (ranks > 1) continue;
                const Plan of_whole = plan_of(whole, policy.name);
                EXPECT_LE(simulate(model, plan).peak_bytes, simulate(whole, of_whole).peak_bytes) << policy.name;
                EXPECT_LE(plan.host_bytes, of_whole.host_bytes) << policy.name;
                EXPECT_LT(simulate(model, plan).backward_flops, simulate(whole, of_whole).backward_flops + 1);
            }
        }
    });
}

/// With nothing but the head trained there is no backward; with the upper half, half of the layers' gradients.
TEST(FrozenPlan, KeepsNothingBelowTheFirstTrainableRow) {
    for (const Model& model : small_models(6)) {
        const Model upper = frozen(model, model.wpe == kNone ? "wte,layers.0-2.*" : "wte,wpe,layers.0-2.*");
        const Plan plan = plan_of(upper, "none");
        const std::vector<Lifetime> lives = lifetimes(plan);
        const auto head = static_cast<int>(
            std::find_if(plan.steps.begin(), plan.steps.end(), [](const Step& s) { return s.phase == Phase::Head; }) -
            plan.steps.begin());
        for (size_t t = 0; t < plan.tensors.size(); ++t) {
            if (plan.tensors[t].layer < 0 || plan.tensors[t].layer >= 3) continue;
            EXPECT_LT(lives[t].last, head) << plan.tensors[t].name << " of layer " << plan.tensors[t].layer;
        }
        const Plan norm_only = plan_of(frozen(model, "*,!lnf_*"), "none");
        EXPECT_LT(simulate(upper, norm_only).layer_activation_bytes, simulate(upper, plan).layer_activation_bytes / 2);
        EXPECT_EQ(simulate(upper, norm_only).recompute_flops, 0);
    }
}

/// A frozen product keeps nothing of its input; a norm and attention keep what they did.
TEST(FrozenPlan, InputsOfFrozenProductsAreNotKept) {
    const Model model = small_model(Family::Llama, 4);
    const Model matrices_frozen = frozen(model, "layers.*,!layers.0.ln1_weight");
    const auto kept = [&](const Model& of) {
        const Plan plan = plan_of(of, "none");
        const std::vector<Lifetime> lives = lifetimes(plan);
        std::vector<std::string> names;
        for (size_t t = 0; t < plan.tensors.size(); ++t) {
            if (plan.tensors[t].layer != 2 || lives[t].last < 0) continue;
            if (plan.steps[static_cast<size_t>(lives[t].first)].phase != Phase::Forward) continue;
            const bool survives = plan.steps[static_cast<size_t>(lives[t].last)].phase == Phase::Backward;
            if (survives && plan.tensors[t].name != "workspace") names.push_back(plan.tensors[t].name);
        }
        std::sort(names.begin(), names.end());
        return names;
    };
    using Names = std::vector<std::string>;
    EXPECT_EQ(kept(model), (Names{"act_out", "att_lse", "att_out", "gate_up", "ln1_out", "ln1_rstd", "ln2_out",
                                  "ln2_rstd", "qkv", "x", "x_mid"}));
    EXPECT_EQ(kept(matrices_frozen),
              (Names{"att_lse", "att_out", "gate_up", "ln1_rstd", "ln2_rstd", "qkv", "x", "x_mid"}));
}

TEST(FrozenPlan, GathersNameTheirBuffer) {
    for (const Model& model : small_models(3)) {
        const Model mixed = frozen(model, "wte,layers.0.*,layers.1.*_weight");
        const Plan plan = plan_of(mixed, "layer", 4, 3);
        std::set<std::pair<int, Buffer>> gathered;
        for (const Step& step : plan.steps) {
            if (step.kind != StepKind::Gather) continue;
            EXPECT_NE(step.operand(slot_of(step.buffer)), kNone);
            gathered.insert({step.bucket, step.buffer});
        }
        EXPECT_EQ(gathered.count({0, Buffer::Frozen}), 1u);
        EXPECT_EQ(gathered.count({1, Buffer::Frozen}), 1u);
        EXPECT_EQ(gathered.count({1, Buffer::Parameters}), 0u);
        EXPECT_EQ(gathered.count({2, Buffer::Frozen}), 1u);
        const bool has_biases = model.find_parameter("layers.1.qkv_bias") != kNone;
        EXPECT_EQ(gathered.count({2, Buffer::Parameters}), has_biases ? 1u : 0u);
        EXPECT_EQ(gathered.count({3, Buffer::Frozen}), 0u);
        EXPECT_EQ(gathered.count({3, Buffer::Parameters}), 1u);
    }
}

TEST(FrozenPlan, VerifierRefusesWorkForFrozenRows) {
    const Model whole = small_model(Family::Gpt2, 3), model = frozen(whole, "wte,layers.0.*,layers.*.fc_weight,*ln2_*");
    const auto fault = [](const Model& of, const Plan& plan) { return find_fault(of, plan, make_layout(plan)); };
    // A plan that was made as if everything trained.
    EXPECT_NE(fault(model, plan_of(whole, "none")), "");
    EXPECT_NE(fault(whole, plan_of(model, "none")), "");
    Plan plan = plan_of(model, "none");
    ASSERT_EQ(fault(model, plan), "");
    const auto step_of = [&](const char* name, int layer, Pass pass) {
        return std::find_if(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
            return step.row >= 0 && step.layer == layer && step.pass == pass &&
                   model.block[static_cast<size_t>(step.row)].name == name;
        });
    };
    const auto bias = step_of("fc", 2, Pass::BackwardWeight);
    ASSERT_NE(bias, plan.steps.end());
    EXPECT_TRUE(bias->is_only_bias());
    Plan bad = plan;
    Step& reads = bad.steps[static_cast<size_t>(bias - plan.steps.begin())];
    reads.operand(Slot::In) = step_of("fc_proj", 2, Pass::BackwardWeight)->operand(Slot::In);
    EXPECT_NE(fault(model, bad).find("reads an input for the gradient of a frozen weight"), std::string::npos);
    bad = plan;
    const auto weight = step_of("fc_proj", 2, Pass::BackwardWeight);
    bad.steps[static_cast<size_t>(weight - plan.steps.begin())].operand(Slot::In) = kNone;
    EXPECT_NE(fault(model, bad).find("has no input for the gradient of its weight"), std::string::npos);
    bad = plan;
    const auto norm = step_of("ln2", 2, Pass::Backward);
    bad.steps[static_cast<size_t>(norm - plan.steps.begin())].operand(Slot::DIn) = kNone;
    EXPECT_NE(fault(model, bad).find("makes gradients that nobody wants"), std::string::npos);
}

TEST(FrozenPlan, ABiasAloneIsPricedWithoutAProduct) {
    const Model model = frozen(small_model(Family::Gpt2, 3), "*_weight,wte,wpe");
    const OpTimes times = analytic_times(model, kShape, Places(DType::F32), {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
    const Plan plan = plan_of(model, "none");
    int biases = 0;
    for (const Step& step : plan.steps) {
        if (step.kind != StepKind::Compute || step.pass != Pass::BackwardWeight) continue;
        ++biases;
        EXPECT_TRUE(step.is_only_bias());
        EXPECT_EQ(step_flops(model, plan, step), 0);
        const OpTimes::Row& row = times.block[static_cast<size_t>(step.row)];
        EXPECT_EQ(step_seconds(times, step), row.backward_bias);
        EXPECT_LT(row.backward_bias, row.backward_weight);
    }
    EXPECT_EQ(biases, 12);  // Four to a layer.
}

}  // namespace
}  // namespace llmc
