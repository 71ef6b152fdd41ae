#include "llmc/plan/generate.h"

#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <set>

namespace llmc {
namespace {

using namespace plan_cases;

/// Whether a tensor is the activation `slot` of a layer; the block's output is the next layer's input.
::testing::AssertionResult is_activation(const Model& model, const Plan& plan, int32_t tensor, int layer, int slot) {
    if (tensor < 0) return ::testing::AssertionFailure() << "absent";
    const PlanTensor& found = plan.tensors[static_cast<size_t>(tensor)];
    const bool next = slot == kLayerOutput;
    const std::string& name = model.activations[static_cast<size_t>(next ? kLayerInput : slot)].name;
    if (found.name == name && found.layer == layer + (next ? 1 : 0)) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << found.name << " of layer " << found.layer << " instead of " << name;
}

/// Every step of a block has the operands its table row names, of its own layer.
void expect_right_operands(const Model& model, const Plan& plan) {
    for (const Step& step : plan.steps) {
        if (step.row < 0) continue;
        const OpRow& row = model.block[static_cast<size_t>(step.row)];
        const BackwardReads& reads = facts_of(row.kind).backward_reads;
        const bool forward = step.pass == Pass::Forward;
        const bool weight = step.pass == Pass::BackwardWeight, input = step.pass == Pass::BackwardInput;
        const auto expect = [&](Slot slot, int activation, bool wanted) {
            if (activation == kNone || !wanted) {
                ASSERT_EQ(step.operand(slot), kNone) << describe_step(model, step);
            } else {
                ASSERT_TRUE(is_activation(model, plan, step.operand(slot), step.layer, activation))
                    << describe_step(model, step) << ", slot " << static_cast<int>(slot);
            }
        };
        const bool backward_reads_in = reads.in && !input;
        expect(Slot::In, row.in, forward || backward_reads_in);
        expect(Slot::Residual, row.residual, forward);
        expect(Slot::Out, row.out, forward || reads.out);
        expect(Slot::Stat0, row.stat0, forward || reads.stats);
        expect(Slot::Stat1, row.stat1, forward || reads.stats);
        ASSERT_EQ(step.operand(Slot::DOut) >= 0, !forward);
        ASSERT_EQ(step.operand(Slot::DIn) >= 0, !forward && !weight);
    }
}

/// Every row of every layer has its backward, once.
void expect_complete_backward(const Model& model, const Plan& plan) {
    std::map<std::tuple<int, int, Pass>, int> count;
    for (const Step& step : plan.steps) {
        if (step.row >= 0 && step.pass != Pass::Forward) ++count[{step.layer, step.row, step.pass}];
    }
    size_t expected = 0;
    for (const OpRow& row : model.block) expected += row.kind == OpKind::Matmul ? 2 : 1;
    ASSERT_EQ(count.size(), expected * static_cast<size_t>(model.config.L));
    for (const auto& [key, times] : count) ASSERT_EQ(times, 1);
}

TEST(Generator, AThousandRandomKeepSetsGiveRightPlans) {
    int kept_last = 0, repeated = 0;
    for (uint32_t trial = 0; trial < 1000; ++trial) {
        Dice dice(trial);
        const Model model = small_model(kFamilies[trial % 2], 1 + static_cast<int>(dice.below(6)));
        const KeepSet keep = random_keep_set(model, dice);
        const PlanRequest request = request_of(model, {2, 3}, DType::F32, trial % 3 == 0 ? 500 : 0);
        const Plan plan = make_training_plan(model, request, keep, "random");
        ASSERT_EQ(find_fault(model, plan, make_layout(plan)), "") << "trial " << trial;
        expect_right_operands(model, plan);
        expect_complete_backward(model, plan);
        if (HasFatalFailure()) FAIL() << "trial " << trial;
        kept_last += keep.keep_last_layer;
        repeated += simulate(model, plan).recompute_flops > 0;
    }
    EXPECT_GT(kept_last, 400);
    EXPECT_GT(repeated, 700);
}

TEST(Generator, KeepingEverythingRepeatsNothing) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 5);
        const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), find_policy("none"));
        for (const Step& step : plan.steps) EXPECT_NE(step.phase, Phase::Recompute);
        EXPECT_EQ(simulate(model, plan).extra_flops_ratio(), 0);
    }
}

