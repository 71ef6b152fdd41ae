#include "llmc/backend/cuda/prepared_matmuls.h"

#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cublaslt.h"
#include "llmc/base/check.h"
#include "llmc/base/error.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace llmc::cuda {
namespace {

/// Multiples of this are as good as any for the library. Rows of parameters in bf16 are, and tensors of the arena.
constexpr uint32_t kLargestAlignment = 128;
/// Of bias, and of what GELU's derivative is taken at.
constexpr uint32_t kEpilogueAlignment = 16;

void check(cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS) fail("CUDA: {} failed: {}", call, cublaslt().GetStatusString(status));
}
#define CUBLAS_CHECK(call) check((call), #call)

cudaDataType_t type_of(DType dtype) {
    CHECK(dtype == DType::F32 || dtype == DType::BF16, name_of(dtype));
    return dtype == DType::F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// The largest power of two, up to that, that divides an address.
uint32_t alignment_of(const void* address) {
    const auto bits = reinterpret_cast<uintptr_t>(address) | kLargestAlignment;
    return 1u << std::countr_zero(bits);
}

/// Column-major.
cublasLtMatrixLayout_t layout(DType dtype, int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    CUBLAS_CHECK(cublaslt().MatrixLayoutCreate(&made, type_of(dtype), static_cast<uint64_t>(rows),
                                               static_cast<uint64_t>(columns), rows));
    return made;
}

template <typename Value>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, Value value) {
    CUBLAS_CHECK(cublaslt().MatmulDescSetAttribute(description, attribute, &value, sizeof value));
}

template <typename Value>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
    CUBLAS_CHECK(cublaslt().MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
}

void set_operand(cublasLtMatmulDesc_t description, Epilogue epilogue, const void* operand) {
    if (epilogue == Epilogue::None) return;
    const bool is_matrix = epilogue == Epilogue::GeluGradient;
    set(description, is_matrix ? CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER : CUBLASLT_MATMUL_DESC_BIAS_POINTER,
        operand);
}

/// The library looks for algorithms by the addresses of an epilogue's operand, too. Before there is one it is told an
/// address that is aligned as the real one will be, and does not read there.
const void* expected_operand() { return reinterpret_cast<const void*>(uintptr_t{kEpilogueAlignment}); }

void set_epilogue(cublasLtMatmulDesc_t description, const GemmShape& shape) {
    switch (shape.epilogue) {
        case Epilogue::None: return;
        case Epilogue::Bias: set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS); break;
        case Epilogue::BiasGradient: set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BGRADB); break;
        case Epilogue::GeluGradient:
            set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DGELU);
            set(description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape.m);
            break;
    }
    if (shape.epilogue != Epilogue::GeluGradient) {
        set(description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(shape.output));
    }
    set_operand(description, shape.epilogue, expected_operand());
}

std::vector<uint64_t> words_of(const cublasLtMatmulAlgo_t& algorithm) {
    return {std::begin(algorithm.data), std::end(algorithm.data)};
}

/// The least time of several; infinite where it cannot be started.
float least_milliseconds(const std::function<bool()>& start, cudaStream_t stream) {
    constexpr int kRuns = 4;  // The first of them loads the kernel.
    cudaEvent_t begin = nullptr, end = nullptr;
    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    float least = std::numeric_limits<float>::infinity();
    for (int i = 0; i < kRuns; ++i) {
        CUDA_CHECK(cudaEventRecord(begin, stream));
        if (!start()) break;
        CUDA_CHECK(cudaEventRecord(end, stream));
        CUDA_CHECK(cudaEventSynchronize(end));
        float taken = 0;
        CUDA_CHECK(cudaEventElapsedTime(&taken, begin, end));
        if (i > 0) least = std::min(least, taken);
    }
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return least;
}

}  // namespace

struct PreparedMatmuls::Call {
    explicit Call(const GemmKey& key);
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
        for (cublasLtMatrixLayout_t made : {a, b, d}) {
            if (made != nullptr) cublaslt().MatrixLayoutDestroy(made);
        }
        if (description != nullptr) cublaslt().MatmulDescDestroy(description);
    }
    cublasLtMatmulDesc_t description = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    bool is_own = false;  ///< Our own kernel forms it instead.
};

