// Fused steps as they run: on the CPU against --no-fuse, on a backend whose fused form has other bits than its separate
// operations (so that a policy that fused another step would be seen), and on one that computes nothing.
#include "llmc/run/fusion.h"

#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/search.h"
#include "llmc/plan/verify.h"
#include "tests/backend/null_backend.h"
#include "tests/run/rank_team.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace llmc {
namespace {

ModelConfig tiny(Family family, int64_t L = 5) {
    ModelConfig config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    config.L = L, config.C = 40, config.NH = 5, config.HD = 8, config.V = 97, config.maxT = 23;
    config.NKV = family == Family::Gpt2 ? 5 : 1;
    config.F = family == Family::Gpt2 ? 160 : 52;
    return config;
}
constexpr BatchShape kShape = {3, 23};

/// Its sums of a bias's gradient are a little larger where the two operations are one.
class OtherBits final : public cpu::CpuBackend {
  public:
    using CpuBackend::CpuBackend;
    void activation_and_weight_gradient(const ActivationAndWeightGradient& operands) override {
        CHECK(!operands.adds, "one micro-batch");
        CpuBackend::activation_and_weight_gradient(operands);
        auto* const sums = operands.d_bias.as<float>();
        for (int64_t i = 0; i < operands.d_bias.count(); ++i) sums[i] *= 1 + 0x1p-20f;
    }
};

/// The gradients of one micro-batch.
std::vector<float> gradients_of(Backend& backend, const Model& model, const Plan& plan) {
    const PlannedMemory memory = with_memory(model, plan);
    State state(backend, model, DType::F32, kShape.T, memory.layout.arena_bytes, /*training=*/true);
    fill_with_nan(backend, state.all_gradients());
    state.initialise(7);
    state.set_loss_scale(1.0f / static_cast<float>(kShape.N()));
    Executor executor(state, memory.plan, memory.layout);
    std::vector<int32_t> tokens(static_cast<size_t>(kShape.N()));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i % 97);
    backend.copy_to_device(executor.tokens(), tokens.data());
    std::reverse(tokens.begin(), tokens.end());
    backend.copy_to_device(executor.targets(), tokens.data());
    executor.run({.turn = {.first = true, .last = false}});
    EXPECT_EQ(executor.high_water_bytes(), memory.layout.arena_bytes);
    std::vector<float> values(static_cast<size_t>(state.all_gradients().count()));
    backend.copy_to_host(values.data(), state.all_gradients());
    return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

int count_fused(const Plan& plan) {
    return static_cast<int>(std::count_if(plan.steps.begin(), plan.steps.end(),
                                          [](const Step& step) { return step.kind == StepKind::Fused; }));
}

TEST(FusedSteps, HaveTheSameBitsUnderEveryPolicyWhateverTheirBitsAre) {
    const Model model = make_model(tiny(Family::Gpt2));
    OtherBits backend(2);
    const PlanRequest request = plan_request(model, kShape, DType::F32, 0, backend);
    const PlanRequest separate = plan_request(model, kShape, DType::F32, 0, backend, {}, /*fuses=*/false);
    ASSERT_EQ(request.fusions.size(), 1u);
    ASSERT_TRUE(separate.fusions.empty());
    const std::vector<float> expected =
        gradients_of(backend, model, make_training_plan(model, request, find_policy("none")));
    const std::vector<float> unfused =
        gradients_of(backend, model, make_training_plan(model, separate, find_policy("none")));
    EXPECT_FALSE(same_bits(expected, unfused)) << "the test would see nothing";
    double largest = 0;
    for (size_t i = 0; i < expected.size(); ++i)
        largest = std::max<double>(largest, std::fabs(expected[i] - unfused[i]));
    EXPECT_LT(largest, 1e-6);
    for (const PolicyRow& policy : policies()) {
        const Plan plan = make_training_plan(model, request, policy);
        EXPECT_EQ(count_fused(plan), 5) << policy.name;
        EXPECT_TRUE(same_bits(gradients_of(backend, model, plan), expected)) << policy.name;
    }
    const OpTimes times = analytic_times(model, kShape, DType::F32, {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
    const int64_t most = make_layout(make_training_plan(model, request, find_policy("none"))).arena_bytes;
    int found = 0;
    for (int64_t budget = most / 4; budget < most; budget += most / 10) {
        const SearchResult result = search_plan(model, request, times, budget);
        if (!result.found) continue;
        ++found;
        EXPECT_LE(make_layout(result.plan).arena_bytes, budget);
        EXPECT_TRUE(same_bits(gradients_of(backend, model, result.plan), expected)) << result.summary;
    }
    EXPECT_GE(found, 4);
}

/// As the backend promises for each of them.
TEST(FusedSteps, OnTheCpuHaveTheBitsOfSeparateOnes) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        for (const bool biases : {true, false}) {
            ModelConfig config = tiny(family);
            config.features.mlp_bias = biases;
            for (const char* policy : {"none", "act"}) {
                for (const int threads : {1, 3}) {
                    TinyTrainer fused(config, kShape, DType::F32, policy, threads);
                    TinyTrainer separate(config, kShape, DType::F32, policy, threads, 0, "cpu", /*fuses=*/false);
                    EXPECT_EQ(count_fused(fused.plan()), biases ? 5 : 0);
                    EXPECT_EQ(count_fused(separate.plan()), 0);
                    for (TinyTrainer* trainer : {&fused, &separate}) {
                        trainer->state().initialise(7);
                        for (uint64_t micro = 0; micro < 2; ++micro) {
                            const auto tokens = trainer->random_tokens(2 * micro);
                            const auto targets = trainer->random_tokens(2 * micro + 1);
                            trainer->micro_batch(tokens.data(), targets.data(), 0.01f,
                                                 {.first = micro == 0, .last = micro == 1});
                        }
                        EXPECT_EQ(trainer->executor().high_water_bytes(), trainer->memory().layout.arena_bytes);
                    }
                    EXPECT_TRUE(same_bits(fused.gradients(), separate.gradients())) << policy << ", " << threads;
                }
            }
        }
    }
}

/// Whatever ranks share: plan_memory() fuses, as a run does.
TEST(FusedSteps, HaveTheSameBitsAtEveryStageAndPolicy) {
    std::vector<TeamResult> results;
    for (const int zero : {0, 1, 2, 3}) {
        for (const char* policy : {"none", "act"}) {
            TeamRun run;
            run.config = tiny(Family::Gpt2, 2);
            run.shape = {1, 16};
            run.policy = policy;
            run.parallel.ranks = 2, run.parallel.micro_batches = 2, run.parallel.rank_invariant = true;
            run.zero = zero;
            results.push_back(RankTeam(run).train());
        }
    }
    for (const TeamResult& result : results) {
        EXPECT_EQ(result.losses, results.front().losses);
        EXPECT_EQ(result.weights, results.front().weights);
    }
}

TEST(FusedSteps, OfABackendThatComputesNothing) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        ModelConfig config = tiny(family);
        config.features.mlp_bias = true;
        const Model model = make_model(config);
        const std::string backward = family == Family::Gpt2 ? "gelu_backward" : "swiglu_backward";
        for (const PolicyRow& policy : policies()) {
            NullBackend backend(512);
            backend.set_fusion({.fuses = true, .workspace_bytes = 4097});
            const PlannedMemory memory = plan_memory(model, kShape, DType::BF16, policy, 0, backend);
            State state(backend, model, DType::BF16, kShape.T, memory.layout.arena_bytes, /*training=*/true);
            Executor executor(state, memory.plan, memory.layout);
            EXPECT_EQ(backend.allocated_bytes(), memory.total_bytes()) << policy.name;
            executor.run({});
            EXPECT_EQ(executor.high_water_bytes(), memory.layout.arena_bytes) << policy.name;
            EXPECT_EQ(backend.count("activation_and_weight_gradient"), 5) << policy.name;
            EXPECT_EQ(backend.count(backward), 0) << policy.name;
            EXPECT_EQ(backend.count("matmul_backward_weight"), 5 * 3 + 1) << policy.name;
        }
        NullBackend backend(512);
        EXPECT_TRUE(fused_runs(model, kShape, 0, DType::BF16, backend).empty()) << "a backend states what it fuses";
    }
}

