// Rotary embedding on the CUDA backend against the CPU's, both ways. HD 10 and 2 take the path without packs.
#include "tests/cuda/cuda_testing.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

namespace llmc {
namespace {

struct Case {
    AttentionShape shape;
    int64_t first_position;
    int64_t part = 0;  ///< Columns that are rotated; 0: all of a head.
    int64_t columns() const { return part > 0 ? part : shape.HD; }
};

const Case kCases[] = {{{1, 1, 1, 1, 2}, 0},     {{2, 13, 3, 3, 8}, 0},      {{1, 50, 4, 2, 64}, 7},
                       {{3, 21, 6, 2, 10}, 33},  {{1, 3, 2, 1, 128}, 101},   {{2, 30, 12, 4, 16}, 0},
                       {{2, 13, 3, 3, 8}, 0, 4}, {{1, 50, 4, 2, 64}, 7, 32}, {{2, 21, 3, 1, 11}, 3, 6}};

TestBuffer angles(int64_t max_T, int64_t HD) {
    Values table(max_T * HD);
    for (int64_t t = 0; t < max_T; ++t)
        for (int64_t i = 0; i < HD / 2; ++i) {
            const double angle =
                static_cast<double>(t) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(HD));
            table[t * HD + i] = std::cos(angle);
            table[t * HD + HD / 2 + i] = std::sin(angle);
        }
    return TestBuffer(DType::F32, max_T, HD, table);
}

TestBuffer first_of(const Case& c) { return TestBuffer(std::vector<int32_t>{static_cast<int32_t>(c.first_position)}); }

TestBuffer turned_by_cpu(DType dtype, const TestBuffer& qkv, const TestBuffer& table, const Case& c, bool inverse) {
    TestBuffer result = converted(dtype, qkv);
    cpu_backend().rope(result, table, c.shape, c.first_position, inverse);
    return result;
}

TestBuffer turned_by_cuda(const TestBuffer& qkv, const TestBuffer& table, const Case& c, bool inverse) {
    TestBuffer result = converted(qkv.dtype(), qkv);
    OnDevice device;
    const TestBuffer first = first_of(c);
    cuda_backend().rope(device(result), device(table), c.shape, device(first), inverse);
    device.fetch();
    return result;
}

}  // namespace

TEST(CudaRope, IsAsGoodAsTheCpus) {
    for (const Case& c : kCases)
        for (const DType dtype : kActivationTypes)
            for (const bool inverse : {false, true}) {
                const AttentionShape& s = c.shape;
                SCOPED_TRACE(fmt::format("{} HD={} inverse={}", name_of(dtype), s.HD, inverse));
                const TestBuffer table = angles(c.first_position + s.T, c.columns());
                const TestBuffer qkv = random_buffer(dtype, s.B * s.T, s.qkv_columns(), 1.0, 1);
                const TestBuffer cpu = turned_by_cpu(dtype, qkv, table, c, inverse);
                const TestBuffer truth = turned_by_cpu(DType::F32, qkv, table, c, inverse);
                std::vector<std::byte> expected;
                cuda::for_each_seed([&] {
                    const TestBuffer ours = turned_by_cuda(qkv, table, c, inverse);
                    expect_as_good_as_cpu(ours, cpu, truth, 4);
                    if (expected.empty()) expected = ours.bytes();
                    EXPECT_TRUE(ours.bytes() == expected);
                });
            }
}

TEST(CudaRope, LeavesValuesAlone) {
    const Case c{{1, 5, 2, 1, 16}, 3};
    const TestBuffer table = angles(8, 16), qkv = random_buffer(DType::BF16, 5, c.shape.qkv_columns(), 1.0, 1);
    const TestBuffer turned = turned_by_cuda(qkv, table, c, false);
    const Values before = qkv.values(), after = turned.values();
    for (int64_t i = 0; i < qkv.count(); ++i)
        if (i % c.shape.qkv_columns() >= 3 * 16) {
            EXPECT_EQ(after[i], before[i]);
        }
}

}  // namespace llmc
