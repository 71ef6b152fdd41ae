// Algorithms of matrix products as data: what was used, what shall be, and which is the fastest; our own kernel is one.
#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/gemm_shape.h"
#include "llmc/backend/cuda/hopper_rope.h"
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

/// What our own kernel alone takes along.
Applied applied_of(const GemmQuery& query) {
    switch (query.kind) {
        case GemmKind::ForwardAndGelu: return Applied::Gelu;
        case GemmKind::ForwardAndSwiglu: return Applied::Swiglu;
        case GemmKind::InputGradientAndSwiglu: return Applied::SwigluGradient;
        case GemmKind::ForwardAndRope:
            return hopper_gemm_rotates(query.head_size, query.head_size) ? Applied::Rope : Applied::Nothing;
        case GemmKind::Forward:
        case GemmKind::InputGradient:
        case GemmKind::WeightGradient:
        case GemmKind::InputGradientAndGelu:
        case GemmKind::WeightAndBiasGradient: break;
    }
    return Applied::Nothing;
}

/// Of what an activation is taken at beside the product, and of what it makes, where the product has so many.
struct AppliedColumns {
    int64_t of_pre = 0, of_activated = 0;
};
AppliedColumns columns_of(Applied applied, int64_t columns) {
    switch (applied) {
        case Applied::Nothing:
        case Applied::Rope: break;
        case Applied::Gelu: return {0, columns};
        case Applied::Swiglu: return {0, columns / 2};
        case Applied::GeluGradient: return {columns, columns};
        case Applied::SwigluGradient: return {2 * columns, 2 * columns};
    }
    return {};
}

/// The heads of a product that rope() rotates.
AttentionShape one_sequence(const GemmQuery& query) {
    if (query.head_size == 0) return {};
    const int64_t NKV = (query.OC - query.rotated_columns) / query.head_size;
    return {1, query.N, query.rotated_columns / query.head_size - NKV, NKV, query.head_size};
}

/// Null if there is none.
const GemmAlgorithm* find_key(const std::vector<GemmAlgorithm>& algorithms, const GemmKey& key) {
    const auto at = std::find_if(algorithms.begin(), algorithms.end(),
                                 [&key](const GemmAlgorithm& algorithm) { return algorithm.key == key; });
    return at == algorithms.end() ? nullptr : &*at;
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
        if (algorithm.is_own() && !offers_own_gemms_) fail("CUDA: our own matrix products cannot be formed here");
        if (matmuls_->choose(algorithm)) continue;
        fail("CUDA: {} refuses the algorithm for {} x {} x {} in {}",
             algorithm.is_own() ? "our own kernel" : here.library, shape.m, shape.n, shape.k, name_of(shape.input));
    }
}

void CudaBackend::offer_own_gemms(bool offered) { offers_own_gemms_ = offered; }

std::vector<GemmAlgorithm> CudaBackend::own_gemms(const std::vector<GemmQuery>& queries) const {
    std::vector<GemmAlgorithm> own;
    for (const GemmQuery& query : queries) {
        const GemmKey key = matmuls_->key_of(gemm_shape(query), library_bytes(query));
        if (offers_own_gemms_ && PreparedMatmuls::own_takes(key) && find_key(own, key) == nullptr)
            own.push_back({key, {kOwnGemm}});
    }
    return own;
}

/// A product with what it takes along and without has one key, and one algorithm: that of the first of its queries.
GemmAlgorithms CudaBackend::time_gemms(const std::vector<GemmQuery>& queries, const std::vector<GemmAlgorithm>& known) {
    GemmAlgorithms result = gemm_algorithms();
    result.chosen.clear();
    for (const GemmQuery& query : queries) {
        const GemmKey key = matmuls_->key_of(gemm_shape(query), library_bytes(query));
        if (find_key(result.chosen, key) != nullptr) continue;
        const GemmAlgorithm* const at = find_key(known, key);
        if (at != nullptr && (offers_own_gemms_ || !at->is_own())) {
            result.chosen.push_back(*at);
            continue;
        }
        GemmAlgorithm found = time_gemm(query, key);
        if (!found.words.empty()) result.chosen.push_back(std::move(found));
    }
    return result;
}

GemmAlgorithm CudaBackend::time_gemm(const GemmQuery& query, const GemmKey& key) {
    const GemmShape& shape = key.shape;
    const Applied applied = applied_of(query);
    const bool is_rotated = applied == Applied::Rope;
    const auto [of_pre, of_activated] = columns_of(applied, shape.m);
    const Scratch a(*this, shape.m * shape.k * size_of(shape.input)),
        b(*this, shape.k * shape.n * size_of(shape.input)), d(*this, shape.m * shape.n * size_of(shape.output)),
        of_epilogue(*this, epilogue_bytes(shape)), workspace(*this, key.workspace_bytes),
        pre(*this, shape.n * of_pre * size_of(shape.output)),
        activated(*this, shape.n * of_activated * size_of(shape.output)),
        angles(*this, is_rotated ? shape.n * query.head_size * size_of(DType::F32) : 0);
    const AttentionShape heads = one_sequence(query);
    const Tensor table(DType::F32, angles.data(), shape.n, query.head_size);
    const MatmulOperands operands = {.d = d.data(),
                                     .a = a.data(),
                                     .b = b.data(),
                                     .of_epilogue = of_epilogue.data(),
                                     .c = d.data(),
                                     .workspace = workspace.data(),
                                     .workspace_bytes = key.workspace_bytes,
                                     .applied = applied,
                                     .activated = activated.data(),
                                     .pre = pre.data(),
                                     .rope = is_rotated ? hopper_rope({table, heads, 0}) : HopperRope{}};
    const auto activate = [&] {
        const Tensor out(shape.output, d.data(), shape.n, shape.m),
            act_out(shape.output, activated.data(), shape.n, of_activated),
            act_in(shape.output, pre.data(), shape.n, of_pre);
        if (applied == Applied::Gelu) gelu_forward(act_out, out);
        if (applied == Applied::Swiglu) swiglu_forward(act_out, out);
        if (applied == Applied::SwigluGradient) swiglu_backward(act_out, out, act_in);
        if (is_rotated) rope(out, table, heads, 0, /*inverse=*/false);
    };
    GemmAlgorithm found = matmuls_->fastest(key, operands, stream_);
    const bool is_own =
        offers_own_gemms_ && !found.words.empty() && matmuls_->own_is_faster(found, operands, activate, stream_);
    return is_own ? GemmAlgorithm{key, {kOwnGemm}} : found;
}

}  // namespace llmc::cuda