/// What a product takes along: two operations, of which the gradient between them is stored nowhere, and one by itself.
TEST(FusedSteps, OfProductsThatTakeMoreAlong) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        ModelConfig config = tiny(family);
        config.features.mlp_bias = true;
        const Model model = make_model(config);
        const auto biases = std::count_if(model.block.begin(), model.block.end(), [](const OpRow& row) {
            return row.kind == OpKind::Matmul && row.bias != kNone;
        });
        for (const PolicyRow& policy : policies()) {
            NullBackend backend(512);
            backend.set_fusion({.fuses = true, .stores_between = false, .workspace_bytes = 4097},
                               Fusion::InputGradientAndActivation);
            backend.set_fusion({.fuses = true, .workspace_bytes = 700}, Fusion::WeightAndBiasGradient);
            const PlannedMemory memory = plan_memory(model, kShape, DType::BF16, policy, 0, backend);
            State state(backend, model, DType::BF16, kShape.T, memory.layout.arena_bytes, /*training=*/true);
            Executor executor(state, memory.plan, memory.layout);
            executor.run({});
            EXPECT_EQ(executor.high_water_bytes(), memory.layout.arena_bytes) << policy.name;
            EXPECT_EQ(backend.count("input_gradient_and_activation"), 5) << policy.name;
            EXPECT_EQ(backend.count("weight_and_bias_gradient"), 5 * biases) << policy.name;
            EXPECT_EQ(backend.count("matmul_backward_input"), 5 * 3 + 1) << policy.name;
            EXPECT_EQ(backend.count("matmul_backward_weight"), 5 * (4 - biases) + 1) << policy.name;
            for (const PlanTensor& tensor : memory.plan.tensors) EXPECT_NE(tensor.name, "d_act_out") << policy.name;
        }
    }
}