PreparedMatmuls::Call::Call(const GemmKey& key) {
    const GemmShape& shape = key.shape;
    CUBLAS_CHECK(cublaslt().MatmulDescCreate(&description, key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                             CUDA_R_32F));
    set(description, CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(description, CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_epilogue(description, shape);
    a = shape.transpose_a ? layout(shape.input, shape.k, shape.m) : layout(shape.input, shape.m, shape.k);
    b = shape.transpose_b ? layout(shape.input, shape.n, shape.k) : layout(shape.input, shape.k, shape.n);
    d = layout(shape.output, shape.m, shape.n);
}

PreparedMatmuls::PreparedMatmuls(int multiprocessors) : multiprocessors_(multiprocessors) {
    if (!cublaslt().problem.empty()) fail("{}; or use --device=cpu", cublaslt().problem);
    CUBLAS_CHECK(cublaslt().Create(&handle_));
}

PreparedMatmuls::~PreparedMatmuls() {
    calls_.clear();
    cublaslt().Destroy(handle_);
}

GemmKey PreparedMatmuls::key_of(const GemmShape& shape, int64_t workspace_bytes) const {
    GemmKey key = {shape, tf32_ && shape.input == DType::F32, {}, workspace_bytes};
    key.alignment.fill(kLargestAlignment);
    return key;
}

/// The library's first choice comes first.
std::vector<cublasLtMatmulAlgo_t> PreparedMatmuls::best_of_library(const Call& call, const GemmKey& key,
                                                                   int most) const {
    cublasLtMatmulPreference_t preference = nullptr;
    CUBLAS_CHECK(cublaslt().MatmulPreferenceCreate(&preference));
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(key.workspace_bytes));
    // Partial sums meet in the workspace, in one order; not in place, in the order of arrival.
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment[0]);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment[1]);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment[2]);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment[3]);
    std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(most));
    int count = 0;
    const cublasStatus_t status = cublaslt().MatmulAlgoGetHeuristic(handle_, call.description, call.a, call.b, call.d,
                                                                    call.d, preference, most, found.data(), &count);
    cublaslt().MatmulPreferenceDestroy(preference);
    std::vector<Algorithm> algorithms;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i) {
        const cublasLtMatmulHeuristicResult_t& result = found[static_cast<size_t>(i)];
        if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(result.algo);
    }
    return algorithms;
}

const PreparedMatmuls::Call* PreparedMatmuls::call_of(const GemmKey& key) {
    const std::lock_guard lock(asking_);
    const auto [at, is_new] = calls_.try_emplace(key);
    if (!is_new) return at->second.get();
    auto call = std::make_unique<Call>(key);
    const std::vector<Algorithm> first = best_of_library(*call, key, 1);
    if (first.empty()) return nullptr;
    call->algorithm = first.front();
    at->second = std::move(call);
    return at->second.get();
}

cublasStatus_t PreparedMatmuls::start(const Call& call, const Algorithm& algorithm, const GemmShape& shape,
                                      const MatmulOperands& operands, cudaStream_t stream) const {
    const void* c = shape.adds_c ? operands.c : operands.d;
    set_operand(call.description, shape.epilogue, operands.of_epilogue);
    const float alpha = 1, beta = shape.adds_c && !operands.ignores_c ? 1 : 0;
    return cublaslt().Matmul(handle_, call.description, &alpha, operands.a, call.a, operands.b, call.b, &beta, c,
                             call.d, operands.d, call.d, &algorithm, operands.workspace,
                             static_cast<size_t>(operands.workspace_bytes), stream);
}

void PreparedMatmuls::start_own(const GemmShape& shape, const MatmulOperands& operands, cudaStream_t stream) const {
    const auto bf16_of = [](const void* data) { return static_cast<const __nv_bfloat16*>(data); };
    const bool of_gelu = shape.epilogue == Epilogue::GeluGradient;
    gemm_hopper({.out = operands.d,
                 .activated = static_cast<__nv_bfloat16*>(of_gelu ? operands.d : operands.activated),
                 .left = bf16_of(operands.b),
                 .right = bf16_of(operands.a),
                 .bias = shape.epilogue == Epilogue::Bias ? bf16_of(operands.of_epilogue) : nullptr,
                 .residual = shape.adds_c && !operands.ignores_c ? operands.c : nullptr,
                 .pre = bf16_of(of_gelu ? operands.of_epilogue : operands.pre),
                 .rows = static_cast<int>(shape.n),
                 .columns = static_cast<int>(shape.m),
                 .depth = static_cast<int>(shape.k),
                 .workspace = static_cast<float*>(operands.workspace),
                 .rope = operands.rope},
                hopper_kind(shape), of_gelu ? Applied::GeluGradient : operands.applied, multiprocessors_, stream);
}

