#include "llmc/plan/policy.h"

#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/io/temp_dir.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(Policies, AreFoundByNameAndByDigit) {
    std::set<std::string> names;
    for (const PolicyRow& row : policies()) {
        EXPECT_TRUE(names.insert(row.name).second);
        EXPECT_EQ(&find_policy(row.name), &row);
        EXPECT_FALSE(std::string(row.description).empty());
    }
    EXPECT_EQ(names, (std::set<std::string>{"none", "layer", "sqrt", "act", "attn", "offload"}));
    EXPECT_STREQ(find_policy("0").name, "none");
    EXPECT_STREQ(find_policy("1").name, "layer");
    EXPECT_STREQ(find_policy("2").name, "sqrt");
}

TEST(Policies, AnUnknownNameListsTheKnownOnes) {
    for (const char* name : {"", "3", "Layer", "full", " "}) {
        EXPECT_TRUE(
            has(error_of([&] { find_policy(name); }), {"--recompute=", "none (0)", "sqrt (2)", "attn", "offload"}))
            << name;
    }
}

TEST(SqrtSegment, IsWhatTheDesignSays) {
    EXPECT_EQ(sqrt_segment(12), 3);
    EXPECT_EQ(sqrt_segment(24), 4);
    EXPECT_EQ(sqrt_segment(32), 4);
    EXPECT_EQ(sqrt_segment(48), 6);
    EXPECT_EQ(sqrt_segment(80), 8);
}

TEST(SqrtSegment, MinimisesBoundariesWithTiesToTheSmaller) {
    const auto cost = [](int L, int k) { return (L + k - 1) / k + k - 1; };
    for (int L = 1; L <= 300; ++L) {
        const int k = sqrt_segment(L);
        ASSERT_GE(k, 1);
        ASSERT_LE(k, L);
        for (int other = 1; other <= L; ++other) {
            ASSERT_LE(cost(L, k), cost(L, other)) << "L = " << L;
            ASSERT_TRUE(other >= k || cost(L, other) > cost(L, k))
                << "L = " << L << ": " << other << " ties with " << k;
        }
        if (L >= 4) {
            EXPECT_LE(cost(L, k), 2 * std::sqrt(L) + 1) << "of the order of the root, L = " << L;
        }
    }
}

TEST(Policies, EveryPlanOfEveryCaseIsRight) {
    for (const Family family : kFamilies) {
        for (const int L : kDepths) {
            const Model model = small_model(family, L);
            for (const BatchShape& shape : kShapes) {
                for (const DType dtype : kTypes) {
                    const PlanRequest request = request_of(model, shape, dtype, L % 2 == 0 ? 1000 : 0);
                    for (const PolicyRow& policy : policies()) {
                        const Plan plan = make_training_plan(model, request, policy);
                        EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "")
                            << label(model, shape, dtype, policy.name);
                        EXPECT_EQ(plan.policy, policy.name);
                    }
                }
            }
        }
    }
}

// ---- Memory, against the formulas of the design ----

TEST(Policies, LayerActivationsAreTheFormulas) {
    for (const Family family : kFamilies) {
        for (const int L : kDepths) {
            const Model model = small_model(family, L);
            for (const BatchShape& shape : kShapes) {
                for (const DType dtype : kTypes) {
                    const int64_t X = boundary_bytes(model.config, shape, dtype);
                    const int64_t I = internal_bytes(model.config, shape, dtype);
                    const PlanRequest request = request_of(model, shape, dtype);
                    const auto measured = [&](const char* policy) {
                        return simulate(model, make_training_plan(model, request, find_policy(policy)))
                            .layer_activation_bytes;
                    };
                    const std::string where = label(model, shape, dtype, "");
                    EXPECT_EQ(measured("none"), (L + 1) * X + L * I) << where;
                    EXPECT_EQ(measured("layer"), (L + 1) * X + I) << where;
                    EXPECT_EQ(measured("offload"), (std::min(L, 2) + 1) * X + I) << where;
                    const int k = sqrt_segment(L), n = (L + k - 1) / k;
                    EXPECT_LE(measured("sqrt"), (n + k) * X + I) << where;
                    // Exactly: the last segment's boundaries while its last layer runs, or those of the one before it.
                    const int last = L - (n - 1) * k;
                    EXPECT_EQ(measured("sqrt"), std::max(n + last, n > 1 ? n + k - 2 : 0) * X + I) << where;
                }
            }
        }
    }
}