/// A forward that is one step is one in repeats of both, and separate where only one of them is repeated.
TEST(FusedSteps, OfAMatmulAndItsActivation) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        const Model model = make_model(tiny(family));
        const std::string activation = family == Family::Gpt2 ? "gelu_forward" : "swiglu_forward";
        for (const PolicyRow& policy : policies()) {
            const auto calls = [&](bool fuses) {
                NullBackend backend(512);
                backend.set_fusion({.fuses = fuses, .same_bits = true, .workspace_bytes = 512},
                                   Fusion::MatmulAndActivation);
                const PlannedMemory memory = plan_memory(model, kShape, DType::BF16, policy, 0, backend);
                EXPECT_EQ(find_fault(model, memory.plan, memory.layout), "");
                State state(backend, model, DType::BF16, kShape.T, memory.layout.arena_bytes, /*training=*/true);
                Executor executor(state, memory.plan, memory.layout);
                executor.run({});
                EXPECT_EQ(executor.high_water_bytes(), memory.layout.arena_bytes) << policy.name;
                return std::array{backend.count("matmul_and_activation"), backend.count("matmul_forward"),
                                  backend.count(activation)};
            };
            const auto [none, matmuls, activations] = calls(false);
            const auto [fused, other_matmuls, other_activations] = calls(true);
            EXPECT_EQ(none, 0);
            EXPECT_GE(fused, 5) << policy.name;
            EXPECT_EQ(fused + other_matmuls, matmuls) << policy.name;
            EXPECT_EQ(fused + other_activations, activations) << policy.name;
            if (policy.name == std::string_view("act")) {
                EXPECT_EQ(fused, 5) << "it repeats the activation alone";
            }
        }
    }
}

/// Times are known by the order of runs: what only a kernel of our own makes comes behind what all have. Of a
/// backward's trips to memory those are left that its product does not save.
TEST(FusedSteps, OfOurOwnProductsComeLast) {
    ModelConfig config = tiny(Family::Llama);
    config.features.mlp_bias = true;
    NullBackend backend(512);
    for (const Fusion fusion :
         {Fusion::InputGradientAndActivation, Fusion::WeightAndBiasGradient, Fusion::MatmulAndActivation})
        backend.set_fusion({.fuses = true, .same_bits = true}, fusion);
    const std::vector<FusedRun> of_swiglu = fused_runs(make_model(config), kShape, 0, DType::BF16, backend);
    std::vector<Fusion> order;
    for (const FusedRun& run : of_swiglu) order.push_back(run.fusion);
    EXPECT_EQ(order, (std::vector{Fusion::WeightAndBiasGradient, Fusion::WeightAndBiasGradient,
                                  Fusion::MatmulAndActivation, Fusion::InputGradientAndActivation}));
    EXPECT_FLOAT_EQ(of_swiglu.back().parts.back().share, 3.0f / 5);
    const std::vector<FusedRun> of_gelu = fused_runs(make_model(tiny(Family::Gpt2)), kShape, 0, DType::BF16, backend);
    EXPECT_EQ(of_gelu.back().fusion, Fusion::MatmulAndActivation);
    const auto gelu = std::find_if(of_gelu.begin(), of_gelu.end(), [](const FusedRun& run) {
        return run.fusion == Fusion::InputGradientAndActivation;
    });
    ASSERT_NE(gelu, of_gelu.end());
    EXPECT_FLOAT_EQ(gelu->parts.back().share, 1.0f / 3);
}

/// Blocks decide bits: what only whole blocks can is not fused where the last one is smaller.
TEST(FusedSteps, AreOfTheLastBlockToo) {
    class OnlyWholeBlocks final : public NullBackend {
      public:
        FusionAnswer fuses(const FusionQuery& query) const override {
            return {.fuses = query.fusion == Fusion::WeightAndBiasGradient && query.N == 128};
        }
    };
    const Model model = make_model(tiny(Family::Gpt2));
    const OnlyWholeBlocks backend;
    EXPECT_EQ(fused_runs(model, {2, 128}, 128, DType::BF16, backend).size(), 4u);
    EXPECT_TRUE(fused_runs(model, {2, 70}, 128, DType::BF16, backend).empty());
}

}  // namespace
}  // namespace llmc
