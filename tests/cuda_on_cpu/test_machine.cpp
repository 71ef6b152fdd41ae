// The pretended machine: no driver, an old one, no device, several, too little memory.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/backend/cuda/check.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <string>

namespace llmc::cuda {
namespace {

using cuda_on_cpu::Device;
using cuda_on_cpu::Driver;

TEST(PretendedMachine, Drivers) {
    int count = -1;
    cuda_on_cpu::set_machine({.devices = {}});
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    EXPECT_EQ(count, 0);
    cuda_on_cpu::set_machine({.driver = Driver::TooOld});
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    cuda_on_cpu::set_machine({.driver = Driver::Absent});
    EXPECT_EQ(cudaSetDevice(0), cudaErrorInsufficientDriver);
    EXPECT_EQ(std::string(cudaGetErrorString(cudaErrorNoDevice)), "no CUDA-capable device is detected");
}

TEST(PretendedMachine, Devices) {
    cuda_on_cpu::set_machine({.devices = {{}, {.name = "small", .memory_bytes = 1 << 20, .compute_capability = 80}}});
    int count = 0;
    CUDA_CHECK(cudaGetDeviceCount(&count));
    EXPECT_EQ(count, 2);
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 1));
    EXPECT_EQ(std::string(properties.name), "small");
    EXPECT_EQ(properties.major, 8);
    EXPECT_EQ(cudaSetDevice(7), cudaErrorInvalidDevice);
}

TEST(PretendedMachine, Memory) {
    cuda_on_cpu::set_machine({.devices = {{.memory_bytes = 1 << 20, .used_by_others = 1 << 19}}});
    size_t available = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&available, &total));
    EXPECT_EQ(total, size_t{1} << 20);
    EXPECT_EQ(available, total / 2);
    void* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, (1 << 19) + 1), cudaErrorMemoryAllocation);
    CUDA_CHECK(cudaMalloc(&p, 1000));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 256, 0u);
    CUDA_CHECK(cudaMemGetInfo(&available, &total));
    EXPECT_EQ(available, total / 2 - 1000);
    EXPECT_EQ(cudaMemset(p, 0, 1001), cudaErrorInvalidValue);
    CUDA_CHECK(cudaFree(p));
    cuda_on_cpu::fail_allocation(1);
    EXPECT_EQ(cudaMalloc(&p, 10), cudaErrorMemoryAllocation);
}

}  // namespace
}  // namespace llmc::cuda
