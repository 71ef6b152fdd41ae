#include "llmc/backend/cuda/copies.h"

#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"

#include <cstring>
#include <iterator>

namespace llmc::cuda {

Copies::Copies(cudaStream_t stream) : stream_(stream) {
    CUDA_CHECK(cudaStreamCreateWithFlags(&out_, cudaStreamNonBlocking));
    CUDA_CHECK(cudaStreamCreateWithFlags(&in_, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&reached_, cudaEventDisableTiming));
}

Copies::~Copies() {
    for (cudaEvent_t event : done_) cudaEventDestroy(event);
    cudaEventDestroy(reached_);
    cudaStreamDestroy(in_);
    cudaStreamDestroy(out_);
}

CopyTicket Copies::out(void* host, Tensor x) { return begin(out_, host, x.data, x.bytes(), cudaMemcpyDeviceToHost); }

CopyTicket Copies::in(Tensor out, const void* host) {
    return begin(in_, out.data, host, out.bytes(), cudaMemcpyHostToDevice);
}

CopyTicket Copies::begin(cudaStream_t beside, void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    const CopyTicket copy = free_ticket();
    CUDA_CHECK(cudaEventRecord(reached_, stream_));
    CUDA_CHECK(cudaStreamWaitEvent(beside, reached_, 0));
    CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, beside));
    CUDA_CHECK(cudaEventRecord(done_[static_cast<size_t>(copy)], beside));
    return copy;
}

CopyTicket Copies::free_ticket() {
    if (unused_.empty()) {
        done_.push_back(nullptr);
        CUDA_CHECK(cudaEventCreateWithFlags(&done_.back(), cudaEventDisableTiming));
        return static_cast<CopyTicket>(done_.size()) - 1;
    }
    const CopyTicket copy = unused_.back();
    unused_.pop_back();
    return copy;
}

void Copies::wait(CopyTicket copy) {
    CHECK(copy >= 0 && copy < static_cast<CopyTicket>(done_.size()), copy, done_.size());
    CUDA_CHECK(cudaStreamWaitEvent(stream_, done_[static_cast<size_t>(copy)], 0));
    unused_.push_back(copy);  // A later record of the event does not change what this wait waits for.
}

void* CudaBackend::allocate_host(int64_t bytes, const std::string& what) {
    void* memory = nullptr;
    const cudaError_t status = cudaMallocHost(&memory, static_cast<size_t>(bytes));
    if (status != cudaSuccess) {
        cudaGetLastError();
        fail(
            "not enough memory of the host: {} cannot be pinned for {} ({}); keep less there (--offload=none keeps "
            "everything on the device), or raise the limits on locked memory (ulimit -l) and of the control group",
            format_bytes(bytes), what, cudaGetErrorString(status));
    }
    std::memset(memory, 0, static_cast<size_t>(bytes));
    host_memory_[static_cast<char*>(memory)] = bytes;
    if (!copies_) copies_.emplace(stream_);
    return memory;
}

bool CudaBackend::is_host_memory(const void* memory) const {
    const auto after = host_memory_.upper_bound(static_cast<const char*>(memory));
    if (after == host_memory_.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return static_cast<const char*>(memory) < begin + bytes;
}

void CudaBackend::release_host(void* memory) {
    if (memory == nullptr) return;
    // Waits for every copy that was waited for. Errors have been reported: destructors call this.
    cudaStreamSynchronize(stream_);
    cudaFreeHost(memory);
    host_memory_.erase(static_cast<char*>(memory));
}

CopyTicket CudaBackend::copy_out(void* host, Tensor x) { return copies_->out(host, x); }
CopyTicket CudaBackend::copy_in(Tensor out, const void* host) { return copies_->in(out, host); }
void CudaBackend::wait_copy(CopyTicket copy) { copies_->wait(copy); }

}  // namespace llmc::cuda
