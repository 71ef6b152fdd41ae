// Column sums against a loop in double, and what they are added to.
#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/column_sum.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

constexpr int64_t kShapes[][2] = {{1, 1}, {5, 8}, {37, 48}, {300, 100}, {129, 768}, {200, 1001}, {2000, 24}};

/// The sums of random (N, OC) on the device, added to `start` or written over it.
TestBuffer device_sums(const TestBuffer& d_out, const TestBuffer& start, bool adds) {
    const Tensor rows = d_out;
    TestBuffer d_bias(DType::F32, rows.shape[1], 1, start.values());
    const TestBuffer workspace = workspace_buffer(cuda::column_sum_workspace(rows.shape[0], rows.shape[1]));
    run_on_cuda([&](Backend& backend, auto on) {
        const Tensor to = on(d_bias), from = on(d_out), scratch = on(workspace);
        backend.synchronize();  // The sums are made on another stream than the backend's.
        cuda::column_sums(nullptr, to, adds, from, scratch.data);
        CUDA_CHECK(cudaStreamSynchronize(nullptr));
    });
    EXPECT_TRUE(d_bias.intact() && workspace.intact());
    return d_bias;
}

TEST(CudaColumnSum, AddsTheSumOfEveryColumn) {
    for (const DType dtype : kActivationTypes)
        for (const auto& [N, OC] : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} OC={}", name_of(dtype), N, OC));
            const TestBuffer d_out = random_buffer(dtype, N, OC, 1, 1), start = random_buffer(DType::F32, OC, 1, 1, 2);
            const Values rows = d_out.values();
            Values exact = start.values();
            for (size_t i = 0; i < rows.size(); ++i) exact[i % OC] += rows[i];
            std::vector<std::byte> bits;
            cuda::for_each_seed([&] {
                const TestBuffer ours = device_sums(d_out, start, true);
                EXPECT_LE(largest_error(ours.values(), exact), 16 * 0x1p-24 * largest_magnitude(exact));
                if (bits.empty()) bits = ours.bytes();
                EXPECT_TRUE(ours.bytes() == bits);
            });
        }
}

TEST(CudaColumnSum, WritingIsAddingToZeros) {
    for (const DType dtype : kActivationTypes)
        for (const auto& [N, OC] : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} OC={}", name_of(dtype), N, OC));
            const TestBuffer first = random_buffer(dtype, N, OC, 1, 1), second = random_buffer(dtype, N, OC, 1, 2);
            const TestBuffer written = device_sums(first, TestBuffer(DType::F32, OC), false);
            EXPECT_TRUE(same_values(written, device_sums(first, zeros(DType::F32, OC), true)));
            expect_rounded_sums(device_sums(second, written, true), written,
                                device_sums(second, TestBuffer(DType::F32, OC), false));
        }
}

}  // namespace
}  // namespace llmc
