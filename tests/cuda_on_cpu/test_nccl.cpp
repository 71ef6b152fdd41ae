// The stand-in for NCCL: ranks as threads, each with its own device and stream.
#if __has_include(<nccl.h>)
#include "dev/cuda_on_cpu/control.h"
#include "tests/cuda_on_cpu/device_buffer.h"

#include <gtest/gtest.h>
#include <nccl.h>

#include <thread>

namespace llmc::cuda {
namespace {

constexpr int kRanks = 3;

/// Runs body(rank, comm, stream) on a thread per rank.
template <typename Body>
void on_all_ranks(Body body) {
    cuda_on_cpu::set_machine({.devices = {{}, {}, {}}});
    ncclUniqueId id;
    ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
        threads.emplace_back([=] {
            CUDA_CHECK(cudaSetDevice(rank));
            ncclComm_t comm;
            ASSERT_EQ(ncclCommInitRank(&comm, kRanks, id, rank), ncclSuccess);
            cudaStream_t stream;
            CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            body(rank, comm, stream);
            CUDA_CHECK(cudaStreamSynchronize(stream));
            CUDA_CHECK(cudaStreamDestroy(stream));
            ncclCommDestroy(comm);
        });
    }
    for (std::thread& thread : threads) thread.join();
}

std::vector<float> numbers(size_t count, int rank) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i + 100 * rank);
    return values;
}

TEST(Nccl, AllReduce) {
    on_all_ranks([](int rank, ncclComm_t comm, cudaStream_t stream) {
        const DeviceBuffer<float> x(numbers(1000, rank));
        CUDA_CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < 2; ++i) {
            ASSERT_EQ(ncclAllReduce(x.data(), x.data(), x.count(), ncclFloat32, ncclSum, comm, stream), ncclSuccess);
        }
        CUDA_CHECK(cudaStreamSynchronize(stream));
        EXPECT_EQ(x.values()[7], 3.0f * (3 * 7 + 300));
    });
}

TEST(Nccl, ReduceScatterAndAllGather) {
    on_all_ranks([](int rank, ncclComm_t comm, cudaStream_t stream) {
        const DeviceBuffer<float> x(numbers(kRanks * 10, rank)), part(10), all(kRanks * 10);
        CUDA_CHECK(cudaDeviceSynchronize());
        ASSERT_EQ(ncclReduceScatter(x.data(), part.data(), 10, ncclFloat32, ncclAvg, comm, stream), ncclSuccess);
        ASSERT_EQ(ncclAllGather(part.data(), all.data(), 10, ncclFloat32, comm, stream), ncclSuccess);
        CUDA_CHECK(cudaStreamSynchronize(stream));
        EXPECT_EQ(part.values()[2], static_cast<float>(10 * rank + 2 + 100));
        for (int i = 0; i < kRanks * 10; ++i) EXPECT_EQ(all.values()[i], static_cast<float>(i + 100));
    });
}

TEST(Nccl, Broadcast) {
    on_all_ranks([](int rank, ncclComm_t comm, cudaStream_t stream) {
        const DeviceBuffer<float> x(numbers(5, rank));
        CUDA_CHECK(cudaDeviceSynchronize());
        ASSERT_EQ(ncclBroadcast(x.data(), x.data(), 5, ncclFloat32, 2, comm, stream), ncclSuccess);
        CUDA_CHECK(cudaStreamSynchronize(stream));
        EXPECT_EQ(x.values()[4], 204.0f);
    });
}

TEST(Nccl, RefusesMemoryThatIsNotTheDevices) {
    cuda_on_cpu::set_machine({});
    ncclComm_t comm;
    ASSERT_EQ(ncclCommInitAll(&comm, 1, nullptr), ncclSuccess);
    const DeviceBuffer<float> x(8);
    float host[8];
    EXPECT_EQ(ncclAllReduce(host, x.data(), 8, ncclFloat32, ncclSum, comm, nullptr), ncclInvalidArgument);
    EXPECT_EQ(ncclAllReduce(x.data(), x.data(), 9, ncclFloat32, ncclSum, comm, nullptr), ncclInvalidArgument);
    ncclCommDestroy(comm);
}

}  // namespace
}  // namespace llmc::cuda
#endif
