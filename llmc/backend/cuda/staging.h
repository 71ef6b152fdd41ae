// Copies to the device through pinned memory. A copy from ordinary memory would wait for everything before it on the
// stream; this one waits only for the slot that it copies through.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

namespace llmc::cuda {

class Staging {
  public:
    explicit Staging(cudaStream_t stream);
    ~Staging();
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;

    /// Copies in stream order; `source` may be changed on return.
    void copy(void* destination, const void* source, int64_t bytes);

  private:
    static constexpr int kSlots = 32;  ///< For the inputs of two micro-batches.
    static constexpr int64_t kSlotBytes = 256 << 10;

    cudaStream_t stream_;
    char* memory_ = nullptr;  ///< Pinned.
    std::array<cudaEvent_t, kSlots> copied_{};
    int next_ = 0;
};

}  // namespace llmc::cuda
