// Fusion as a pass over plans: the same runs whatever else is in a plan, nothing lost on the way, and faults seen. The
// runs are those that a backend may state: of a backward, of three steps, of the forward.
#include "llmc/plan/fuse.h"

#include "llmc/plan/print.h"
#include "llmc/plan/search.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>

namespace llmc {
namespace {

using namespace plan_cases;

int row_named(const Model& model, const std::string& name) {
    for (size_t i = 0; i < model.block.size(); ++i) {
        if (model.block[i].name == name) return static_cast<int>(i);
    }
    ADD_FAILURE() << "no row " << name;
    return 0;
}

/// The rows of the MLP, whatever they are called.
struct Mlp {
    explicit Mlp(const Model& model) : proj(row_named(model, "fc_proj")), act(proj - 1), fc(proj - 2), model(model) {}
    FusedPart part(int row, Pass pass) const { return {model.block[static_cast<size_t>(row)].kind, pass, row}; }
    FusedRun run(std::vector<FusedPart> parts) const {
        return {.parts = std::move(parts), .same_bits = false, .stores_between = true, .workspace_bytes = 700};
    }
    FusedRun backward() const { return run({part(act, Pass::Backward), part(fc, Pass::BackwardWeight)}); }
    FusedRun three() const {
        FusedRun all =
            run({part(proj, Pass::BackwardInput), part(act, Pass::Backward), part(fc, Pass::BackwardWeight)});
        all.stores_between = false;
        return all;
    }
    /// As a product that takes the activation's backward along, and a weight's that takes the bias's.
    FusedRun input_gradient() const {
        FusedRun both = run({part(proj, Pass::BackwardInput), part(act, Pass::Backward)});
        both.stores_between = false;
        return both;
    }
    FusedRun alone() const { return run({part(fc, Pass::BackwardWeight)}); }
    FusedRun forward() const {
        FusedRun both = run({part(fc, Pass::Forward), part(act, Pass::Forward)});
        both.same_bits = true, both.workspace_bytes = 0;
        return both;
    }
    int proj, act, fc;
    const Model& model;
};

struct Runs {
    std::vector<FusedRun> runs;
    int in_backward_of_layer;
};

std::vector<Runs> runs_of(const Model& model) {
    const Mlp mlp(model);
    const FusedRun norm = mlp.run({mlp.part(row_named(model, "ln2"), Pass::Backward),
                                   mlp.part(row_named(model, "att_proj"), Pass::BackwardWeight)});
    return {{{mlp.backward()}, 1},
            {{mlp.three(), mlp.backward()}, 1},
            {{norm, mlp.backward()}, 2},
            {{mlp.forward(), mlp.three()}, 1},
            {{mlp.input_gradient(), mlp.alone()}, 2}};
}

/// How many steps are one with others in a phase.
int fused_in(const Plan& plan, Phase phase) {
    return static_cast<int>(std::count_if(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
        return step.kind == StepKind::Fused && step.phase == phase;
    }));
}

/// Every step and part in words; `order` keeps theirs, but for what may move.
std::vector<std::string> words(const Model& model, const Plan& plan, bool only_operations) {
    std::vector<std::string> all;
    for (const Step& step : plan.steps) {
        for (const Step& part : parts_of(step)) {
            const bool moves = !part.is_operation() || part.phase == Phase::Recompute;
            if (only_operations && moves) continue;
            all.push_back(std::string(name_of(part.phase)) + " " + describe_step(model, part));
        }
    }
    if (!only_operations) std::sort(all.begin(), all.end());
    return all;
}

void expect_right(const Model& model, const PlanRequest& plain, const KeepSet& keep, const Runs& fusions) {
    PlanRequest request = plain;
    const Plan separate = make_training_plan(model, request, keep, "test");
    request.fusions = fusions.runs;
    const Plan plan = make_training_plan(model, request, keep, "test");
    ASSERT_EQ(find_fault(model, plan, make_layout(plan)), "");
    EXPECT_EQ(fused_in(plan, Phase::Backward), static_cast<int>(model.config.L) * fusions.in_backward_of_layer);
    EXPECT_EQ(words(model, plan, true), words(model, separate, true));
    EXPECT_EQ(words(model, plan, false), words(model, separate, false));
    int64_t flops = 0, of_separate = 0;
    for (const Step& step : plan.steps) flops += static_cast<int64_t>(step_flops(model, plan, step));
    for (const Step& step : separate.steps) of_separate += static_cast<int64_t>(step_flops(model, separate, step));
    EXPECT_EQ(flops, of_separate);
}

TEST(Fusion, IsTheSameForEveryPolicy) {
    for (const int L : {1, 2, 4, 7}) {
        for (const Model& model : small_models(L)) {
            const PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
            for (const Runs& fusions : runs_of(model)) {
                for (const PolicyRow& policy : policies()) {
                    SCOPED_TRACE(model.config.name + ", " + policy.name);
                    expect_right(model, request, policy.function(model), fusions);
                }
            }
        }
    }
}

TEST(Fusion, IsTheSameForRandomKeepSets) {
    for (uint32_t item = 0; item < 150; ++item) {
        Dice dice(item);
        const Model model = small_models(1 + static_cast<int>(dice.below(6)))[dice.below(4)];
        const PlanRequest request = request_of(model, {2, 5}, DType::F32, 300);
        SCOPED_TRACE(item);
        expect_right(model, request, random_keep_set(model, dice), runs_of(model)[dice.below(5)]);
    }
}

TEST(Fusion, IsTheSameForEveryNumberOfRanksAndStage) {
    for (const Model& model : small_models(4)) {
        for (const int ranks : {2, 3}) {
            for (const int zero : {0, 1, 2, 3}) {
                for (const Runs& fusions : runs_of(model)) {
                    for (const char* policy : {"none", "layer", "sqrt", "act", "attn", "offload"}) {
                        PlanRequest request = request_of_ranks(model, {2, 5}, DType::F32, ranks, zero);
                        request.parallel.micro_batches = 3;
                        SCOPED_TRACE(fmt::format("{}, {} ranks, ZeRO {}, {}", model.config.name, ranks, zero, policy));
                        expect_right(model, request, find_policy(policy).function(model), fusions);
                    }
                }
            }
        }
    }
}

TEST(Fusion, IsTheSameForTheSearchAtEveryBudget) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 6);
        PlanRequest request = request_of(model, {4, 64}, DType::F32, 300);
        request.fusions = {Mlp(model).backward()};
        const OpTimes times = analytic_times(model, request.shape, request.places, find_device_profile("h100"),
                                             request.logits_chunk_tokens);
        const int64_t most = make_layout(make_training_plan(model, request, find_policy("none"))).arena_bytes;
        int found = 0;
        for (int64_t budget = most / 8; budget <= most; budget += most / 8) {
            const SearchResult result = search_plan(model, request, times, budget);
            if (!result.found) continue;
            ++found;
            EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
            EXPECT_EQ(find_fault(model, result.plan, make_layout(result.plan)), "");
            EXPECT_EQ(fused_in(result.plan, Phase::Backward), 6);
        }
        EXPECT_GE(found, 3);
    }
}