bool PreparedMatmuls::run(const GemmShape& shape, const MatmulOperands& operands, cudaStream_t stream) {
    const void* c = shape.adds_c ? operands.c : operands.d;
    GemmKey key = key_of(shape, operands.workspace_bytes);
    key.alignment = {alignment_of(operands.a), alignment_of(operands.b), alignment_of(c), alignment_of(operands.d)};
    CHECK(shape.epilogue == Epilogue::None || alignment_of(operands.of_epilogue) >= kEpilogueAlignment);
    const Call* const call = call_of(key);
    if (call == nullptr) {
        fail("CUDA: cuBLASLt knows no way to multiply {} x {} x {} in {}", shape.m, shape.n, shape.k,
             name_of(shape.input));
    }
    if (call->is_own) {
        start_own(shape, operands, stream);
        return true;
    }
    const cublasStatus_t status = start(*call, call->algorithm, shape, operands, stream);
    if (status != CUBLAS_STATUS_SUCCESS) {
        fail("CUDA: multiplying {} x {} x {} in {} failed: {}", shape.m, shape.n, shape.k, name_of(shape.input),
             cublaslt().GetStatusString(status));
    }
    return operands.applied == Applied::Nothing;
}

std::string PreparedMatmuls::library() {
    const size_t version = cublaslt().GetVersion();  // 130100: 13.1.0.
    return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::vector<GemmAlgorithm> PreparedMatmuls::algorithms() const {
    std::vector<GemmAlgorithm> all;
    for (const auto& [key, call] : calls_) {
        if (call == nullptr) continue;
        all.push_back({key, call->is_own ? std::vector{kOwnGemm} : words_of(call->algorithm)});
    }
    return all;
}

bool PreparedMatmuls::own_takes(const GemmKey& key) {
    constexpr uint32_t kAlignment = 16;
    return hopper_gemm_takes(key.shape) &&
           *std::min_element(key.alignment.begin(), key.alignment.end()) >= kAlignment &&
           hopper_gemm_workspace(key.shape) <= key.workspace_bytes;
}

bool PreparedMatmuls::choose(const GemmAlgorithm& algorithm) {
    auto call = std::make_unique<Call>(algorithm.key);
    call->is_own = algorithm.is_own();
    if (call->is_own) {
        if (!own_takes(algorithm.key)) return false;
        calls_[algorithm.key] = std::move(call);
        return true;
    }
    if (algorithm.words.size() != std::size(call->algorithm.data)) return false;
    std::copy(algorithm.words.begin(), algorithm.words.end(), call->algorithm.data);
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublaslt().MatmulAlgoCheck(handle_, call->description, call->a, call->b, call->d,
                                                             call->d, &call->algorithm, &result);
    const auto room = static_cast<size_t>(algorithm.key.workspace_bytes);
    if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > room) return false;
    calls_[algorithm.key] = std::move(call);
    return true;
}

/// Infinite where the library cannot after all.
float PreparedMatmuls::milliseconds(const Call& call, const Algorithm& algorithm, const GemmShape& shape,
                                    const MatmulOperands& operands, cudaStream_t stream) const {
    return least_milliseconds([&] { return start(call, algorithm, shape, operands, stream) == CUBLAS_STATUS_SUCCESS; },
                              stream);
}

GemmAlgorithm PreparedMatmuls::fastest(const GemmKey& key, const MatmulOperands& operands, cudaStream_t stream) const {
    constexpr int kMost = 8;
    const Call call(key);
    const std::vector<Algorithm> candidates = best_of_library(call, key, kMost);
    if (candidates.empty()) return {key, {}};
    size_t best = 0;
    float least = candidates.size() == 1 ? 0 : milliseconds(call, candidates[0], key.shape, operands, stream);
    least *= kWorthIt;
    for (size_t i = 1; i < candidates.size(); ++i) {
        const float taken = milliseconds(call, candidates[i], key.shape, operands, stream);
        if (taken < least) least = taken, best = i;
    }
    return {key, words_of(candidates[best])};
}

bool PreparedMatmuls::own_is_faster(const GemmAlgorithm& library, const MatmulOperands& operands,
                                    const std::function<void()>& activate, cudaStream_t stream) const {
    const GemmShape& shape = library.key.shape;
    if (!own_takes(library.key)) return false;
    const Call call(library.key);
    Algorithm algorithm{};
    std::copy(library.words.begin(), library.words.end(), algorithm.data);
    const float of_library = least_milliseconds(
        [&] {
            const bool started = start(call, algorithm, shape, operands, stream) == CUBLAS_STATUS_SUCCESS;
            if (operands.applied != Applied::Nothing) activate();
            return started;
        },
        stream);
    const auto start_ours = [&] {
        start_own(shape, operands, stream);
        return true;
    };
    return least_milliseconds(start_ours, stream) < kWorthIt * of_library;
}

}  // namespace llmc::cuda
