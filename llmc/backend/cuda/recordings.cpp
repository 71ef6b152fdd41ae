#include "llmc/backend/cuda/recordings.h"

#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cuda_backend.h"

namespace llmc::cuda {

Recordings::~Recordings() {
    for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
}

void Recordings::repeat(const void* key, const std::function<void()>& work) {
    auto known = graphs_.find(key);
    if (known == graphs_.end()) {
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t executable = nullptr;
        CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
        try {
            work();
        } catch (...) {  // The stream shall not stay in its recording.
            if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
            cudaGetLastError();
            throw;
        }
        CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
        CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
        CUDA_CHECK(cudaGraphDestroy(graph));
        known = graphs_.emplace(key, executable).first;
    }
    CUDA_CHECK(cudaGraphLaunch(known->second, stream_));
}

void Recordings::forget(const void* key) {
    const auto known = graphs_.find(key);
    if (known == graphs_.end()) return;
    cudaGraphExecDestroy(known->second);  // The device finishes a running graph first.
    graphs_.erase(known);
}

void CudaBackend::repeat(const void* key, const std::function<void()>& work) { recordings_->repeat(key, work); }

void CudaBackend::forget(const void* key) {
    if (recordings_ != nullptr) recordings_->forget(key);
}

}  // namespace llmc::cuda