int index_of(const Model& model, const Plan& plan, const std::string& text) {
    for (size_t i = 0; i < plan.steps.size(); ++i) {
        if (describe_step(model, plan.steps[i]) == text) return static_cast<int>(i);
    }
    return -1;
}

/// `act` brings the norm's output back between the two steps: the weight gradient reads it.
TEST(Fusion, MovesARepeatThatFallsBetweenAheadOfTheRun) {
    const Model model = small_model(Family::Gpt2, 3);
    PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
    const Plan separate = make_training_plan(model, request, find_policy("act"));
    const int gelu = index_of(model, separate, "layer 1, backward of gelu");
    ASSERT_EQ(index_of(model, separate, "layer 1, repeated ln2"), gelu + 1);
    ASSERT_EQ(index_of(model, separate, "layer 1, weight gradient of fc"), gelu + 2);

    request.fusions = {Mlp(model).backward()};
    const Plan plan = make_training_plan(model, request, find_policy("act"));
    const int fused = index_of(model, plan, "layer 1, backward of gelu + weight gradient of fc");
    ASSERT_GE(fused, 0);
    EXPECT_EQ(index_of(model, plan, "layer 1, repeated ln2"), fused - 1);
    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");

    Plan wrong = plan;
    std::swap(wrong.steps[static_cast<size_t>(fused)], wrong.steps[static_cast<size_t>(fused) - 1]);
    EXPECT_NE(find_fault(model, wrong, make_layout(wrong)).find("needs ln2_out of layer 1"), std::string::npos);
}

