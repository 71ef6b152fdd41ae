// Streams, events and graphs: what is ordered comes out right, and what is not shows within a few schedules.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/backend/cuda/device.cuh"
#include "tests/cuda_on_cpu/device_buffer.h"

#include <gtest/gtest.h>

#include <cstring>

namespace llmc::cuda {
inline namespace test_streams_kernels {

__global__ void fill(float* out, float value) { out[threadIdx.x] = value; }
__global__ void add_one(float* out, const float* in) { out[threadIdx.x] = in[threadIdx.x] + 1.0f; }

struct Stream {
    cudaStream_t handle = nullptr;
    Stream() { CUDA_CHECK(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
    ~Stream() { cudaStreamDestroy(handle); }
};

struct Event {
    cudaEvent_t handle = nullptr;
    Event() { CUDA_CHECK(cudaEventCreate(&handle)); }
    ~Event() { cudaEventDestroy(handle); }
};

struct Pinned {
    float* data = nullptr;
    explicit Pinned(size_t count) { CUDA_CHECK(cudaMallocHost(&data, count * sizeof(float))); }
    ~Pinned() { cudaFreeHost(data); }
};

// One stream fills x, another adds one and copies the result to the host. How many of 20 schedules went wrong?
int wrong_results(bool wait_for_event, bool synchronise) {
    int wrong = 0;
    for (uint64_t seed = 2; seed < 22; ++seed) {
        cuda_on_cpu::set_seed(seed);
        const DeviceBuffer<float> x(std::vector<float>(32, 0.0f)), y(32);
        const Stream first, second;
        const Event filled;
        const Pinned result(32);
        std::memset(result.data, 0, 32 * sizeof(float));
        CUDA_CHECK(cudaDeviceSynchronize());
        launch(fill, 1, 32, 0, first.handle, x.data(), 7.0f);
        CUDA_CHECK(cudaEventRecord(filled.handle, first.handle));
        if (wait_for_event) CUDA_CHECK(cudaStreamWaitEvent(second.handle, filled.handle));
        launch(add_one, 1, 32, 0, second.handle, y.data(), x.data());
        CUDA_CHECK(cudaMemcpyAsync(result.data, y.data(), 32 * sizeof(float), cudaMemcpyDeviceToHost, second.handle));
        if (synchronise) CUDA_CHECK(cudaStreamSynchronize(second.handle));
        wrong += result.data[31] != 8.0f;
        CUDA_CHECK(cudaDeviceSynchronize());
    }
    return wrong;
}

TEST(Streams, WaitedForEventOrdersStreams) { EXPECT_EQ(wrong_results(true, true), 0); }
TEST(Streams, UseBeforeItsEventIsWrong) { EXPECT_GE(wrong_results(false, true), 5); }
TEST(Streams, ReadBeforeSynchroniseIsWrong) { EXPECT_EQ(wrong_results(true, false), 20); }

TEST(Streams, EventsTellTimeAndCompletion) {
    const Stream stream;
    const Event begin, end;
    const DeviceBuffer<float> x(32);
    CUDA_CHECK(cudaEventRecord(begin.handle, stream.handle));
    for (int i = 0; i < 3; ++i) launch(fill, 1, 32, 0, stream.handle, x.data(), 1.0f);
    CUDA_CHECK(cudaEventRecord(end.handle, stream.handle));
    float ms = -1.0f;
    EXPECT_EQ(cudaEventElapsedTime(&ms, begin.handle, end.handle), cudaErrorNotReady);
    CUDA_CHECK(cudaEventSynchronize(end.handle));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin.handle, end.handle));
    EXPECT_GT(ms, 0.0f);
}

TEST(Streams, GraphReplaysWorkOfTwoStreams) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
        cuda_on_cpu::set_seed(seed);
        const DeviceBuffer<float> x(std::vector<float>(32, 0.0f)), y(std::vector<float>(32, 0.0f)), z(32);
        const Stream main, side;
        const Event fork, join;
        CUDA_CHECK(cudaDeviceSynchronize());
        CUDA_CHECK(cudaStreamBeginCapture(main.handle, cudaStreamCaptureModeThreadLocal));
        launch(add_one, 1, 32, 0, main.handle, x.data(), x.data());
        CUDA_CHECK(cudaEventRecord(fork.handle, main.handle));
        CUDA_CHECK(cudaStreamWaitEvent(side.handle, fork.handle));
        launch(add_one, 1, 32, 0, side.handle, y.data(), x.data());
        CUDA_CHECK(cudaEventRecord(join.handle, side.handle));
        CUDA_CHECK(cudaStreamWaitEvent(main.handle, join.handle));
        launch(add_one, 1, 32, 0, main.handle, z.data(), y.data());
        cudaGraph_t graph = nullptr;
        CUDA_CHECK(cudaStreamEndCapture(main.handle, &graph));
        cudaGraphExec_t exec = nullptr;
        CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
        CUDA_CHECK(cudaGraphDestroy(graph));
        for (int i = 0; i < 3; ++i) CUDA_CHECK(cudaGraphLaunch(exec, main.handle));
        CUDA_CHECK(cudaStreamSynchronize(main.handle));
        CUDA_CHECK(cudaGraphExecDestroy(exec));
        EXPECT_EQ(x.values()[3], 3.0f) << "seed " << seed;
        EXPECT_EQ(z.values()[3], 5.0f) << "seed " << seed;
    }
}

TEST(Streams, CaptureRefusesWhatTheRealOneRefuses) {
    const Stream main, side;
    const Event fork;
    const DeviceBuffer<float> x(32);
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(main.handle, cudaStreamCaptureModeThreadLocal));
    EXPECT_EQ(cudaStreamSynchronize(main.handle), cudaErrorStreamCaptureUnsupported);
    CUDA_CHECK(cudaEventRecord(fork.handle, main.handle));
    CUDA_CHECK(cudaStreamWaitEvent(side.handle, fork.handle));
    launch(fill, 1, 32, 0, side.handle, x.data(), 1.0f);
    EXPECT_EQ(cudaStreamEndCapture(main.handle, &graph), cudaErrorStreamCaptureUnjoined);
    EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported);
}

TEST(Launch, ImpossibleConfigurationsNameTheKernel) {
    const DeviceBuffer<float> x(32);
    const auto message = [&](int threads, size_t shared_bytes) -> std::string {
        try {
            launch(fill, 1, threads, shared_bytes, nullptr, x.data(), 1.0f);
        } catch (const std::exception& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_NE(message(2048, 0).find("the launch of llmc::cuda::fill failed: invalid configuration"), std::string::npos);
    EXPECT_NE(message(32, 300 << 10).find("fill failed: invalid argument"), std::string::npos);
    EXPECT_EQ(message(32, 200 << 10), "");
    cudaGetLastError();
}

}  // namespace test_streams_kernels
}  // namespace llmc::cuda
