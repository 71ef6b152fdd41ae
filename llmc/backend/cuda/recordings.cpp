#include "llmc/backend/cuda/recordings.h"

#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cuda_backend.h"

namespace llmc::cuda {
namespace {

struct DestroyGraph {
    void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

/// What `work` does to the stream, which stays in no recording whatever happens.
Graph record(cudaStream_t stream, const std::function<void()>& work) {
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
        work();
    } catch (...) {
        if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
        cudaGetLastError();
        throw;
    }
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    return Graph(graph);
}

}  // namespace

void Recordings::DestroyExecutable::operator()(cudaGraphExec_t executable) const {
    cudaGraphExecDestroy(executable);  // The device finishes a running graph first.
}

void Recordings::repeat(const void* key, const std::function<void()>& work) {
    auto known = graphs_.find(key);
    if (known == graphs_.end()) {
        const Graph graph = record(stream_, work);
        cudaGraphExec_t executable = nullptr;
        CUDA_CHECK(cudaGraphInstantiate(&executable, graph.get(), 0));
        known = graphs_.emplace(key, Executable(executable)).first;
    }
    CUDA_CHECK(cudaGraphLaunch(known->second.get(), stream_));
}

void Recordings::forget(const void* key) { graphs_.erase(key); }

void CudaBackend::repeat(const void* key, const std::function<void()>& work) { recordings_->repeat(key, work); }

void CudaBackend::forget(const void* key) {
    if (recordings_ != nullptr) recordings_->forget(key);
}

}  // namespace llmc::cuda
