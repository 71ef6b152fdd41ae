// Low-rank adapters on the CUDA backend: trained as PEFT trains them, and to the same bits under every policy; and on
// bases in 4 bits, wherever they are.
#include "llmc/train/load_weights.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"
#include "tests/run/lora_cases.h"
#include "tests/run/rank_team.h"

#include <algorithm>
#include <string>
#include <vector>

namespace llmc {
namespace {

struct LoraRun {
    std::vector<double> losses;
    std::vector<std::vector<float>> weights;
    bool operator==(const LoraRun&) const = default;
};

/// How much of a case is trained: an executor on the CPU is slow.
struct Length {
    size_t updates = 2, micro_batches = 2;
};

LoraRun run(const LoraCase& lora, const std::string& policy, DType dtype, const Length& length = {}) {
    TinyTrainer trainer(lora.model(), lora.shape(), dtype, nullptr, policy, 1, 0, "cuda");
    trainer.set_optimizer(lora.adamw(), static_cast<float>(lora.learning_rate()));
    load_adapted(lora.base(), &lora.before(), 0, trainer.state());
    LoraRun result;
    for (const nlohmann::json& step : lora.steps()) {
        std::vector<LabelledBatch> batches(step.begin(), step.end());
        batches.erase(batches.begin() + static_cast<int64_t>(std::min(length.micro_batches, batches.size())),
                      batches.end());
        result.losses.push_back(train_update(trainer, batches));
        if (result.losses.size() == length.updates) break;
    }
    result.weights = weights_of(trainer.state());
    EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes()) << policy;
    EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy;
    return result;
}

TEST(CudaLora, TrainsAsPeftDoes) {
    for (const char* name : {"llama_all", "gpt2_bias", "llama_head"}) {
        const LoraCase lora("tests/golden/lora", name);
        const LoraRun ours = run(lora, "none", DType::F32);
        for (size_t i = 0; i < ours.losses.size(); ++i) EXPECT_NEAR(ours.losses[i], lora.losses()[i], 1e-5) << name;
    }
}

TEST(CudaLora, SameBitsUnderEveryPolicy) {
    const LoraCase lora("tests/golden/lora", "llama_all");
    const Length accumulated = {1, 2}, once = {1, 1};
    EXPECT_TRUE(run(lora, "layer", DType::F32, accumulated) == run(lora, "none", DType::F32, accumulated));
    const LoraRun bf16 = run(lora, "none", DType::BF16, once);
    for (const PolicyRow& policy : policies()) {
        if (policy.name == std::string("none") || policy.name == std::string("layer")) continue;
        EXPECT_TRUE(run(lora, policy.name, DType::BF16, once) == bf16) << policy.name;
    }
}

TeamRun on_four_bits(Family family, WeightFormat base, DType dtype) {
    TeamRun run;
    run.config = plan_cases::small_config(family, 3);
    run.config.C = 16, run.config.NH = 2, run.config.NKV = family == Family::Gpt2 ? 2 : 1, run.config.F = 25;
    run.config.V = 33, run.config.maxT = 8;
    run.device = "cuda", run.lora = 3, run.base = base, run.dtype = dtype;
    run.shape = {1, 8}, run.steps = 2;
    return run;
}

TEST(CudaQLora, TrainsAsTheCpuDoes) {
    for (const WeightFormat base : {WeightFormat::Nf4, WeightFormat::Nf4Double}) {
        TeamRun run = on_four_bits(base == WeightFormat::Nf4 ? Family::Gpt2 : Family::Llama, base, DType::F32);
        const TeamResult ours = RankTeam(run).train();
        run.device = "cpu";
        const TeamResult theirs = RankTeam(run).train();
        for (size_t i = 0; i < ours.losses.size(); ++i) EXPECT_NEAR(ours.losses[i], theirs.losses[i], 1e-5) << i;
        ASSERT_EQ(ours.weights.size(), theirs.weights.size());
        for (size_t i = 0; i < ours.weights.size(); ++i) ASSERT_NEAR(ours.weights[i], theirs.weights[i], 1e-5) << i;
    }
}

/// The base streams from host memory, and is unpacked anew for every product that reads it.
TEST(CudaQLora, SameBitsUnderEveryPolicyAtEveryPlace) {
    for (const DType dtype : kActivationTypes) {
        const WeightFormat base = dtype == DType::F32 ? WeightFormat::Nf4 : WeightFormat::Nf4Double;
        TeamRun run = on_four_bits(Family::Llama, base, dtype);
        const TeamResult expected = RankTeam(run).train();
        for (const auto& [policy, offload] : {std::pair("layer", "none"), std::pair("none", "parameters"),
                                              std::pair("layer", "parameters,boundaries"), std::pair("sqrt", "all")}) {
            run.policy = policy, run.offload = offload;
            const TeamResult team = RankTeam(run).train();
            EXPECT_EQ(team.losses, expected.losses) << policy << " " << offload;
            EXPECT_EQ(team.norms, expected.norms) << policy << " " << offload;
            EXPECT_EQ(team.weights, expected.weights) << policy << " " << offload;
        }
    }
}

}  // namespace
}  // namespace llmc
