// Frozen parameters on the CUDA backend: gradients of the rest are those of an unfrozen run, to the bit, under policies
// that keep much and little.
#include "tests/cuda/cuda_testing.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"

namespace llmc {
namespace {

class CudaFrozen : public testing::TestWithParam<Family> {};

TEST_P(CudaFrozen, GradientsAreThoseOfAnUnfrozenRun) {
    ModelConfig config = plan_cases::small_config(GetParam(), 3);
    config.C = 16, config.NH = 2, config.NKV = GetParam() == Family::Gpt2 ? 2 : 1, config.F = 24, config.V = 33;
    config.maxT = 4;
    const BatchShape shape = {1, 4};
    std::vector<FrozenRun> expected;
    for (const DType dtype : kActivationTypes) {
        TinyTrainer whole(make_model(config), shape, dtype, nullptr, "none", 1, 0, "cuda");
        expected.push_back(run_frozen(whole, 1));
    }
    size_t number = 0;  // Every pattern with one type and one policy.
    for (const std::string& patterns : kFreezePatterns) {
        bool applies = false;
        const Model model = frozen_model(config, patterns, &applies);
        if (!applies) continue;
        SCOPED_TRACE(patterns);
        const size_t type = number % expected.size();
        const PolicyRow& policy = policies()[number++ / expected.size() % policies().size()];
        TinyTrainer part(model, shape, kActivationTypes[type], nullptr, policy.name, 1, 0, "cuda");
        const FrozenRun result = run_frozen(part, 1);
        EXPECT_EQ(result.first_loss, expected[type].first_loss) << policy.name;
        for (size_t i = 0; i < model.parameters.size(); ++i) {
            const ParameterRow& row = model.parameters[i];
            const bool is_same = same_bits(result.gradients[i], expected[type].gradients[i]);
            EXPECT_TRUE(row.trainable ? is_same : result.gradients[i].empty()) << row.name;
        }
        EXPECT_EQ(part.state().allocated_bytes(), part.memory().total_bytes()) << policy.name;
        EXPECT_EQ(part.executor().high_water_bytes(), part.memory().layout.arena_bytes) << policy.name;
    }
    EXPECT_GE(number, 15u);
}

INSTANTIATE_TEST_SUITE_P(Families, CudaFrozen, testing::Values(Family::Gpt2, Family::Llama, Family::Qwen3),
                         [](const auto& info) { return std::string(row_of(info.param).key); });

}  // namespace
}  // namespace llmc