TEST(Generator, KeepingOnlyTheFirstInputStillWorks) {
    const Model model = small_model(Family::Gpt2, 6);
    KeepSet keep;
    keep.slots.assign(6, std::vector<bool>(model.activations.size(), false));
    keep.slots[0][kLayerInput] = true;
    keep.walk.resize(6);
    keep.keep_last_layer = false;
    const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), keep, "least");
    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
    // Every backward walks up from the bottom: layer l runs whole for each layer above it, and once more, without its
    // last matmul, for its own.
    std::map<int, int> first_rows, last_rows;
    for (const Step& step : plan.steps) {
        if (step.phase != Phase::Recompute) continue;
        if (step.row == 0) ++first_rows[step.layer];
        if (step.row + 1 == static_cast<int>(model.block.size())) ++last_rows[step.layer];
    }
    for (int layer = 0; layer < 6; ++layer) {
        EXPECT_EQ(first_rows[layer], 6 - layer);
        EXPECT_EQ(last_rows[layer], 5 - layer);
    }
}

TEST(Generator, ARepeatedStepIsTheForwardStep) {
    // The same operation on operands of the same names, types and shapes: only the places may differ.
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 7);
        for (const char* policy : {"layer", "sqrt", "act", "attn", "offload"}) {
            const Plan plan =
                make_training_plan(model, request_of(model, {3, 7}, DType::BF16, 100), find_policy(policy));
            std::map<std::pair<int, int>, Step> forward;
            for (const Step& step : plan.steps) {
                if (step.row < 0 || step.pass != Pass::Forward) continue;
                const std::pair<int, int> key = {step.layer, step.row};
                if (step.phase == Phase::Forward) {
                    forward[key] = step;
                    continue;
                }
                const Step& original = forward.at(key);
                EXPECT_EQ(step.op, original.op);
                EXPECT_EQ(step.rope, original.rope);
                for (size_t slot = 0; slot < kNumSlots; ++slot) {
                    ASSERT_EQ(step.operands[slot] < 0, original.operands[slot] < 0) << describe_step(model, step);
                    if (step.operands[slot] < 0) continue;
                    const PlanTensor& a = plan.tensors[static_cast<size_t>(step.operands[slot])];
                    const PlanTensor& b = plan.tensors[static_cast<size_t>(original.operands[slot])];
                    EXPECT_EQ(a.name, b.name);
                    EXPECT_EQ(a.layer, b.layer);
                    EXPECT_EQ(a.dtype, b.dtype);
                    EXPECT_EQ(a.rows, b.rows);
                    EXPECT_EQ(a.cols, b.cols);
                }
            }
        }
    }
}

TEST(Generator, TheHeadDoesNotDependOnThePolicy) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 5);
        std::set<std::string> heads;
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(model, request_of(model, {4, 257}, DType::F32), policy);
            std::string head = std::to_string(plan.logits_chunk_tokens);
            for (const Step& step : plan.steps) {
                if (step.phase != Phase::Head) continue;
                head += "; " + describe_step(model, step);
            }
            heads.insert(head);
        }
        EXPECT_EQ(heads.size(), 1u);
    }
}

TEST(Generator, TensorsHaveTheTypesAndSizesOfTheTable) {
    const Model model = small_model(Family::Llama, 3);
    const BatchShape shape = {3, 7};
    const Plan plan = make_training_plan(model, request_of(model, shape, DType::BF16), find_policy("layer"));
    for (const PlanTensor& tensor : plan.tensors) {
        EXPECT_EQ(tensor.bytes, round_up(tensor.rows * tensor.cols * size_of(tensor.dtype), 256)) << tensor.name;
        const bool stat = tensor.name.ends_with("rstd") || tensor.name.ends_with("lse");
        if (tensor.consumer == Consumer::LayerInternals || tensor.consumer == Consumer::HeadActivations) {
            EXPECT_EQ(tensor.dtype, stat ? DType::F32 : DType::BF16) << tensor.name;
            EXPECT_EQ(tensor.rows, 21) << tensor.name;
        }
        EXPECT_EQ(tensor.dtype == DType::I32, tensor.name == "tokens" || tensor.name == "targets") << tensor.name;
        EXPECT_TRUE(tensor.name != "losses" || tensor.dtype == DType::F32);
    }
}

TEST(GeneratorDeathTest, TheFirstInputMustSurvive) {
    const Model model = small_model(Family::Gpt2, 2);
    KeepSet keep = find_policy("none").function(model);
    keep.slots[0][kLayerInput] = false;
    EXPECT_DEATH(make_training_plan(model, request_of(model, {1, 2}, DType::F32), keep, "bad"),
                 "input of the lowest layer with a backward must survive");
}