/// A level's bytes come down from one level to the next.
void expect_ordered(const Model& model, const BatchShape& shape, DType dtype, int64_t workspace) {
    const PlanRequest request = request_of(model, shape, dtype, workspace);
    int64_t arena = 0, layers = 0;
    for (const char* policy : {"offload", "sqrt", "layer", "none"}) {
        const Plan plan = make_training_plan(model, request, find_policy(policy));
        const int64_t next_arena = make_layout(plan).arena_bytes;
        const int64_t next_layers = simulate(model, plan).layer_activation_bytes;
        EXPECT_GT(next_arena, arena) << label(model, shape, dtype, policy);
        EXPECT_GT(next_layers, layers) << label(model, shape, dtype, policy);
        arena = next_arena, layers = next_layers;
    }
}

TEST(Policies, EachLevelNeedsLessForEveryDepthFromFour) {
    for (const Family family : kFamilies) {
        for (int L = 4; L <= 26; ++L) {
            for (const BatchShape& shape : kShapes) expect_ordered(small_model(family, L), shape, DType::F32, 0);
            expect_ordered(small_model(family, L), {3, 100}, DType::BF16, 5000);
        }
    }
    for (const char* name : {"gpt2", "gpt2-xl", "tinyllama-1.1b", "llama3.2-1b", "llama3-8b"}) {
        const Model model = make_model(preset(name));
        expect_ordered(model, {2, 1024}, DType::BF16, 0);
        expect_ordered(model, {1, 333}, DType::F32, 1 << 20);
    }
}

TEST(Policies, ActDropsAThirdAndAttnKeepsThreeBoundaries) {
    // GPT-2, by the design's count of a layer in units of X: 10 for `act`, 3 for `attn`; each layer more adds that.
    const BatchShape shape = {4, 1024};
    const auto per_layer = [&](const char* policy) {
        int64_t bytes[2];
        for (const int more : {0, 1}) {
            ModelConfig config = preset("gpt2");
            config.L = 12 + more;
            const Model model = make_model(config);
            const Plan plan = make_training_plan(model, request_of(model, shape, DType::BF16), find_policy(policy));
            bytes[more] = simulate(model, plan).layer_activation_bytes;
        }
        return static_cast<double>(bytes[1] - bytes[0]) /
               static_cast<double>(boundary_bytes(preset("gpt2"), shape, DType::BF16));
    };
    EXPECT_NEAR(per_layer("none"), 16, 0.1);
    EXPECT_NEAR(per_layer("act"), 10, 0.1);
    EXPECT_NEAR(per_layer("attn"), 3, 0.1);
    EXPECT_DOUBLE_EQ(per_layer("layer"), 1);
}

// ---- Work: how often every operation of every layer runs forward ----

/// [layer][row].
std::vector<std::vector<int>> forwards(const Model& model, const Plan& plan) {
    std::vector<std::vector<int>> counts(static_cast<size_t>(model.config.L), std::vector<int>(model.block.size(), 0));
    for (const Step& step : plan.steps) {
        if (step.row < 0 || step.pass != Pass::Forward) continue;
        ++counts[static_cast<size_t>(step.layer)][static_cast<size_t>(step.row)];
    }
    return counts;
}

