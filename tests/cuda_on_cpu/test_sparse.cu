// The executor's memory for more elements than there is memory, and launches of chosen blocks: what kernels that count
// elements in 32 bits do there shows.
#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/sparse_memory.h"
#include "llmc/backend/cuda/device.cuh"
#include "tests/cuda_on_cpu/planted_fault.h"

#include <gtest/gtest.h>

namespace llmc::cuda {
inline namespace test_sparse_kernels {

constexpr uint64_t kColumns = 1 << 20, kRows = (1 << 13) + 1;  // 2^33 + 2^20 bytes.

/// One row to a block, a thread to every 2^15th byte.
template <typename Offset>
__global__ void mark_kernel(uint8_t* x) {
    const auto row = static_cast<Offset>(blockIdx.x * kColumns);
    x[row + static_cast<Offset>(threadIdx.x << 15)] = 7;  // fault: 32 bits
}

template <typename Offset>
void mark_row(uint8_t* x, uint64_t row) {
    cuda_on_cpu::set_block_chooser([=](const cuda_on_cpu::Grid& grid) {
        EXPECT_EQ(grid.x, kRows);
        EXPECT_NE(grid.kernel.find("mark_kernel"), std::string::npos);
        return std::vector<uint64_t>{row};
    });
    launch(mark_kernel<Offset>, dim3(kRows), kWarpSize, 0, nullptr, x);
    cudaDeviceSynchronize();
    cuda_on_cpu::set_block_chooser({});
}

class SparseMemory : public testing::Test {
  protected:
    SparseMemory() : x_(static_cast<uint8_t*>(cuda_on_cpu::allocate_sparse(kRows * kColumns))) {}
    ~SparseMemory() override { cuda_on_cpu::free_sparse(x_); }
    uint8_t* x_;
};

}  // namespace test_sparse_kernels

TEST_F(SparseMemory, ChosenBlocksRunAloneAndTheRestIsZero) {
    mark_row<int64_t>(x_, kRows - 1);
    EXPECT_EQ(cuda_on_cpu::last_report(), "");
    EXPECT_EQ(x_[(kRows - 1) * kColumns], 7);
    EXPECT_EQ(x_[kRows * kColumns - 1], 0);
    EXPECT_EQ(x_[0], 0);
}

TEST_F(SparseMemory, UnsignedOffsetsWriteElsewhere) {
    mark_row<uint32_t>(x_, kRows - 1);
    EXPECT_EQ(cuda_on_cpu::last_report(), "");
    EXPECT_EQ(x_[(kRows - 1) * kColumns], 0);
    EXPECT_EQ(x_[0], 7);
}

TEST_F(SparseMemory, NegativeOffsetsAreReported) {
    expect_report([&] { mark_row<int32_t>(x_, (uint64_t{1} << 31) / kColumns); }, "host memory used by a kernel",
                  "32 bits", "tests/cuda_on_cpu/test_sparse.cu", 2);
}

}  // namespace llmc::cuda