/// Copies of a layer's input, of `offload`, and gathers of ZeRO 3: put between the two by hand, they go ahead in order.
TEST(Fusion, MovesCopiesGathersAndWaitsAheadInTheirOrder) {
    const Model model = small_model(Family::Gpt2, 3);
    const PlanRequest request = request_of_ranks(model, {2, 5}, DType::F32, 2, 3);
    Plan plan = make_training_plan(model, request, find_policy("layer"));
    const int gelu = index_of(model, plan, "layer 1, backward of gelu");
    std::vector<Step> moved;
    for (const char* text : {"layer 0, gather parameters", "layer 0, wait for parameters"}) {
        int last = -1;  // That of the backward.
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            const bool before_update = plan.steps[i].phase != Phase::Update;
            if (before_update && describe_step(model, plan.steps[i]) == text) last = static_cast<int>(i);
        }
        ASSERT_GE(last, 0) << text;
        moved.push_back(plan.steps[static_cast<size_t>(last)]);
    }
    plan.steps.insert(plan.steps.begin() + gelu + 1, moved.begin(), moved.end());
    const Plan fused = with_fusion(model, plan, {Mlp(model).backward()});
    const int at = index_of(model, fused, "layer 1, backward of gelu + weight gradient of fc");
    ASSERT_GE(at, 2);
    EXPECT_EQ(describe_step(model, fused.steps[static_cast<size_t>(at) - 2]), "layer 0, gather parameters");
    EXPECT_EQ(describe_step(model, fused.steps[static_cast<size_t>(at) - 1]), "layer 0, wait for parameters");
}

/// The reduction of what the first part writes cannot go ahead of it, nor can what waits for that; a repeat can.
TEST(Fusion, MovesWhatNeedsTheRunBehindIt) {
    const Model model = small_model(Family::Gpt2, 3);
    for (const int zero : {0, 2}) {
        Plan plan = make_training_plan(model, request_of_ranks(model, {2, 5}, DType::F32, 2, zero), find_policy("act"));
        const auto taken = [&](const char* text) {
            const int at = index_of(model, plan, text);
            EXPECT_GE(at, 0) << text;
            const Step step = plan.steps[static_cast<size_t>(at)];
            plan.steps.erase(plan.steps.begin() + at);
            return step;
        };
        taken("layer 1, weight gradient of att_proj");  // As if that were frozen.
        const std::vector<Step> moved = {taken("layer 1, reduce gradients"), taken("layer 1, repeated ln1"),
                                         taken("layer 1, wait for gradients")};
        const int norm = index_of(model, plan, "layer 1, backward of ln2");
        plan.steps.insert(plan.steps.begin() + norm + 1, moved.begin(), moved.end());
        const Mlp mlp(model);
        const FusedRun run = mlp.run({mlp.part(row_named(model, "ln2"), Pass::Backward),
                                      mlp.part(row_named(model, "att_proj"), Pass::BackwardInput)});
        const Plan fused = with_fusion(model, plan, {run});
        const int at = index_of(model, fused, "layer 1, backward of ln2 + input gradient of att_proj");
        ASSERT_GE(at, 1);
        EXPECT_EQ(index_of(model, fused, "layer 1, repeated ln1"), at - 1);
        EXPECT_EQ(index_of(model, fused, "layer 1, reduce gradients"), at + 1);
        EXPECT_EQ(index_of(model, fused, "layer 1, wait for gradients"), at + 2);
    }
}