/// What each policy should run, said in words here and not by operands as the generator does it.
int expected_forwards(const std::string& policy, const OpRow& row, bool last_row, int layer, int L) {
    if (layer == L - 1) return 1;  // Its internals are still there.
    if (policy == "layer" || policy == "offload") return last_row ? 1 : 2;
    if (policy == "act") return row.kind == OpKind::Matmul || row.kind == OpKind::Attention ? 1 : 2;
    if (policy == "attn") return last_row || row.kind == OpKind::Attention || row.name == "att_proj" ? 1 : 2;
    if (policy == "sqrt") {
        const int k = sqrt_segment(L);
        const bool last_segment = layer / k == (L - 1) / k;
        const bool walked = !last_segment && layer % k != k - 1;  // k-1 whole layers per segment.
        return (last_row ? 1 : 2) + (walked ? 1 : 0);
    }
    return 1;
}

TEST(Policies, ForwardsPerOperationAreExactlyThose) {
    for (const Family family : kFamilies) {
        for (const int L : kDepths) {
            const Model model = small_model(family, L);
            for (const PolicyRow& policy : policies()) {
                const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), policy);
                const auto counts = forwards(model, plan);
                for (int layer = 0; layer < L; ++layer) {
                    for (size_t row = 0; row < model.block.size(); ++row) {
                        const bool last_row = row + 1 == model.block.size();
                        EXPECT_EQ(counts[static_cast<size_t>(layer)][row],
                                  expected_forwards(policy.name, model.block[row], last_row, layer, L))
                            << model.config.name << " of " << L << " layers, " << policy.name << ", layer " << layer
                            << ", " << model.block[row].name;
                    }
                }
            }
        }
    }
}

TEST(Policies, EveryOperationRunsBackwardOnceAndInOrder) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 5);
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), policy);
            std::vector<std::string> order, expected;
            for (const Step& step : plan.steps) {
                if (step.pass != Pass::Forward) order.push_back(describe_step(model, step));
            }
            expected = {"cross-entropy", "weight gradient of classifier", "input gradient of classifier"};
            expected.push_back("backward of lnf");
            for (int layer = 4; layer >= 0; --layer) {
                const std::string where = "layer " + std::to_string(layer) + ", ";
                for (size_t row = model.block.size(); row-- > 0;) {
                    const std::string& name = model.block[row].name;
                    if (model.block[row].kind == OpKind::Matmul) {
                        expected.push_back(where + "weight gradient of " + name);
                        expected.push_back(where + "input gradient of " + name);
                    } else {
                        expected.push_back(where + "backward of " + name);
                    }
                }
            }
            expected.push_back("backward of embedding");
            EXPECT_EQ(order, expected) << policy.name;
        }
    }
}

TEST(Policies, NothingIsComputedThatNobodyReads) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 4, 7, 13}) {
            const Model model = small_model(family, L);
            for (const PolicyRow& policy : policies()) {
                const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), policy);
                std::vector<bool> read(plan.tensors.size(), false);
                for (const Step& step : plan.steps) {
                    for (int slot = 0; slot < kNumSlots; ++slot) {
                        if (access(step, static_cast<Slot>(slot)).reads) {
                            read[static_cast<size_t>(step.operand(static_cast<Slot>(slot)))] = true;
                        }
                    }
                }
                for (const Step& step : plan.steps) {
                    if (step.kind != StepKind::Compute || step.pass != Pass::Forward) continue;
                    if (step.op == OpKind::LossSum) continue;
                    const Slot out = step.op == OpKind::Classifier ? Slot::Logits : Slot::Out;
                    EXPECT_TRUE(read[static_cast<size_t>(step.operand(out))])
                        << policy.name << ": " << describe_step(model, step);
                }
            }
        }
    }
}

// ---- Boundaries in host memory ----

/// Where in the plan the copies of a layer's input begin and are waited for; -1: nowhere.
struct CopySteps {
    int copy_out = -1, wait_copy_out = -1, fetch = -1, wait_fetch = -1;
};

