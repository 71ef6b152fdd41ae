// Low-rank adapters on the CUDA backend: trained as PEFT trains them, and to the same bits under every policy.
#include "tests/cuda/cuda_testing.h"
#include "tests/run/frozen_cases.h"
#include "tests/run/lora_cases.h"

namespace llmc {
namespace {

struct LoraRun {
    std::vector<double> losses;
    std::vector<std::vector<float>> weights;
    bool operator==(const LoraRun&) const = default;
};

LoraRun run(const LoraCase& lora, const std::string& policy, DType dtype) {
    TinyTrainer trainer(lora.model(), lora.shape(), dtype, nullptr, policy, 1, 0, "cuda");
    trainer.set_optimizer(lora.adamw(), static_cast<float>(lora.learning_rate()));
    load_adapted(lora.base(), &lora.before(), 0, trainer.state());
    LoraRun result;
    for (const nlohmann::json& step : lora.steps()) {
        const std::vector<LabelledBatch> batches(step.begin(), step.end());
        int64_t scored = 0;
        for (const LabelledBatch& batch : batches) scored += batch.scored;
        double sum = 0;
        for (size_t i = 0; i < batches.size(); ++i) {
            const Turn turn = {.first = i == 0, .last = i + 1 == batches.size()};
            sum = trainer.micro_batch(batches[i].tokens.data(), batches[i].targets.data(),
                                      1.0f / static_cast<float>(scored), turn);
        }
        result.losses.push_back(sum * static_cast<double>(trainer.plan().shape.N()) / static_cast<double>(scored));
        if (result.losses.size() == 2) break;
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
    const LoraRun fp32 = run(lora, "none", DType::F32), bf16 = run(lora, "none", DType::BF16);
    for (const PolicyRow& policy : policies()) {
        const bool is_fp32 = &policy == &policies()[0] || policy.name == std::string("layer");
        EXPECT_TRUE(run(lora, policy.name, is_fp32 ? DType::F32 : DType::BF16) == (is_fp32 ? fp32 : bf16))
            << policy.name;
    }
}

}  // namespace
}  // namespace llmc