TEST(Fusion, LeavesOutWhatIsStoredNowhere) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
        request.fusions = {Mlp(model).three()};
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(model, request, policy);
            EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << policy.name;
            for (const PlanTensor& tensor : plan.tensors) {
                EXPECT_NE(tensor.name, "d_act_out") << policy.name;
                EXPECT_TRUE(tensor.alias < 0 || plan.tensor(tensor.alias).bytes == tensor.bytes);
            }
            const std::vector<Lifetime> lives = lifetimes(plan);
            for (size_t i = 0; i < plan.tensors.size(); ++i) {
                if (plan.tensors[i].alias >= 0) continue;
                EXPECT_LE(lives[i].first, lives[i].last) << plan.tensors[i].name;
            }
        }
    }
}

/// The operands of all parts are there at once, and the workspace is the run's.
TEST(Fusion, HoldsAllItsOperandsAtOnce) {
    const Model model = small_model(Family::Llama, 2);
    PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
    request.fusions = {Mlp(model).backward()};
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    const std::vector<Lifetime> lives = lifetimes(plan);
    int fused = 0;
    for (size_t i = 0; i < plan.steps.size(); ++i) {
        const Step& step = plan.steps[i];
        if (step.kind != StepKind::Fused) continue;
        ++fused;
        int64_t workspace = 0;
        for (const Step& part : step.parts) {
            for (const int32_t tensor : part.operands) {
                if (tensor < 0) continue;
                const Lifetime& life = lives[static_cast<size_t>(storage_of(plan, tensor))];
                EXPECT_TRUE(life.first <= static_cast<int>(i) && static_cast<int>(i) <= life.last);
                if (plan.tensor(tensor).consumer == Consumer::Workspace) workspace += plan.tensor(tensor).bytes;
            }
        }
        EXPECT_EQ(workspace, round_up(700, kPlanAlignment));
    }
    EXPECT_EQ(fused, 2);
}

TEST(Fusion, TakesForwardStepsOnlyWithTheirBits) {
    const Model model = small_model(Family::Gpt2, 4);
    PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
    FusedRun forward = Mlp(model).forward();
    request.fusions = {forward, Mlp(model).backward()};
    for (const PolicyRow& policy : policies()) {
        const Plan plan = make_training_plan(model, request, policy);
        EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << policy.name;
        EXPECT_EQ(fused_in(plan, Phase::Forward), 4) << policy.name;
        EXPECT_EQ(fused_in(plan, Phase::Backward), 4) << policy.name;
        const std::string name = policy.name;
        const bool repeats_both = name != "none" && name != "act";
        EXPECT_EQ(fused_in(plan, Phase::Recompute) > 0, repeats_both) << name;
    }
    EXPECT_EQ(fused_in(make_evaluation_plan(model, request), Phase::Forward), 4);

    forward.same_bits = false;
    request.fusions = {forward};
    const Plan plan = make_training_plan(model, request, find_policy("none"));
    EXPECT_EQ(fused_in(plan, Phase::Forward), 0);
    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
}

TEST(Fusion, IsPrintedWithBothNamesAndTakesTheTimeOfBoth) {
    const Model model = small_model(Family::Gpt2, 3);
    PlanRequest request = request_of(model, {3, 7}, DType::F32);
    const OpTimes times = analytic_times(model, request.shape, request.places, find_device_profile("h100"));
    const Plan separate = make_training_plan(model, request, find_policy("layer"));
    request.fusions = {Mlp(model).backward()};
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    const std::string text = print_steps(model, plan, nullptr);
    EXPECT_NE(text.find("layer 2, backward of gelu + weight gradient of fc"), std::string::npos) << text;
    EXPECT_NE(summarise_steps(plan).find(", 3 of them several operations in one"), std::string::npos);
    EXPECT_EQ(fused_names(model, plan), std::vector<std::string>{"backward of gelu + weight gradient of fc"});
    EXPECT_TRUE(fused_names(model, separate).empty());
    EXPECT_NEAR(plan_seconds(times, plan), plan_seconds(times, separate), 1e-9 * plan_seconds(times, separate));
    OpTimes measured = times;
    measured.fused = {1.0};
    EXPECT_GT(plan_seconds(measured, plan), 3);
    EXPECT_LT(plan_seconds(measured, separate), 1);
}

