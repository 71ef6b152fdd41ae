// Dropout of the CUDA backend: the masks of base/dropout.h, which are the CPU's.
#include "llmc/io/peft/adapters.h"
#include "llmc/model/dropout.h"
#include "tests/backend/dropout_testing.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"

namespace llmc {
namespace {

TEST(CudaDropout, DropsByTheCounters) {
    for (const DropoutCase& c : dropout_cases()) {
        for (const DType dtype : kActivationTypes) {
            expect_dropout(c, dtype, [](const auto& operation) { run_on_cuda(operation); });
        }
    }
}

/// The same loss and gradients as on the CPU, where operations run again.
TEST(CudaDropout, TrainsAsTheCpuDoes) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        ModelConfig config = plan_cases::small_config(family, 2);
        config.C = 16, config.NH = 2, config.NKV = 1, config.F = 24, config.V = 40;
        if (family == Family::Gpt2) config.NKV = 2, config.F = 64;
        Model model = with_dropout(make_model(config), 0.2);
        PeftConfig adapters;
        adapters.rank = 2, adapters.dropout = 0.3, adapters.target_modules = adaptable_modules(model);
        model = with_adapters(std::move(model), adapters);
        std::vector<FrozenRun> runs;
        for (const auto& [device, policy] : {std::pair("cpu", "none"), std::pair("cuda", "layer")}) {
            TinyTrainer trainer(model, {1, 9}, DType::F32, nullptr, policy, 1, 0, device);
            runs.push_back(run_frozen(trainer, 1));
        }
        EXPECT_NEAR(runs[1].first_loss, runs[0].first_loss, 1e-5);
        ASSERT_EQ(runs[1].gradients.size(), runs[0].gradients.size());
        for (size_t i = 0; i < runs[0].gradients.size(); ++i) {
            for (size_t k = 0; k < runs[0].gradients[i].size(); ++k) {
                ASSERT_NEAR(runs[1].gradients[i][k], runs[0].gradients[i][k], 1e-6) << model.parameters[i].name;
            }
        }
    }
}

}  // namespace
}  // namespace llmc
