// A tensor in device memory for tests of kernels: filled from and read back to the host.
#pragma once

#include "llmc/backend/cuda/check.h"

#include <cuda_runtime.h>

#include <vector>

namespace llmc::cuda {

template <typename T>
class DeviceBuffer {
  public:
    explicit DeviceBuffer(size_t count) : count_(count) { CUDA_CHECK(cudaMalloc(&data_, count * sizeof(T))); }
    explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) {
        CUDA_CHECK(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~DeviceBuffer() { cudaFree(data_); }
    DeviceBuffer(const DeviceBuffer&) = delete;

    T* data() const { return data_; }
    size_t count() const { return count_; }
    std::vector<T> values() const {
        std::vector<T> result(count_);
        CUDA_CHECK(cudaMemcpy(result.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
        return result;
    }

  private:
    size_t count_;
    T* data_ = nullptr;
};

}  // namespace llmc::cuda
