// Lion against the CPU backend.
#include "tests/backend/optimizer_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

constexpr int64_t kCount = 3000;
const std::vector<ParameterRange> kRanges = {{0, 1, true}, {64, 1100, true}, {1201, 1700, false}};

struct LionRun {
    explicit LionRun(DType type) : dtype(type), parameters(converted(type, values)) {
        for (uint32_t update = 1; update <= 3; ++update)
            gradients.push_back(random_buffer(DType::F32, kCount, 1, 0.01, 100 + update));
    }

    void train(Backend& backend, auto on) const {
        OptimizerSettings lion;
        lion.kind = OptimizerKind::Lion;
        lion.weight_decay = 0.1f;
        const Tensor master = dtype == DType::BF16 ? on(values) : Tensor();
        for (const TestBuffer& gradient : gradients) {
            backend.begin_update(on(factors), on(controls), on(norm), lion);
            backend.update({on(parameters), master, on(m), Tensor(), on(gradient)}, kRanges, lion, on(factors));
        }
    }
    const TestBuffer& trained() const { return dtype == DType::BF16 ? values : parameters; }

    DType dtype;
    TestBuffer values = random_buffer(DType::F32, kCount, 1, 0.1, 1), m = zeros(DType::F32, kCount), parameters;
    TestBuffer controls = controls_buffer(1e-3f, 0), factors = zeros(DType::F32, kNumFactors);
    TestBuffer norm = TestBuffer(DType::F64, 1, 1, Values{0.7});
    std::vector<TestBuffer> gradients;
};

TEST(CudaLion, UpdatesAsTheCpuDoes) {
    for (const DType dtype : kActivationTypes) {
        const LionRun cpu(dtype), ours(dtype);
        run_on_cpu([&](Backend& b, auto on) { cpu.train(b, on); });
        run_on_cuda([&](Backend& b, auto on) { ours.train(b, on); });
        expect_as_good_as_cpu(ours.m, cpu.m, cpu.m);
        EXPECT_TRUE(ours.parameters.intact());
        const Values theirs = cpu.trained().values(), values = ours.trained().values(), m = cpu.m.values();
        for (int64_t i = 0; i < kCount; ++i) {
            if (m[i] != 0 && std::fabs(m[i]) < 1e-6) continue;  // Rounding may decide its sign.
            ASSERT_NEAR(values[i], theirs[i], 2e-7) << i;
        }
    }
}

}  // namespace
}  // namespace llmc