/// A part takes its share of the time that it takes by itself.
TEST(Fusion, OfOneOperationIsPrintedAndPartsHaveTheirShares) {
    const Model model = small_model(Family::Gpt2, 3);
    PlanRequest request = request_of(model, {3, 7}, DType::F32);
    const OpTimes times = analytic_times(model, request.shape, request.places, find_device_profile("h100"));
    const Plan separate = make_training_plan(model, request, find_policy("layer"));
    const Mlp mlp(model);
    FusedRun both = mlp.input_gradient();
    both.parts[1].share = 0.25f;
    request.fusions = {both, mlp.alone()};
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    const std::string text = print_steps(model, plan, nullptr);
    EXPECT_NE(text.find("layer 2, in one pass, weight gradient of fc "), std::string::npos) << text;
    EXPECT_NE(text.find("layer 2, input gradient of fc_proj + backward of gelu "), std::string::npos) << text;
    EXPECT_NE(summarise_steps(plan).find(", 3 of them several operations in one"), std::string::npos);
    const double saved = 3 * 0.75 * times.block[static_cast<size_t>(mlp.act)].backward;
    EXPECT_NEAR(plan_seconds(times, separate) - plan_seconds(times, plan), saved, 1e-6 * saved);
}

TEST(FindFault, SeesSetsOfStepsThatMayNotBeOne) {
    const Model model = small_model(Family::Gpt2, 3);
    PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
    request.fusions = {Mlp(model).backward()};
    const Plan good = make_training_plan(model, request, find_policy("act"));
    const auto at = static_cast<size_t>(index_of(model, good, "layer 1, backward of gelu + weight gradient of fc"));
    const auto fault = [&](auto damage) {
        Plan bad = good;
        damage(bad, bad.steps[at]);
        return find_fault(model, bad, make_layout(bad));
    };
    EXPECT_EQ(fault([](Plan&, Step&) {}), "");
    const auto says = [](const std::string& text, const char* words) {
        EXPECT_NE(text.find(words), std::string::npos) << text;
    };
    says(fault([](Plan& plan, Step&) { plan.fusions.clear(); }), "is no run that may be one step");
    says(fault([](Plan&, Step& step) { step.fusion = 1; }), "is no run that may be one step");
    says(fault([](Plan&, Step& step) { std::swap(step.parts[0], step.parts[1]); }), "has not the parts of its run");
    says(fault([](Plan&, Step& step) { step.parts.pop_back(); }), "has not the parts of its run");
    says(fault([](Plan&, Step& step) { step.parts[1].pass = Pass::BackwardInput; }), "has not the parts of its run");
    says(fault([](Plan&, Step& step) { step.parts[0].layer = 2; }), "has parts of several layers");
    says(fault([](Plan&, Step& step) { step.parts[0].operand(Slot::Workspace) = kNone; }), "has not the workspace");
    says(fault([](Plan& plan, Step&) { plan.fusions[0].parts[0].pass = Pass::Forward; }), "has not the bits");
    says(fault([&](Plan& plan, Step& step) {  // One run is left as two steps.
             const std::vector<Step> parts = step.parts;
             plan.steps.erase(plan.steps.begin() + static_cast<int64_t>(at));
             plan.steps.insert(plan.steps.begin() + static_cast<int64_t>(at), parts.begin(), parts.end());
         }),
         "is not one with the steps that it is one with in other plans");
}

}  // namespace
}  // namespace llmc
