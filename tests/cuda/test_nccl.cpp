// NCCL with one rank, which is what a single card can show: the library is found, its calls are accepted, and they are
// in order with the kernels of the backend's stream. Several ranks are in tests/cuda_on_cpu.
#if __has_include(<nccl.h>)
#include "llmc/base/error.h"
#include "llmc/comm/nccl.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

TEST(Nccl, OneRankMovesAndAddsNothing) {
    std::string id;
    try {
        id = make_nccl_id();
    } catch (const Error& error) {
        GTEST_SKIP() << error.what();
    }
    Backend& backend = cuda_backend();
    const auto transport = make_nccl_transport(id, 0, 1, backend);
    EXPECT_EQ(transport->name().rfind("NCCL ", 0), 0u) << transport->name();
    EXPECT_TRUE(transport->adds());

    constexpr int64_t kCount = 1 << 20;
    const auto device = [&](float value) {
        const std::vector<float> values(kCount, value);
        const Tensor tensor(DType::F32, backend.allocate(kCount * 4, "a test's tensor"), kCount);
        backend.copy_to_device(tensor, values.data());
        return tensor;
    };
    const Tensor bucket = device(1), two = device(2);
    for (int turn = 0; turn < 3; ++turn) {
        backend.add(bucket, two);  // Before the call: is what NCCL gets.
        transport->wait(transport->begin_reduce_scatter(bucket));
        backend.add(bucket, two);  // After its wait: works on what NCCL gave.
        transport->wait(transport->begin_all_gather(bucket.data, kCount * 4));
        transport->wait(transport->begin_exchange(nullptr, bucket.data, kCount * 4));
    }
    std::vector<float> values(kCount);
    backend.copy_to_host(values.data(), bucket);
    EXPECT_EQ(values, std::vector<float>(kCount, 13));
    backend.release(bucket.data);
    backend.release(two.data);
}

}  // namespace
}  // namespace llmc
#endif