TEST(GeneratorDeathTest, WhatIsInHostMemoryMustComeBackInTime) {
    const Model model = small_model(Family::Gpt2, 3);
    const PlanRequest request = request_of(model, {1, 2}, DType::F32);
    KeepSet keep = find_policy("offload").function(model);
    keep.host[2] = true;
    EXPECT_DEATH(make_training_plan(model, request, keep, "bad"), "last layer's input");
}

TEST(Generator, AnyInputsButTheLastMayBeInHostMemory) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 6);
        const PlanRequest request = request_of(model, {3, 7}, DType::F32, 100);
        const int64_t X = boundary_bytes(model.config, request.shape, DType::F32);
        for (const char* policy : {"none", "layer", "act", "attn"}) {
            for (unsigned chosen = 0; chosen < 32; ++chosen) {
                KeepSet keep = find_policy(policy).function(model);
                for (unsigned layer = 0; layer < 6; ++layer) keep.host.push_back((chosen >> layer & 1) != 0);
                for (const bool last : {false, true}) {
                    keep.keep_last_layer = last;
                    const Plan plan = make_training_plan(model, request, keep, "some in host memory");
                    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << policy << ", layers " << chosen;
                    EXPECT_EQ(plan.host_bytes, std::popcount(chosen) * X);
                }
            }
        }
    }
}

// ---- The head ----

bool is_chunk_step(const Step& step) { return step.kind == StepKind::Compute && step.is_of_chunk(); }

TEST(Generator, ChunksOfTheClassifierCoverAllTokensOnceAndTheLastMayBeShorter) {
    const BatchShape shape = {3, 7};
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 2);
        for (const int64_t chunk : {1, 2, 4, 7, 10, 20, 21}) {
            PlanRequest request = request_of(model, shape, DType::F32, 100);
            request.logits_chunk_tokens = chunk;
            for (const bool trains : {true, false}) {
                const Plan plan = trains ? make_training_plan(model, request, find_policy("layer"))
                                         : make_evaluation_plan(model, request);
                EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << chunk;
                std::vector<Step> steps;
                std::copy_if(plan.steps.begin(), plan.steps.end(), std::back_inserter(steps), is_chunk_step);
                const size_t per_chunk = trains ? 4 : 2;
                ASSERT_EQ(steps.size(), per_chunk * static_cast<size_t>(ceil_div(int64_t{21}, chunk)));
                int64_t covered = 0;
                for (size_t i = 0; i < steps.size(); i += per_chunk) {
                    for (size_t k = 0; k < per_chunk; ++k) {
                        EXPECT_EQ(steps[i + k].first_token, covered);
                        EXPECT_EQ(steps[i + k].tokens, std::min<int64_t>(chunk, 21 - covered));
                        EXPECT_EQ(steps[i + k].op, k == 1 ? OpKind::CrossEntropy : OpKind::Classifier);
                    }
                    EXPECT_EQ(steps[i].pass, Pass::Forward);
                    EXPECT_EQ(steps[i + 1].pass, trains ? Pass::Backward : Pass::Forward);
                    if (trains) {
                        EXPECT_EQ(steps[i + 2].pass, Pass::BackwardWeight);
                        EXPECT_EQ(steps[i + 3].pass, Pass::BackwardInput);
                    }
                    covered += steps[i].tokens;
                }
                EXPECT_EQ(covered, 21);
                // Rows of the batch and, of the logits, as many from the first on.
                const RowRange in = rows_of(steps.back(), trains ? Slot::DIn : Slot::Losses, 21, false);
                EXPECT_EQ(in.first + in.count, 21);
                const RowRange logits = rows_of(steps.back(), Slot::Logits, chunk, false);
                EXPECT_EQ(logits.first, 0);
                EXPECT_EQ(logits.count, in.count);
                // The losses are added up once, when all of them are there.
                const auto sum = std::find_if(plan.steps.begin(), plan.steps.end(),
                                              [](const Step& step) { return step.op == OpKind::LossSum; });
                ASSERT_NE(sum, plan.steps.end());
                EXPECT_TRUE(std::none_of(sum, plan.steps.end(), is_chunk_step));
                EXPECT_EQ(sum->adds, trains ? Adds::AfterFirst : Adds::Never);
                EXPECT_EQ(std::count_if(sum, plan.steps.end(), [](const Step& s) { return s.op == OpKind::LossSum; }),
                          1);
            }
        }
    }
}

