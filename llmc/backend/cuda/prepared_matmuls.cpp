#include "llmc/backend/cuda/prepared_matmuls.h"

#include "llmc/backend/cuda/cublaslt.h"
#include "llmc/base/check.h"
#include "llmc/base/error.h"

#include <algorithm>
#include <bit>

namespace llmc::cuda {
namespace {

void check(cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS) fail("CUDA: {} failed: {}", call, cublaslt().GetStatusString(status));
}
#define CUBLAS_CHECK(call) check((call), #call)

cudaDataType_t type_of(DType dtype) {
    CHECK(dtype == DType::F32 || dtype == DType::BF16, name_of(dtype));
    return dtype == DType::F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// The largest power of two, up to the arena's, that divides an address.
uint32_t alignment_of(const void* address) {
    const auto bits = reinterpret_cast<uintptr_t>(address) | 256u;
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

}  // namespace

struct PreparedMatmuls::Call {
    cublasLtMatmulDesc_t description = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    ~Call() {
        for (cublasLtMatrixLayout_t made : {a, b, d}) {
            if (made != nullptr) cublaslt().MatrixLayoutDestroy(made);
        }
        if (description != nullptr) cublaslt().MatmulDescDestroy(description);
    }
};

PreparedMatmuls::PreparedMatmuls() {
    if (!cublaslt().problem.empty()) fail("{}; or use --device=cpu", cublaslt().problem);
    CUBLAS_CHECK(cublaslt().Create(&handle_));
}

PreparedMatmuls::~PreparedMatmuls() {
    calls_.clear();
    cublaslt().Destroy(handle_);
}

void PreparedMatmuls::set_tf32(bool tf32) {
    if (tf32 != tf32_) calls_.clear();
    tf32_ = tf32;
}

std::unique_ptr<PreparedMatmuls::Call> PreparedMatmuls::prepare(const Key& key) const {
    const MatmulShape& shape = key.shape;
    auto call = std::make_unique<Call>();
    const bool rounds = tf32_ && shape.input == DType::F32;
    CUBLAS_CHECK(cublaslt().MatmulDescCreate(&call->description,
                                             rounds ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(call->description, CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(call->description, CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (shape.has_bias) {
        set(call->description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
        set(call->description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(shape.output));
    }
    call->a = shape.transpose_a ? layout(shape.input, shape.k, shape.m) : layout(shape.input, shape.m, shape.k);
    call->b = shape.transpose_b ? layout(shape.input, shape.n, shape.k) : layout(shape.input, shape.k, shape.n);
    call->d = layout(shape.output, shape.m, shape.n);

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
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublaslt().MatmulAlgoGetHeuristic(handle_, call->description, call->a, call->b,
                                                                    call->d, call->d, preference, 1, &found, &count);
    cublaslt().MatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
        fail("CUDA: cuBLASLt knows no way to multiply {} x {} x {} in {}: {}", shape.m, shape.n, shape.k,
             name_of(shape.input), cublaslt().GetStatusString(status));
    }
    call->algorithm = found.algo;
    return call;
}

void PreparedMatmuls::run(const MatmulShape& shape, const MatmulOperands& operands, cudaStream_t stream) {
    const void* c = shape.adds_c ? operands.c : operands.d;
    const Key key = {shape,
                     {alignment_of(operands.a), alignment_of(operands.b), alignment_of(c), alignment_of(operands.d)},
                     operands.workspace_bytes};
    std::unique_ptr<Call>& call = calls_[key];
    if (call == nullptr) call = prepare(key);
    if (shape.has_bias) {
        CHECK(alignment_of(operands.bias) >= 16);  // The algorithm was found without knowing it.
        set(call->description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
    }
    const float alpha = 1, beta = shape.adds_c && !operands.ignores_c ? 1 : 0;
    const cublasStatus_t status = cublaslt().Matmul(
        handle_, call->description, &alpha, operands.a, call->a, operands.b, call->b, &beta, c, call->d, operands.d,
        call->d, &call->algorithm, operands.workspace, static_cast<size_t>(operands.workspace_bytes), stream);
    if (status != CUBLAS_STATUS_SUCCESS) {
        fail("CUDA: multiplying {} x {} x {} in {} failed: {}", shape.m, shape.n, shape.k, name_of(shape.input),
             cublaslt().GetStatusString(status));
    }
}

}  // namespace llmc::cuda
