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

// In a ring: each rank's message to the next can only go while it also receives.
TEST(Nccl, MessagesOfAGroupGoTogether) {
    on_all_ranks([](int rank, ncclComm_t comm, cudaStream_t stream) {
        const DeviceBuffer<float> x(numbers(100, rank)), received(100);
        CUDA_CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < 2; ++i) {
            ASSERT_EQ(ncclGroupStart(), ncclSuccess);
            ASSERT_EQ(ncclSend(x.data(), 400, ncclUint8, (rank + 1) % kRanks, comm, stream), ncclSuccess);
            ASSERT_EQ(ncclRecv(received.data(), 100, ncclFloat32, (rank + 2) % kRanks, comm, stream), ncclSuccess);
            ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
        }
        CUDA_CHECK(cudaStreamSynchronize(stream));
        EXPECT_EQ(received.values(), numbers(100, (rank + 2) % kRanks));
    });
    EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
}

TEST(Nccl, MessagesKeepTheirOrder) {
    on_all_ranks([](int rank, ncclComm_t comm, cudaStream_t stream) {
        if (rank == 2) return;
        const DeviceBuffer<float> first(numbers(10, rank)), second(numbers(10, rank + 5)), here(10), there(10);
        CUDA_CHECK(cudaDeviceSynchronize());
        if (rank == 0) {
            ASSERT_EQ(ncclSend(first.data(), 10, ncclFloat32, 1, comm, stream), ncclSuccess);
            ASSERT_EQ(ncclSend(second.data(), 10, ncclFloat32, 1, comm, stream), ncclSuccess);
        } else {
            ASSERT_EQ(ncclRecv(here.data(), 10, ncclFloat32, 0, comm, stream), ncclSuccess);
            ASSERT_EQ(ncclRecv(there.data(), 10, ncclFloat32, 0, comm, stream), ncclSuccess);
        }
        CUDA_CHECK(cudaStreamSynchronize(stream));
        if (rank == 0) return;
        EXPECT_EQ(here.values(), numbers(10, 0));
        EXPECT_EQ(there.values(), numbers(10, 5));
    });
}

TEST(Nccl, AGraphRepeatsWhatRanksDoTogether) {
    on_all_ranks([](int rank, ncclComm_t comm, cudaStream_t stream) {
        const DeviceBuffer<float> x(numbers(10, rank));
        CUDA_CHECK(cudaDeviceSynchronize());
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t exec = nullptr;
        CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        ASSERT_EQ(ncclAllReduce(x.data(), x.data(), 10, ncclFloat32, ncclSum, comm, stream), ncclSuccess);
        CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
        CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
        CUDA_CHECK(cudaGraphDestroy(graph));
        for (int i = 0; i < 3; ++i) CUDA_CHECK(cudaGraphLaunch(exec, stream));
        CUDA_CHECK(cudaStreamSynchronize(stream));
        EXPECT_EQ(x.values()[1], 9.0f * (3 * 1 + 300));
        CUDA_CHECK(cudaGraphExecDestroy(exec));
    });
}

/// Two ranks of one thread; they ask for what `ask(rank, comm)` says, and the report of it.
template <typename Ask>
std::string report_of(Ask ask) {
    cuda_on_cpu::set_machine({.devices = {{}, {}}});
    cuda_on_cpu::set_quiet(true);
    ncclComm_t comms[2];
    EXPECT_EQ(ncclCommInitAll(comms, 2, nullptr), ncclSuccess);
    for (int rank = 0; rank < 2; ++rank) {
        CUDA_CHECK(cudaSetDevice(rank));
        ask(rank, comms[rank]);
    }
    EXPECT_NE(cudaDeviceSynchronize(), cudaSuccess);
    const std::string report = cuda_on_cpu::last_report();
    cuda_on_cpu::clear_report();
    for (ncclComm_t comm : comms) ncclCommDestroy(comm);
    return report;
}

TEST(Nccl, ReportsRanksThatDoNotAgree) {
    const DeviceBuffer<float> x(std::vector<float>(8, 1.0f)), unwritten(8);
    CUDA_CHECK(cudaDeviceSynchronize());
    EXPECT_EQ(report_of([&](int rank, ncclComm_t comm) {
                  ncclAllGather(x.data(), x.data(), static_cast<size_t>(1 + rank), ncclFloat32, comm, nullptr);
              }),
              "rank 1 asks for another collective than the others in call 0");
    EXPECT_EQ(report_of([&](int rank, ncclComm_t comm) {
                  if (rank == 0)
                      ncclSend(x.data(), 8, ncclFloat32, 1, comm, nullptr);
                  else
                      ncclRecv(x.data(), 7, ncclFloat32, 0, comm, nullptr);
              }),
              "rank 0 sends 32 bytes where rank 1 expects 28");
    EXPECT_EQ(report_of([&](int rank, ncclComm_t comm) {
                  ncclGroupStart();
                  ncclSend(unwritten.data(), 1, ncclFloat32, 1 - rank, comm, nullptr);
                  ncclRecv(x.data(), 1, ncclFloat32, 1 - rank, comm, nullptr);
                  ncclGroupEnd();
              }).find("NCCL sends memory that nobody has written"),
              0u);
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