TEST(Generator, TheHeadsMemoryDependsOnTheSizeOfItsChunksOnly) {
    // Fewer tokens at a time need less room for logits, by exactly those rows, and nothing else.
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 2);
        const BatchShape shape = {4, 64};
        const auto head_bytes = [&](int64_t chunk) {
            PlanRequest request = request_of(model, shape, DType::F32);
            request.logits_chunk_tokens = chunk;
            const Plan plan = make_training_plan(model, request, find_policy("layer"));
            const Simulation simulation = simulate(model, plan);
            int64_t bytes = 0;
            for (size_t i = 0; i < plan.steps.size(); ++i) {
                if (is_chunk_step(plan.steps[i])) bytes = std::max(bytes, simulation.live_bytes[i]);
            }
            return bytes;
        };
        for (const int64_t chunk : {1, 3, 64, 100, 255}) {
            EXPECT_EQ(head_bytes(256) - head_bytes(chunk), 128 * 4 * (256 - chunk)) << chunk;
        }
    }
}

// ---- Evaluation and generation ----

TEST(EvaluationPlan, IsRightAndHoldsOneLayerAtATime) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 7, 24}) {
            const Model model = small_model(family, L);
            for (const BatchShape& shape : kShapes) {
                for (const DType dtype : kTypes) {
                    const PlanRequest request = request_of(model, shape, dtype, 200);
                    const Plan plan = make_evaluation_plan(model, request);
                    const std::string where = label(model, shape, dtype, "evaluate");
                    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "") << where;
                    // Logits and losses by chunk, between the final norm and the losses' sum.
                    const int64_t chunks = ceil_div(shape.N(), request.logits_chunk_tokens);
                    EXPECT_EQ(plan.steps.size(),
                              1 + static_cast<size_t>(L) * model.block.size() + 2 + 2 * static_cast<size_t>(chunks))
                        << where;
                    for (const Step& step : plan.steps) {
                        EXPECT_EQ(step.pass, Pass::Forward);
                        EXPECT_EQ(step.operand(Slot::DIn), kNone);
                    }
                    const Simulation simulation = simulate(model, plan);
                    EXPECT_LE(simulation.layer_activation_bytes, 2 * boundary_bytes(model.config, shape, dtype) +
                                                                     internal_bytes(model.config, shape, dtype));
                    EXPECT_EQ(simulation.recompute_flops, 0);
                    EXPECT_EQ(simulation.backward_flops, 0);
                    const Plan training = make_training_plan(model, request, find_policy("sqrt"));
                    EXPECT_LT(make_layout(plan).arena_bytes, make_layout(training).arena_bytes) << where;
                }
            }
        }
    }
}

TEST(GenerationPlan, IsRightForEveryContext) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 3, 7}) {
            const Model model = small_model(family, L);
            for (const DType dtype : kTypes) {
                for (const auto& [tokens, context] : {std::pair{1, 1}, {1, 300}, {5, 5}, {5, 64}, {64, 129}}) {
                    const PlanRequest request = request_of(model, {1, tokens}, dtype, 200);
                    const Plan plan = make_generation_plan(model, request, context);
                    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
                    int caches = 0, logits = 0;
                    for (const PlanTensor& tensor : plan.tensors) {
                        caches += tensor.consumer == Consumer::KeyValueCache;
                        logits += tensor.consumer == Consumer::Logits;
                        if (tensor.consumer == Consumer::KeyValueCache) {
                            EXPECT_EQ(tensor.rows, context);
                            EXPECT_EQ(tensor.cols, model.config.NKV * model.config.HD);
                            EXPECT_EQ(tensor.dtype, dtype);
                            EXPECT_TRUE(tensor.external && tensor.output) << "the cache lives from run to run";
                        }
                        EXPECT_TRUE(tensor.consumer != Consumer::Logits || tensor.rows == 1);
                    }
                    EXPECT_EQ(caches, 2 * L);
                    EXPECT_EQ(logits, 1);
                    for (const Step& step : plan.steps) {
                        if (step.op != OpKind::Attention) continue;
                        for (const Slot slot : {Slot::Stat0, Slot::Stat1}) {
                            const Access use = access(step, slot);
                            EXPECT_TRUE(use.reads && use.writes) << "attention reads the cache and appends to it";
                        }
                    }
                }
            }
        }
    }
}

TEST(GenerationPlanDeathTest, RefusesABatchAndAContextThatIsTooShort) {
    const Model model = small_model(Family::Gpt2, 2);
    EXPECT_DEATH(make_generation_plan(model, request_of(model, {2, 3}, DType::F32), 40), "check failed");
    EXPECT_DEATH(make_generation_plan(model, request_of(model, {1, 5}, DType::F32), 4), "check failed");
}

}  // namespace
}  // namespace llmc
