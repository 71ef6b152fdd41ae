// Weights in four bits on the CPU against the formulas.
#include "tests/backend/nf4_testing.h"

namespace llmc {
namespace {

TEST(Nf4Operation, EveryValueIsTheFormulas) {
    cpu::CpuBackend backend(2);
    expect_dequantised(
        [&](const auto& operation) { operation(backend, [](const TestBuffer& buffer) { return buffer.tensor(); }); });
}

TEST(Nf4Operation, EveryThreadCount) {
    const Nf4Buffers x(300'003, true);
    expect_same_bits_at_every_thread_count([&](Backend& backend) {
        const TestBuffer out(DType::BF16, 300'003);
        backend.dequantize_nf4(out, x.operands([](const TestBuffer& buffer) { return buffer.tensor(); }));
        return out.bytes();
    });
}

/// Parts of a fused matrix are quantised one by one: they begin anywhere in it.
TEST(Nf4Operation, PartsOfAMatrix) {
    cpu::CpuBackend backend(1);
    const Nf4Buffers x(3 * 37, false);
    const TestBuffer matrix = zeros(DType::F32, 5, 37);
    backend.dequantize_nf4(matrix.tensor().row_range(1, 3),
                           x.operands([](const TestBuffer& buffer) { return buffer.tensor(); }));
    const Values values = matrix.values();
    const std::vector<float> expected = x.expected();
    for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], i < 37 || i >= 4 * 37 ? 0.0f : expected[i - 37]) << i;
    }
}

}  // namespace
}  // namespace llmc