CopySteps copies_of(const Plan& plan, int layer) {
    CopySteps found;
    for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
        const Step& step = plan.steps[static_cast<size_t>(i)];
        if (step.layer != layer) continue;
        if (step.kind == StepKind::CopyOut) found.copy_out = i;
        if (step.kind == StepKind::WaitCopyOut) found.wait_copy_out = i;
        if (step.kind == StepKind::Fetch) found.fetch = i;
        if (step.kind == StepKind::WaitFetch) found.wait_fetch = i;
    }
    return found;
}

/// First and last step of a layer in a phase that computes something.
std::pair<int, int> work_between(const Plan& plan, int layer, bool forward) {
    std::pair<int, int> found = {-1, -1};
    for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
        const Step& step = plan.steps[static_cast<size_t>(i)];
        if (step.kind != StepKind::Compute || step.layer != layer) continue;
        if ((step.phase == Phase::Forward) != forward) continue;
        if (found.first < 0) found.first = i;
        found.second = i;
    }
    return found;
}

TEST(Offload, CopiesAllInputsButTheLastTwoAndHidesThemBehindLayers) {
    for (const Family family : kFamilies) {
        for (const int L : kDepths) {
            const Model model = small_model(family, L);
            const PlanRequest request = request_of(model, {3, 7}, DType::BF16);
            const Plan plan = make_training_plan(model, request, find_policy("offload"));
            const int64_t X = boundary_bytes(model.config, request.shape, DType::BF16);
            EXPECT_EQ(plan.host_bytes, std::max(L - 2, 0) * X);
            std::set<int64_t> places;
            for (int layer = 0; layer < L; ++layer) {
                const CopySteps copies = copies_of(plan, layer);
                if (layer >= L - 2) {
                    EXPECT_EQ(copies.copy_out, -1);
                    EXPECT_EQ(copies.fetch, -1);
                    continue;
                }
                // Out: from before the layer to after the next one. Back: beside the whole backward of the one above.
                EXPECT_LT(copies.copy_out, work_between(plan, layer, true).first);
                EXPECT_GT(copies.wait_copy_out, work_between(plan, layer + 1, true).second);
                EXPECT_LT(copies.wait_copy_out, work_between(plan, layer + 2, true).first);
                EXPECT_GT(copies.fetch, work_between(plan, layer + 2, false).second);
                EXPECT_LT(copies.fetch, work_between(plan, layer + 1, false).first);
                EXPECT_GT(copies.wait_fetch, work_between(plan, layer + 1, false).second);
                EXPECT_LT(copies.wait_fetch, work_between(plan, layer, false).first);
                const int64_t place = plan.steps[static_cast<size_t>(copies.copy_out)].host_offset;
                EXPECT_EQ(plan.steps[static_cast<size_t>(copies.fetch)].host_offset, place);
                EXPECT_TRUE(places.insert(place).second) << "two inputs in one place";
            }
        }
    }
}

TEST(Offload, HoldsThreeBoundariesInTheForwardAndTwoInTheBackward) {
    const Model model = small_model(Family::Gpt2, 12);
    const PlanRequest request = request_of(model, {3, 7}, DType::F32);
    const Plan plan = make_training_plan(model, request, find_policy("offload"));
    const std::vector<Lifetime> lives = lifetimes(plan);
    for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
        int boundaries = 0;
        for (size_t t = 0; t < plan.tensors.size(); ++t) {
            const bool alive = lives[t].first <= i && i <= lives[t].last;
            boundaries += alive && plan.tensors[t].consumer == Consumer::Boundaries ? 1 : 0;
        }
        const Step& step = plan.steps[static_cast<size_t>(i)];
        EXPECT_LE(boundaries, step.phase == Phase::Backward || step.phase == Phase::Recompute ? 2 : 3)
            << describe_step(model, step);
    }
}

