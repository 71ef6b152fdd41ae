// The reductions of device.cuh.
#include "llmc/backend/cuda/device.cuh"
#include "tests/cuda_on_cpu/device_buffer.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <gtest/gtest.h>

namespace llmc::cuda {
inline namespace test_reductions_kernels {

__global__ void row_sums(float* sums, const float* x, int C) {
    const float* const row = x + static_cast<int64_t>(blockIdx.x) * C;
    float sum = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < C; i += static_cast<int>(blockDim.x)) sum += row[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

TEST(Reductions, BlockSum) {
    const int rows = 5, C = 300;
    std::vector<float> x(rows * C);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17);
    for_each_seed(
        [&] {
            const DeviceBuffer<float> in(x), out(rows);
            launch(row_sums, rows, 128, 0, nullptr, out.data(), in.data(), C);
            const std::vector<float> sums = out.values();
            for (int r = 0; r < rows; ++r) {
                float expected = 0;
                for (int i = 0; i < C; ++i) expected += x[r * C + i];
                EXPECT_EQ(sums[r], expected);
            }
        },
        10);
}

}  // namespace test_reductions_kernels
}  // namespace llmc::cuda
