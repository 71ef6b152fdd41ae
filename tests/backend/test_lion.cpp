// Lion against a plain loop in double, and without second moments.
#include "tests/backend/optimizer_testing.h"

namespace llmc {
namespace {

constexpr int64_t kCount = 3000;
const std::vector<ParameterRange> kRanges = {{0, 1100, true}, {1200, 1700, false}};

OptimizerSettings lion() {
    OptimizerSettings settings;
    settings.kind = OptimizerKind::Lion;
    settings.beta1 = 0.9f, settings.beta2 = 0.99f;
    settings.weight_decay = 0.1f, settings.grad_clip = 0.5f;
    return settings;
}

TEST(Lion, FiveUpdates) {
    cpu::CpuBackend backend(2);
    const float rate = 1e-3f;
    for (const DType dtype : kActivationTypes) {
        const TestBuffer values = random_buffer(DType::F32, kCount, 1, 0.1, 1), m = zeros(DType::F32, kCount);
        const TestBuffer parameters(dtype, kCount), controls = controls_buffer(rate, 0),
                                                    factors(DType::F32, kNumFactors);
        parameters.set(values.values());
        const bool mixed = dtype == DType::BF16;
        const Values start = (mixed ? values : parameters).values();
        Values exact = start, moment(kCount, 0.0);
        std::vector<bool> near_zero(kCount, false);  // Whose sign rounding may decide.
        for (uint32_t update = 1; update <= 5; ++update) {
            const TestBuffer gradients = random_buffer(DType::F32, kCount, 1, 0.01, 100 + update);
            const Values g = gradients.values();
            const double norm = std::sqrt(dot(g, g)), scale = norm > 0.5 ? 0.5 / norm : 1;
            const TestBuffer norm_of_all(DType::F64, 1, 1, Values{norm});
            backend.begin_update(factors, controls, norm_of_all, lion());
            backend.update({parameters, mixed ? values.tensor() : Tensor(), m, Tensor(), gradients}, kRanges, lion(),
                           factors);
            for (const ParameterRange& range : kRanges)
                for (int64_t i = range.offset; i < range.offset + range.count; ++i) {
                    const double direction = 0.9 * moment[i] + 0.1 * scale * g[i];
                    near_zero[i] = near_zero[i] || std::fabs(direction) < 1e-7;
                    const double keep = range.decay ? 1 - double{rate} * 0.1 : 1;
                    exact[i] = keep * exact[i] - rate * (direction > 0 ? 1 : direction < 0 ? -1 : 0);
                    moment[i] = 0.99 * moment[i] + 0.01 * scale * g[i];
                }
        }
        const Values ours = (mixed ? values : parameters).values(), our_m = m.values();
        int certain = 0;
        for (int64_t i = 0; i < kCount; ++i) {
            ASSERT_NEAR(our_m[i], moment[i], 1e-8) << i;
            if (near_zero[i]) continue;
            ++certain;
            ASSERT_NEAR(ours[i], exact[i], 2e-7) << i;
        }
        EXPECT_GT(certain, kCount - 60);
        for (int64_t i = 1100; i < 1200; ++i) ASSERT_EQ(ours[i], start[i]) << "padding, " << i;
    }
}

}  // namespace
}  // namespace llmc
