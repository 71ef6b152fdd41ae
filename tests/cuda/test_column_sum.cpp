// Column sums against a loop in double, and what they are added to.
#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/column_sum.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

constexpr int64_t kShapes[][2] = {{1, 1}, {5, 8}, {37, 48}, {300, 100}, {129, 768}, {200, 1001}, {2000, 24}};

/// The sums of random (N, OC) on the device, added to random values, which are `start`.
Buffer device_sums(const Buffer& d_out, const Buffer& start) {
    const Tensor rows = d_out;
    Buffer d_bias(DType::F32, rows.shape[1], 1, start.values());
    const Buffer workspace = workspace_buffer(cuda::column_sum_workspace(rows.shape[0], rows.shape[1]));
    run_on_cuda([&](Backend& backend, auto on) {
        const Tensor to = on(d_bias), from = on(d_out), scratch = on(workspace);
        backend.synchronize();  // The sums are made on another stream than the backend's.
        cuda::add_column_sums(nullptr, to, from, scratch.data);
        CUDA_CHECK(cudaStreamSynchronize(nullptr));
    });
    EXPECT_TRUE(d_bias.intact() && workspace.intact());
    return d_bias;
}

TEST(CudaColumnSum, AddsTheSumOfEveryColumn) {
    for (const DType dtype : kActivationTypes)
        for (const auto& [N, OC] : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} OC={}", name_of(dtype), N, OC));
            const Buffer d_out = random_buffer(dtype, N, OC, 1, 1), start = random_buffer(DType::F32, OC, 1, 1, 2);
            const Values rows = d_out.values();
            Values exact = start.values();
            for (size_t i = 0; i < rows.size(); ++i) exact[i % OC] += rows[i];
            std::vector<std::byte> bits;
            cuda::for_each_seed([&] {
                const Buffer ours = device_sums(d_out, start);
                EXPECT_LE(largest_error(ours.values(), exact), 16 * 0x1p-24 * largest_magnitude(exact));
                if (bits.empty()) bits = ours.bytes();
                EXPECT_TRUE(ours.bytes() == bits);
            });
        }
}

}  // namespace
}  // namespace llmc
