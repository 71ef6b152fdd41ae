// Weights in four bits: the bits of the formulas, on every size and alignment.
#include "tests/backend/nf4_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

TEST(CudaNf4, EveryValueIsTheFormulas) {
    cuda::for_each_seed([] { expect_dequantised([](const auto& operation) { run_on_cuda(operation); }); });
}

// Parts of a fused matrix begin at any element of it.
TEST(CudaNf4, UnalignedParts) {
    for (const DType dtype : kActivationTypes) {
        const Nf4Buffers x(3 * 101, true);
        const TestBuffer ours(dtype, 5, 101), expected(dtype, 5, 101);
        const auto part_of = [&](const TestBuffer& matrix) {
            return [&](Backend& b, auto on) {
                b.zero(on(matrix));
                b.dequantize_nf4(on(matrix).row_range(1, 3), x.operands(on));
            };
        };
        run_on_cuda(part_of(ours));
        run_on_cpu(part_of(expected));
        EXPECT_TRUE(ours.bytes() == expected.bytes()) << name_of(dtype);
    }
}

}  // namespace
}  // namespace llmc
