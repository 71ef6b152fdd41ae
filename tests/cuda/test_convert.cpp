// Conversion must give the bits of the CPU backend: it is exact or one rounding.
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

constexpr int64_t kCounts[] = {1, 4, 7, 1000, 5003};

TEST(CudaConvert, SameBitsAsCpu) {
    cuda::for_each_seed([] {
        for (const DType from : kActivationTypes)
            for (const DType to : kActivationTypes)
                for (const int64_t count : kCounts) {
                    SCOPED_TRACE(fmt::format("{} to {}, {}", name_of(from), name_of(to), count));
                    const TestBuffer x = random_buffer(from, count, 1, 3, 1), ours(to, count), expected(to, count);
                    run_on_cuda([&](Backend& b, auto on) { b.convert(on(ours), on(x)); });
                    run_on_cpu([&](Backend& b, auto on) { b.convert(on(expected), on(x)); });
                    EXPECT_TRUE(ours.bytes() == expected.bytes());
                    EXPECT_TRUE(ours.intact());
                }
    });
}

TEST(CudaConvert, SpecialValues) {
    const double infinity = std::numeric_limits<double>::infinity();
    const Values values = {0, -0.0, 1, infinity, -infinity, std::nan(""), 3.4e38, 1 + 0x1p-8, 1 + 0x3p-8, 1e-40};
    const TestBuffer x(DType::F32, 10, 1, values), ours(DType::BF16, 10), expected(DType::BF16, 10);
    run_on_cuda([&](Backend& b, auto on) { b.convert(on(ours), on(x)); });
    run_on_cpu([&](Backend& b, auto on) { b.convert(on(expected), on(x)); });
    const Values a = ours.values(), e = expected.values();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(std::isnan(e[i]) ? std::isnan(a[i]) : a[i] == e[i]) << i;
}

// Rows inside a tensor need not begin at a multiple of 16 bytes.
TEST(CudaConvert, UnalignedRows) {
    const TestBuffer x = random_buffer(DType::F32, 5, 101, 1, 1), ours(DType::BF16, 5, 101),
                     expected(DType::BF16, 5, 101);
    const auto convert = [&](Backend& b, auto on) {
        b.zero(on(ours));
        b.zero(on(expected));
        b.convert(on(expected).row_range(1, 3), on(x).row_range(1, 3));
    };
    run_on_cpu(convert);
    const std::vector<std::byte> bytes = expected.bytes();
    run_on_cuda(convert);
    EXPECT_TRUE(expected.bytes() == bytes);
}

}  // namespace
}  // namespace llmc
