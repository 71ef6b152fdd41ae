// Low-rank adapters on the CUDA backend: trained as PEFT trains them, and to the same bits under every policy.
#include "tests/cuda/cuda_testing.h"
#include "tests/run/frozen_cases.h"
#include "tests/run/lora_cases.h"

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

}  // namespace
}  // namespace llmc
