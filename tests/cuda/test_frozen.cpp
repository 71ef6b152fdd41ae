// Frozen parameters on the CUDA backend: gradients of the rest are those of an unfrozen run, to the bit, under policies
// that keep much and little.
#include "tests/cuda/cuda_testing.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"

namespace llmc {
namespace {

class CudaFrozen : public testing::TestWithParam<Family> {};

TEST_P(CudaFrozen, GradientsAreThoseOfAnUnfrozenRun) {
    ModelConfig config = plan_cases::small_config(GetParam(), 5);
    config.C = 32, config.NH = 4, config.NKV = GetParam() == Family::Gpt2 ? 4 : 2, config.F = 48, config.maxT = 6;
    const BatchShape shape = {1, 6};
    for (const DType dtype : kActivationTypes) {
        TinyTrainer whole(make_model(config), shape, dtype, nullptr, "none", 1, 0, "cuda");
        const FrozenRun expected = run_frozen(whole);
        size_t number = 0;
        for (const std::string& patterns : kFreezePatterns) {
            bool applies = false;
            const Model model = frozen_model(config, patterns, &applies);
            if (!applies) continue;
            SCOPED_TRACE(patterns);
            const PolicyRow& policy = policies()[number++ % policies().size()];
            TinyTrainer part(model, shape, dtype, nullptr, policy.name, 1, 0, "cuda");
            const FrozenRun result = run_frozen(part);
            EXPECT_EQ(result.first_loss, expected.first_loss) << policy.name;
            for (size_t i = 0; i < model.parameters.size(); ++i) {
                const ParameterRow& row = model.parameters[i];
                const bool is_same = same_bits(result.gradients[i], expected.gradients[i]);
                EXPECT_TRUE(row.trainable ? is_same : result.gradients[i].empty()) << row.name;
            }
            EXPECT_EQ(part.state().allocated_bytes(), part.memory().total_bytes()) << policy.name;
            EXPECT_EQ(part.executor().high_water_bytes(), part.memory().layout.arena_bytes) << policy.name;
        }
        EXPECT_GE(number, 15u);
    }
}

INSTANTIATE_TEST_SUITE_P(Families, CudaFrozen, testing::Values(Family::Gpt2, Family::Llama, Family::Qwen3),
                         [](const auto& info) { return std::string(row_of(info.param).key); });

}  // namespace
}  // namespace llmc
