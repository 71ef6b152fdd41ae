// Series of launches recorded as CUDA graphs: a whole micro-batch then starts with one call, without a gap between its
// several hundred kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <type_traits>
#include <unordered_map>

namespace llmc::cuda {

class Recordings {
  public:
    explicit Recordings(cudaStream_t stream) : stream_(stream) {}

    /// Replays what was recorded under the key, or records what `work` does to the stream and then runs it.
    void repeat(const void* key, const std::function<void()>& work);
    void forget(const void* key);

  private:
    struct DestroyExecutable {
        void operator()(cudaGraphExec_t executable) const;
    };
    using Executable = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyExecutable>;

    cudaStream_t stream_;
    std::unordered_map<const void*, Executable> graphs_;
};

}  // namespace llmc::cuda
