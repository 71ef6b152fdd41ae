#include "llmc/plan/simulate.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(Simulate, LiveBytesAreTheSumsOverStorages) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 5);
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::BF16, 500), policy);
            const Simulation simulation = simulate(model, plan);
            const std::vector<Storage> all = storages(plan, make_layout(plan));
            ASSERT_EQ(simulation.live_bytes.size(), plan.steps.size());
            int64_t peak = 0, peak_step = 0, layers = 0, activations = 0;
            for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
                int64_t live = 0, live_layers = 0, live_activations = 0;
                for (const Storage& storage : all) {
                    if (step < storage.first || step > storage.last) continue;
                    const PlanTensor& tensor = plan.tensors[static_cast<size_t>(storage.tensor)];
                    live += tensor.bytes;
                    const bool of_layer =
                        tensor.consumer == Consumer::Boundaries || tensor.consumer == Consumer::LayerInternals;
                    if (of_layer) live_layers += tensor.bytes;
                    if (tensor.consumer != Consumer::Inputs && tensor.consumer != Consumer::Workspace) {
                        live_activations += tensor.bytes;
                    }
                }
                ASSERT_EQ(simulation.live_bytes[static_cast<size_t>(step)], live) << "step " << step;
                if (live > peak) peak = live, peak_step = step;
                layers = std::max(layers, live_layers);
                activations = std::max(activations, live_activations);
            }
            EXPECT_EQ(simulation.peak_bytes, peak);
            EXPECT_EQ(simulation.peak_step, peak_step);
            EXPECT_EQ(simulation.layer_activation_bytes, layers);
            EXPECT_EQ(simulation.activation_bytes, activations);
            const auto& parts = simulation.by_consumer;
            EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), int64_t{0}), peak);
        }
    }
}

TEST(Simulate, PhasesShareAllTheWork) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 5);
        double forward = -1, backward = -1;
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), policy);
            const Simulation simulation = simulate(model, plan);
            double all = 0;
            for (const Step& step : plan.steps) all += step_flops(model, plan, step);
            EXPECT_NEAR(simulation.forward_flops + simulation.recompute_flops + simulation.backward_flops, all,
                        1e-9 * all);
            if (forward < 0) forward = simulation.forward_flops, backward = simulation.backward_flops;
            EXPECT_DOUBLE_EQ(simulation.forward_flops, forward) << "the work of a step without repeats is the same";
            EXPECT_DOUBLE_EQ(simulation.backward_flops, backward);
        }
    }
}

TEST(Simulate, TheHeadIsOneThirdForward) {
    const Model model = small_model(Family::Gpt2, 1);
    PlanRequest request = request_of(model, {3, 7}, DType::F32);
    for (const int64_t chunk : {1, 4, 21}) {
        request.logits_chunk_tokens = chunk;
        const Plan plan = make_training_plan(model, request, find_policy("none"));
        const Simulation training = simulate(model, plan),
                         evaluation = simulate(model, make_evaluation_plan(model, request));
        EXPECT_NEAR(training.forward_flops, evaluation.forward_flops, 1e-9 * training.forward_flops);
        double forward = 0, backward = 0;
        for (const Step& step : plan.steps) {
            if (step.phase != Phase::Head) continue;
            (step.pass == Pass::Forward ? forward : backward) += step_flops(model, plan, step);
        }
        EXPECT_NEAR(forward, 2.0 * 21 * 48 * 128, 1e-9 * forward);  // N C Vp, and the rest of the head has no products.
        EXPECT_NEAR(backward, 2 * forward, 1e-9 * forward);
        EXPECT_GT(training.backward_flops, backward);
    }
}

TEST(StepCost, OfTheUpdateIsBytesOnly) {
    const Model model = small_model(Family::Llama, 2);
    for (const DType dtype : kTypes) {
        const Plan plan = make_training_plan(model, request_of_ranks(model, {3, 7}, dtype, 4, 1), find_policy("none"));
        for (const Step& step : plan.steps) {
            const OpCost cost = step_cost(model, plan, step, 5);
            if (step.kind != StepKind::Compute) {
                EXPECT_EQ(cost.flops, 0) << describe_step(model, step);
            }
            const auto elements = static_cast<double>(step.elements);
            const bool sums = step.kind == StepKind::ZeroGradients || step.kind == StepKind::SquareSums;
            const double bytes = sums ? 4 : step.kind == StepKind::Update ? (dtype == DType::F32 ? 28 : 30) : 0;
            if (step.kind != StepKind::Compute) {
                EXPECT_EQ(cost.bytes, bytes * elements) << describe_step(model, step);
            }
            EXPECT_EQ(bytes > 0, step.elements > 0) << describe_step(model, step);
        }
    }
}

TEST(DescribeStep, SaysLayerPassAndOperation) {
    const Model model = small_model(Family::Llama, 2);
    const Plan plan = make_training_plan(model, request_of(model, {1, 2}, DType::F32), find_policy("layer"));
    std::vector<std::string> text;
    for (const Step& step : plan.steps) text.push_back(describe_step(model, step));
    EXPECT_EQ(text.front(), "forward of embedding");
    EXPECT_EQ(text[1], "layer 0, forward of ln1");
    EXPECT_EQ(text.back(), "head, update");
    for (const char* expected :
         {"forward of classifier", "cross-entropy", "weight gradient of classifier", "input gradient of classifier",
          "sum of losses", "backward of lnf", "backward of embedding", "head, sums of squares", "embedding, update",
          "layer 1, update", "norm of the gradients", "layer 0, repeated gate_up", "layer 1, weight gradient of qkv",
          "layer 1, input gradient of fc_proj", "layer 0, backward of swiglu"}) {
        EXPECT_EQ(std::count(text.begin(), text.end(), expected), 1) << expected;
    }
}

TEST(DescribeStep, SaysWhatIsSentBetweenRanks) {
    const Model model = small_model(Family::Llama, 2);
    const Plan plan = make_training_plan(model, request_of_ranks(model, {1, 2}, DType::F32, 4, 3), find_policy("none"));
    std::vector<std::string> text;
    for (const Step& step : plan.steps) text.push_back(describe_step(model, step));
    for (const char* expected : {"embedding, gather parameters", "embedding, wait for parameters",
                                 "embedding, zero gradients", "layer 1, zero gradients", "layer 1, reduce gradients",
                                 "layer 1, wait for gradients", "layer 1, gather parameters", "head, gather parameters",
                                 "head, reduce gradients", "head, wait for gradients", "gather sums of squares"}) {
        EXPECT_EQ(std::count(text.begin(), text.end(), expected), 1) << expected;
    }
}

TEST(Simulate, WhatRanksExchangeIsNoActivation) {
    const Model model = small_model(Family::Gpt2, 3);
    const Plan plan =
        make_training_plan(model, request_of_ranks(model, {1, 2}, DType::F32, 4, 3), find_policy("layer"));
    const Plan one = make_training_plan(model, request_of(model, {1, 2}, DType::F32), find_policy("layer"));
    const Simulation simulation = simulate(model, plan), of_one = simulate(model, one);
    EXPECT_EQ(simulation.activation_bytes, of_one.activation_bytes);
    EXPECT_EQ(simulation.layer_activation_bytes, of_one.layer_activation_bytes);
    EXPECT_EQ(simulation.forward_flops, of_one.forward_flops);
    EXPECT_EQ(simulation.backward_flops, of_one.backward_flops);
    EXPECT_GT(simulation.peak_bytes, of_one.peak_bytes);
}

}  // namespace
}  // namespace llmc
