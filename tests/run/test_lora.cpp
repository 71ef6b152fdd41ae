// Low-rank adapters trained as PEFT trains them, and to the same bits under every policy, in the memory predicted.
#include "tests/run/frozen_cases.h"
#include "tests/run/lora_cases.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace llmc {
namespace {

constexpr const char* kCases[] = {"llama_all", "llama_qv_rslora", "llama_head", "gpt2_all", "gpt2_bias"};
constexpr const char* kRoots[] = {"tests/golden/lora", "../shared/cases/finetune"};

/// `test` for every case of every place that has it.
template <typename Test>
void for_each_case(const Test& test) {
    int tried = 0;
    for (const char* root : kRoots) {
        for (const char* name : kCases) {
            if (!std::filesystem::exists(fmt::format("{}/{}/expected.safetensors", root, name))) continue;
            SCOPED_TRACE(fmt::format("{} {}", root, name));
            test(LoraCase(root, name));
            ++tried;
        }
    }
    EXPECT_GT(tried, 0);
}

struct LoraRun {
    std::vector<double> losses;
    std::vector<std::vector<float>> first_gradients, weights;
    bool operator==(const LoraRun&) const = default;
};

LoraRun run(const LoraCase& lora, TinyTrainer& trainer) {
    trainer.set_optimizer(lora.adamw(), static_cast<float>(lora.learning_rate()));
    load_adapted(lora.base(), &lora.before(), 0, trainer.state());
    LoraRun result;
    for (const nlohmann::json& step : lora.steps()) {
        std::vector<LabelledBatch> batches(step.begin(), step.end());
        int64_t scored = 0;
        for (const LabelledBatch& batch : batches) scored += batch.scored;
        double sum = 0;
        for (size_t i = 0; i < batches.size(); ++i) {
            const Turn turn = {.first = i == 0, .last = i + 1 == batches.size()};
            sum = trainer.micro_batch(batches[i].tokens.data(), batches[i].targets.data(),
                                      1.0f / static_cast<float>(scored), turn);
        }
        result.losses.push_back(sum * static_cast<double>(trainer.plan().shape.N()) / static_cast<double>(scored));
        if (!result.first_gradients.empty()) continue;
        for (int index = 0; index < static_cast<int>(trainer.model().parameters.size()); ++index) {
            const Tensor gradient = trainer.state().gradient(index);
            result.first_gradients.push_back(gradient ? trainer.values(gradient, index) : std::vector<float>());
        }
    }
    result.weights = weights_of(trainer.state());
    return result;
}

TinyTrainer trainer_of(const LoraCase& lora, const std::string& policy, DType dtype = DType::F32) {
    return {lora.model(), BatchShape{2, 12}, dtype, nullptr, policy, 1};
}

TEST(Lora, TrainsAsPeftDoes) {
    for_each_case([](const LoraCase& lora) {
        TinyTrainer trainer = trainer_of(lora, "none");
        const LoraRun ours = run(lora, trainer);
        const std::vector<double> losses = lora.losses();
        ASSERT_EQ(ours.losses.size(), losses.size());
        for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(ours.losses[i], losses[i], 1e-5) << i;
        const Model& model = trainer.model();
        const int64_t C = model.config.C;
        for (size_t i = 0, of_base = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            const bool adapter = is_adapter(model, static_cast<int>(i));
            const int base_index = adapter ? kNone : static_cast<int>(of_base++);
            if (!row.trainable) continue;
            std::vector<float> expected(static_cast<size_t>(row.used_rows * row.cols));
            if (adapter)
                lora.after().read_adapter(row.name, expected);
            else
                lora.after().replace(base_index, expected);
            for (size_t k = 0; k < expected.size(); ++k) {
                // The true gradient of the keys' biases is zero: what AdamW makes of it is noise.
                const auto element = static_cast<int64_t>(k);
                if (row.name.ends_with("qkv_bias") && element >= C && element < 2 * C) continue;
                ASSERT_NEAR(ours.weights[i][k], expected[k], 1e-5) << row.name << " " << k;
            }
        }
    });
}

TEST(Lora, SameBitsUnderEveryPolicyInTheMemoryPredicted) {
    for_each_case([](const LoraCase& lora) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            if (dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) continue;
            if (dtype == DType::BF16 && !lora.before().replaced().empty()) continue;
            TinyTrainer reference = trainer_of(lora, "none", dtype);
            const LoraRun expected = run(lora, reference);
            for (const PolicyRow& policy : policies()) {
                TinyTrainer trainer = trainer_of(lora, policy.name, dtype);
                EXPECT_TRUE(run(lora, trainer) == expected) << policy.name << " " << name_of(dtype);
                EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes()) << policy.name;
                EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy.name;
            }
        }
    });
}

TEST(Lora, OnlyAdaptersHaveState) {
    for_each_case([](const LoraCase& lora) {
        const Model model = lora.model();
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const bool adapter = is_adapter(model, static_cast<int>(i));
            if (lora.before().replaced().empty()) {
                EXPECT_EQ(model.parameters[i].trainable, adapter);
            }
        }
    });
}

}  // namespace
}  // namespace llmc