TEST(Offload, IsLevelOneBesidesItsCopies) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 3, 7}) {
            const Model model = small_model(family, L);
            const PlanRequest request = request_of(model, {3, 7}, DType::F32, 100);
            const auto words = [&](const char* policy) {
                std::vector<std::string> steps;
                for (const Step& step : make_training_plan(model, request, find_policy(policy)).steps) {
                    if (step.kind == StepKind::Compute) steps.push_back(describe_step(model, step));
                }
                return steps;
            };
            EXPECT_EQ(words("offload"), words("layer"));
        }
    }
}

// ---- Work, in FLOPs ----

struct Work {
    double once = 0, repeated = 0, head = 0;
};

Work work_of(const Model& model, const Plan& plan) {
    Work work;
    for (const Step& step : plan.steps) {
        const double flops = step_flops(model, plan, step);
        (step.row < 0 ? work.head : step.phase == Phase::Recompute ? work.repeated : work.once) += flops;
    }
    return work;
}

TEST(Policies, ExtraWorkAsAShareOfTheLayersIsWithinTheDesign) {
    for (const char* name : {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "tinyllama-1.1b", "llama3.2-1b",
                             "llama2-7b", "llama3-8b", "llama3-70b"}) {
        const Model model = make_model(preset(name));
        for (const int64_t T : {int64_t{256}, std::min<int64_t>(model.config.maxT, 4096)}) {
            const auto share = [&](const char* policy) {
                const Plan plan =
                    make_training_plan(model, request_of(model, {1, T}, DType::BF16), find_policy(policy));
                const Work work = work_of(model, plan);
                const double ratio = simulate(model, plan).extra_flops_ratio();
                EXPECT_NEAR(ratio, work.repeated / (work.once + work.head), 1e-9) << name;
                EXPECT_LE(ratio, work.repeated / work.once) << "the head is never run again";
                return work.repeated / work.once;
            };
            EXPECT_EQ(share("none"), 0);
            EXPECT_EQ(share("act"), 0) << "norms and activation functions cost no FLOPs of matrix products";
            EXPECT_GT(share("layer"), 0.205) << name << ", T = " << T;
            EXPECT_LT(share("layer"), 0.255) << name << ", T = " << T;
            EXPECT_GT(share("sqrt"), 0.37) << name << ", T = " << T;
            EXPECT_LT(share("sqrt"), 0.505) << name << ", T = " << T;
            EXPECT_LT(share("attn"), share("layer"));
            EXPECT_EQ(share("offload"), share("layer")) << "copies are no operations";
        }
    }
}

TEST(Policies, ExtraWorkByHand) {
    // GPT-2 124M, T = 1024, per token and layer: matrices 12 C^2 of which the last has 4 C^2; two attention products of
    // C T FLOPs each forward and five backward.
    const double C = 768, T = 1024, L = 12;
    const double forward = 2 * 12 * C * C + 2 * C * T, backward = 4 * 12 * C * C + 5 * C * T;
    const double last = 2 * 4 * C * C;
    const Model model = make_model(preset("gpt2"));
    const auto plan = [&](const char* policy) {
        return make_training_plan(model, request_of(model, {2, 1024}, DType::F32), find_policy(policy));
    };
    const double tokens = 2 * 1024;
    const Work layer = work_of(model, plan("layer"));
    EXPECT_NEAR(layer.once, tokens * L * (forward + backward), 1e-9 * layer.once);
    EXPECT_NEAR(layer.repeated, tokens * (L - 1) * (forward - last), 1e-9 * layer.once);
    EXPECT_NEAR(layer.head, tokens * 3 * 2 * C * 50304, 1e-9 * layer.head);
    // k = 3, n = 4: two whole layers for each of the first three segments.
    EXPECT_NEAR(work_of(model, plan("sqrt")).repeated, layer.repeated + tokens * 6 * forward, 1e-9 * layer.once);
}

}  // namespace
}  // namespace llmc
