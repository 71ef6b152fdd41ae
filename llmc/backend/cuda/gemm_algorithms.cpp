// Algorithms of matrix products as data: what was used, what shall be, and which is the fastest.
#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/gemm_shape.h"
#include "llmc/backend/cuda/prepared_matmuls.h"
#include "llmc/base/error.h"

#include <algorithm>
#include <utility>

namespace llmc::cuda {
namespace {

/// Memory of the device for as long as a product is timed. Numbers of all zeros would be faster than others: every byte
/// is such that bf16 and fp32 are 0.01.
class Scratch {
  public:
    Scratch(CudaBackend& backend, int64_t bytes)
        : backend_(backend), memory_(backend.allocate(std::max<int64_t>(bytes, 1), "the timing of matrix products")) {
        constexpr int kByte = 0x3c;
        CUDA_CHECK(
            cudaMemsetAsync(memory_, kByte, static_cast<size_t>(bytes), static_cast<cudaStream_t>(backend.stream())));
    }
    ~Scratch() { backend_.release(memory_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    void* data() const { return memory_; }

  private:
    CudaBackend& backend_;
    void* memory_;
};

int64_t epilogue_bytes(const GemmShape& shape) {
    switch (shape.epilogue) {
        case Epilogue::None: break;
        case Epilogue::Bias: return shape.m * size_of(shape.output);
        case Epilogue::BiasGradient: return shape.n * size_of(shape.output);
        case Epilogue::GeluGradient: return shape.m * shape.n * size_of(shape.output);
    }
    return 0;
}

}  // namespace

GemmAlgorithms CudaBackend::gemm_algorithms() const {
    if (matmuls_ == nullptr) return {};
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device_));
    return {PreparedMatmuls::library(), fmt::format("{}, sm_{}{}", properties.name, properties.major, properties.minor),
            matmuls_->algorithms()};
}

void CudaBackend::set_gemm_algorithms(const GemmAlgorithms& algorithms) {
    const GemmAlgorithms here = gemm_algorithms();
    if (!here.is_of_same_kind(algorithms)) {
        fail("CUDA: the algorithms of {} on {} are not those of {} on {}", algorithms.library, algorithms.device,
             here.library, here.device);
    }
    for (const GemmAlgorithm& algorithm : algorithms.chosen) {
        const GemmShape& shape = algorithm.key.shape;
        if (matmuls_->choose(algorithm)) continue;
        fail("CUDA: {} refuses the algorithm for {} x {} x {} in {}", here.library, shape.m, shape.n, shape.k,
             name_of(shape.input));
    }
}

GemmAlgorithms CudaBackend::time_gemms(const std::vector<GemmQuery>& queries, const std::vector<GemmAlgorithm>& known) {
    GemmAlgorithms result = gemm_algorithms();
    result.chosen.clear();
    for (const GemmQuery& query : queries) {
        const GemmKey key = matmuls_->key_of(gemm_shape(query), library_bytes(query));
        const GemmShape& shape = key.shape;
        const auto is_it = [&key](const GemmAlgorithm& algorithm) { return algorithm.key == key; };
        if (const auto at = std::find_if(known.begin(), known.end(), is_it); at != known.end()) {
            result.chosen.push_back(*at);
            continue;
        }
        const Scratch a(*this, shape.m * shape.k * size_of(shape.input)),
            b(*this, shape.k * shape.n * size_of(shape.input)), d(*this, shape.m * shape.n * size_of(shape.output)),
            of_epilogue(*this, epilogue_bytes(shape)), workspace(*this, key.workspace_bytes);
        GemmAlgorithm found = matmuls_->fastest(key,
                                                {.d = d.data(),
                                                 .a = a.data(),
                                                 .b = b.data(),
                                                 .of_epilogue = of_epilogue.data(),
                                                 .c = d.data(),
                                                 .workspace = workspace.data(),
                                                 .workspace_bytes = key.workspace_bytes},
                                                stream_);
        if (!found.words.empty()) result.chosen.push_back(std::move(found));
    }
    return result;
}

}  // namespace llmc::cuda
