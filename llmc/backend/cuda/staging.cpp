#include "llmc/backend/cuda/staging.h"

#include "llmc/backend/cuda/check.h"

#include <algorithm>
#include <cstring>

namespace llmc::cuda {

Staging::Staging(cudaStream_t stream) : stream_(stream) {
    void* memory = nullptr;
    CUDA_CHECK(cudaMallocHost(&memory, kSlots * kSlotBytes));
    memory_ = static_cast<char*>(memory);
    for (cudaEvent_t& event : copied_) CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
}

Staging::~Staging() {
    for (cudaEvent_t event : copied_) cudaEventDestroy(event);
    cudaFreeHost(memory_);
}

void Staging::copy(void* destination, const void* source, int64_t bytes) {
    auto* to = static_cast<char*>(destination);
    const auto* from = static_cast<const char*>(source);
    for (int64_t done = 0; done < bytes; done += kSlotBytes) {
        const auto count = static_cast<size_t>(std::min(kSlotBytes, bytes - done));
        char* slot = memory_ + next_ * kSlotBytes;
        cudaEvent_t copied = copied_[static_cast<size_t>(next_)];
        CUDA_CHECK(cudaEventSynchronize(copied));
        std::memcpy(slot, from + done, count);
        CUDA_CHECK(cudaMemcpyAsync(to + done, slot, count, cudaMemcpyHostToDevice, stream_));
        CUDA_CHECK(cudaEventRecord(copied, stream_));
        next_ = (next_ + 1) % kSlots;
    }
}

}  // namespace llmc::cuda
