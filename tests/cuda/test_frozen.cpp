// Frozen parameters on the CUDA backend: gradients of the rest are those of an unfrozen run, to the bit, under policies
// that keep much and little. Only in bf16, where a bias's gradient comes with its weight's product, that of one whose
// weight is frozen is summed by itself, and differs by rounding.
#include "tests/cuda/cuda_testing.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/frozen_cases.h"

namespace llmc {
namespace {

bool is_summed_alone(const Model& model, DType dtype, int index) {
    for (int layer = 0; dtype == DType::BF16 && layer < static_cast<int>(model.config.L); ++layer) {
        for (const OpRow& row : model.block) {
            if (row.kind != OpKind::Matmul || row.bias == kNone) continue;
            if (model.parameter_index(layer, row.bias) != index) continue;
            return !model.trains(model.parameter_index(layer, row.weight));
        }
    }
    return false;
}

double largest_relative_error(const std::vector<float>& values, const std::vector<float>& exact) {
    const Values expected(exact.begin(), exact.end());
    return largest_error(Values(values.begin(), values.end()), expected) / largest_magnitude(expected);
}

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
            if (row.trainable && is_summed_alone(model, kActivationTypes[type], static_cast<int>(i))) {
                EXPECT_LE(largest_relative_error(result.gradients[i], expected[type].gradients[i]), 1e-6) << row.name;
                continue;
            }
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
