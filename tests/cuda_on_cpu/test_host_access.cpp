// Host code that touches device memory ends the program with a line that names the place.
#include "dev/cuda_on_cpu/control.h"
#include "tests/cuda_on_cpu/device_buffer.h"
#include "tests/cuda_on_cpu/planted_fault.h"

#include <gtest/gtest.h>

#include <cstring>

namespace llmc::cuda {
namespace {

__attribute__((noinline)) float read_element(const float* p) {
    return *const_cast<const volatile float*>(p);  // fault: HostRead
}

TEST(HostAccessDeathTest, ReadOfDeviceMemory) {
    const DeviceBuffer<float> x(std::vector<float>(64, 1.0f));
    CUDA_CHECK(cudaDeviceSynchronize());
    const std::string place = place_of("HostRead", __FILE__);
    EXPECT_DEATH(read_element(x.data()), "host code touches device memory.*" + place);
}

TEST(HostAccessDeathTest, CopyWithoutTheRuntime) {
    const DeviceBuffer<char> x(std::vector<char>(4096, 'x'));
    CUDA_CHECK(cudaDeviceSynchronize());
    std::vector<char> target(4096);
    EXPECT_DEATH(std::memcpy(target.data(), x.data(), target.size()), "host code touches device memory");
}

}  // namespace
}  // namespace llmc::cuda
