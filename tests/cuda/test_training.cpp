// Whole models on the CUDA backend: training as on the CPU, the same bits under every policy, and recorded
// micro-batches that are the ones that were recorded.
#include "llmc/plan/search.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/cuda_on_cpu/seeds.h"
#include "tests/long_tests.h"
#include "tests/run/tiny_trainer.h"

namespace llmc {
namespace {

struct Case {
    Family family;
    DType dtype;
};

class CudaTraining : public testing::TestWithParam<Case> {
  protected:
    DType dtype() const { return GetParam().dtype; }

    ModelConfig config(int64_t L) const {
        const bool gpt2 = GetParam().family == Family::Gpt2;
        ModelConfig config = preset(gpt2 ? "gpt2-nano" : "llama-nano");
        config.L = L, config.C = 64, config.NH = 2, config.HD = 32, config.V = 97, config.maxT = 19;
        config.NKV = gpt2 ? 2 : 1;
        config.F = gpt2 ? 256 : 88;
        config.tied = gpt2;
        return config;
    }
    static constexpr BatchShape kShape = {2, 19};

    struct Run {
        std::vector<double> losses;
        std::vector<float> gradients;  ///< Of the last step.
    };

    static OptimizerSettings settings() {
        OptimizerSettings settings;
        settings.weight_decay = 0.1f, settings.grad_clip = 1;
        return settings;
    }

    /// `steps` updates on one batch; nothing but the plan and the device is a choice.
    Run train(TinyTrainer& trainer, int steps) const {
        trainer.state().initialise(7);
        Run run;
        const auto tokens = trainer.random_tokens(1), targets = trainer.random_tokens(2);
        trainer.set_optimizer(settings(), 3e-3f);
        for (int step = 1; step <= steps; ++step) {
            run.losses.push_back(trainer.micro_batch(tokens.data(), targets.data(),
                                                     1.0f / static_cast<float>(kShape.N()), TinyTrainer::kOnly));
            run.gradients = trainer.gradients();
        }
        return run;
    }
    Run train_with(const std::string& policy, int64_t L, int steps, const std::string& device) const {
        TinyTrainer trainer(config(L), kShape, dtype(), policy, 1, 0, device);
        Run run = train(trainer, steps);
        EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes());
        EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes);
        return run;
    }
};

TEST_P(CudaTraining, LossesMatchTheCpu) {
    const Run ours = train_with("none", 2, 5, "cuda");
    const Run reference = train_with("none", 2, 5, "cpu");
    TinyTrainer exact_trainer(config(2), kShape, DType::F32, "none", 1);
    const Run exact = train(exact_trainer, 5);
    for (size_t i = 0; i < 5; ++i) {
        const double honest = std::fabs(reference.losses[i] - exact.losses[i]);
        EXPECT_NEAR(ours.losses[i], exact.losses[i], 3 * honest + (dtype() == DType::BF16 ? 4e-3 : 2e-5))
            << "step " << i;
    }
    EXPECT_LT(ours.losses.back(), ours.losses.front() - 0.2) << "it does not learn";
}

TEST_P(CudaTraining, SameBitsUnderEveryPolicy) {
    const Run expected = train_with("none", 4, 2, "cuda");
    for (const PolicyRow& policy : policies()) {
        const Run run = train_with(policy.name, 4, 2, "cuda");
        EXPECT_EQ(run.losses, expected.losses) << policy.name;
        EXPECT_EQ(run.gradients, expected.gradients) << policy.name;
    }
}

TEST_P(CudaTraining, SameBitsInEverySchedule) {
    std::vector<Run> runs;
    cuda::for_each_seed([&] { runs.push_back(train_with("layer", 2, 3, "cuda")); });
    for (const Run& run : runs) {
        EXPECT_EQ(run.losses, runs.front().losses);
        EXPECT_EQ(run.gradients, runs.front().gradients);
    }
}

TEST_P(CudaTraining, ARecordedMicroBatchIsTheOneRecorded) {
    TinyTrainer recorded(config(2), kShape, dtype(), "sqrt", 1, 0, "cuda");
    const Run together = train(recorded, 4);  // From the second step on it replays.
    TinyTrainer plain(config(2), kShape, dtype(), "sqrt", 1, 0, "cuda");
    plain.state().initialise(7);
    const auto tokens = plain.random_tokens(1), targets = plain.random_tokens(2);
    plain.set_optimizer(settings(), 3e-3f);
    for (int step = 1; step <= 4; ++step) {
        plain.backend().copy_to_device(plain.executor().tokens(), tokens.data());
        plain.backend().copy_to_device(plain.executor().targets(), targets.data());
        std::vector<double> seconds;  // Timed runs are never recorded.
        plain.run_timed(1.0f / static_cast<float>(kShape.N()), &seconds);
        EXPECT_EQ(seconds.size(), plain.plan().steps.size());
        double sum = 0;
        plain.backend().copy_to_host(&sum, plain.state().loss_sum());
        EXPECT_EQ(sum / static_cast<double>(kShape.N()), together.losses[static_cast<size_t>(step - 1)]);
    }
}

std::vector<Case> cases() {
    std::vector<Case> some = {{Family::Gpt2, DType::BF16}, {Family::Gpt2, DType::F32}, {Family::Llama, DType::BF16}};
    if (long_tests()) some.push_back({Family::Llama, DType::F32});
    return some;
}

INSTANTIATE_TEST_SUITE_P(Models, CudaTraining, testing::ValuesIn(cases()), [](const auto& info) {
    return std::string(info.param.family == Family::Gpt2 ? "Gpt2_" : "Llama_") + std::string(name_of(info.param.dtype));
});

}  // namespace
}  // namespace llmc
