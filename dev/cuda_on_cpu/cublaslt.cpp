// Stand-in for libcublasLt: C = epilogue(alpha·op(A)·op(B) + beta·C) for fp32 and bf16, accumulated in fp32; operands
// in fp32 rounded to TF32 where that was asked for.
//
// It is as strict as the documentation: layouts must match, types be a documented combination, pointers aligned, ranges
// inside allocations, the workspace as large as the algorithm said, and an algorithm is used only for the problem it
// was found for. It fills the workspace, so that one used by somebody else shows. It says nothing about speed.
#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/cublaslt_problem.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/streams.h"

#include <cublasLt.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using namespace cuda_on_cpu;

namespace {

struct Preference {
    int search_mode = 0;
    uint32_t reduction_mask = 0;
    uint64_t workspace_bytes = 0;
    uint32_t alignment[4] = {256, 256, 256, 256};
    float waves = 0;
};

// What a cublasLtMatmulAlgo_t holds.
struct Algorithm {
    uint64_t problem;
    uint64_t workspace_bytes;
    uint32_t alignment[4];
    uint32_t sums;  // Operands::sums; from 1.
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

constexpr uint64_t kWorkspaceBytes = 64 << 10;  // What the first algorithm asks for, if it may.
constexpr int kAlgorithms = 4;

std::atomic<uint64_t> searches = 0;

std::vector<double> times_from_environment() {
    const char* text = std::getenv("LLMC_CUBLASLT_TIMES");
    std::istringstream words(text ? text : "");
    std::vector<double> times;
    for (std::string word; std::getline(words, word, ',');) times.push_back(std::atof(word.c_str()));
    return times;
}
std::vector<double> algorithm_times = times_from_environment();

// Whether this thread's device has an algorithm with such an epilogue.
bool has_algorithm(const Problem& problem) {
    const bool fuses = machine().devices[static_cast<size_t>(current_device())].backward_epilogues;
    return fuses || !(problem.has(CUBLASLT_EPILOGUE_BGRADB) || problem.has(CUBLASLT_EPILOGUE_DGELU));
}

Description* own(cublasLtMatmulDesc_t p) { return reinterpret_cast<Description*>(p); }
Layout* own(cublasLtMatrixLayout_t p) { return reinterpret_cast<Layout*>(p); }
Preference* own(cublasLtMatmulPreference_t p) { return reinterpret_cast<Preference*>(p); }

template <typename T>
cublasStatus_t set(T& field, const void* value, size_t bytes) {
    if (!value || bytes != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T>
cublasStatus_t get(const T& field, void* value, size_t bytes, size_t* written) {
    if (written) *written = sizeof field;
    if (bytes < sizeof field) return bytes == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(value, &field, sizeof field);
    return CUBLAS_STATUS_SUCCESS;
}

// All of a matrix must be in one allocation, aligned as promised.
cublasStatus_t check_pointer(const void* p, size_t bytes, uint32_t promised) {
    if (!is_device_memory(p, bytes)) return CUBLAS_STATUS_INVALID_VALUE;
    const uint32_t needed = std::min(promised, 16u);
    return reinterpret_cast<uintptr_t>(p) % needed ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

void check_written(const char* name, const Layout& layout, const void* p) {
    for (int64_t batch = 0; batch < layout.batch_count; ++batch) {
        for (int64_t line = 0; line < layout.lines(); ++line) {
            const auto* start = static_cast<const char*>(p) +
                                (batch * layout.batch_stride + line * layout.leading) * size_of(layout.type);
            if (race::is_written(start, static_cast<size_t>(layout.line_length() * size_of(layout.type)))) continue;
            report(cudaErrorIllegalAddress,
                   format("read of unwritten memory: matrix %s of cublasLtMatmul at %p (%jd x %jd)", name, p,
                          intmax_t{layout.rows}, intmax_t{layout.columns}));
            return;
        }
    }
}

}  // namespace

uint64_t cuda_on_cpu::algorithm_searches() { return searches; }

void cuda_on_cpu::set_algorithm_times(std::vector<double> milliseconds) { algorithm_times = std::move(milliseconds); }

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    if (usable() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = reinterpret_cast<cublasLtHandle_t>(new int{0});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete reinterpret_cast<int*>(handle);
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() {
    const char* text = std::getenv("LLMC_CUBLASLT_VERSION");
    return text ? std::strtoull(text, nullptr, 10) : 130000;
}
size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS: return "success";
        case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
        case CUBLAS_STATUS_INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
        case CUBLAS_STATUS_NOT_SUPPORTED: return "the functionality requested is not supported";
        case CUBLAS_STATUS_EXECUTION_FAILED: return "the GPU program failed to execute";
        default: return "an internal cuBLAS operation failed";
    }
}

// ---- descriptions ----

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *description = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{.compute = compute, .scale = scale});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    delete own(description);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
    Description& d = *own(description);
    switch (attribute) {
        case CUBLASLT_MATMUL_DESC_TRANSA: return set(d.transpose_a, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB: return set(d.transpose_b, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(d.epilogue, value, bytes);
        case CUBLASLT_MATMUL_DESC_POINTER_MODE: return set(d.pointer_mode, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(d.bias, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(d.bias_type, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return set(d.aux, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return set(d.aux_leading, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: return set(d.aux_type, value, bytes);
        case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET: return CUBLAS_STATUS_SUCCESS;
        default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
    *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
        new Layout{.type = type, .rows = int64_t(rows), .columns = int64_t(columns), .leading = leading});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete own(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
    Layout& l = *own(layout);
    switch (attribute) {
        case CUBLASLT_MATRIX_LAYOUT_ORDER: return set(l.order, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return set(l.batch_count, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return set(l.batch_stride, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_LD: return set(l.leading, value, bytes);
        default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete own(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
    Preference& p = *own(preference);
    switch (attribute) {
        case CUBLASLT_MATMUL_PREF_SEARCH_MODE: return set(p.search_mode, value, bytes);
        case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(p.workspace_bytes, value, bytes);
        case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(p.reduction_mask, value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(p.alignment[0], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(p.alignment[1], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(p.alignment[2], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(p.alignment[3], value, bytes);
        case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT: return set(p.waves, value, bytes);
        default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

// ---- algorithms: they use a workspace, if they may, or none, and sum up in different orders ----

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
    *returned = 0;
    if (!handle || requested < 1) return CUBLAS_STATUS_INVALID_VALUE;
    ++searches;
    const Problem problem{*own(description), *own(a), *own(b), *own(c), *own(d)};
    if (const cublasStatus_t status = check(problem)) return status;
    if (!has_algorithm(problem)) return CUBLAS_STATUS_NOT_SUPPORTED;
    const Preference& wish = *own(preference);
    for (int i = 0; i < std::min(requested, kAlgorithms); ++i) {
        const uint64_t workspace = i % 2 == 0 ? std::min(wish.workspace_bytes, kWorkspaceBytes) : 0;
        Algorithm algorithm{hash_of(problem), workspace, {}, static_cast<uint32_t>(i + 1)};
        std::copy_n(wish.alignment, 4, algorithm.alignment);
        cublasLtMatmulHeuristicResult_t& result = results[(*returned)++];
        std::memset(&result, 0, sizeof result);
        std::memcpy(&result.algo, &algorithm, sizeof algorithm);
        result.workspaceSize = workspace;
        result.state = CUBLAS_STATUS_SUCCESS;
        result.wavesCount = 1.0f;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                       cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    const Problem problem{*own(description), *own(a), *own(b), *own(c), *own(d)};
    if (const cublasStatus_t status = check(problem)) return status;
    Algorithm algorithm;
    std::memcpy(&algorithm, algo, sizeof algorithm);
    const bool is_one = algorithm.sums >= 1 && algorithm.sums <= kAlgorithms;
    if (!is_one || algorithm.problem != hash_of(problem)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!has_algorithm(problem)) return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = algorithm.workspace_bytes;
    result->state = CUBLAS_STATUS_SUCCESS;
    result->wavesCount = 1.0f;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t*,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* value,
                                                    size_t bytes, size_t* written) {
    const uint32_t number = attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? 1 : 0;
    return get(number, value, bytes, written);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    const Lock held = lock();
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (usable() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
    const Problem problem{*own(description), *own(a_layout), *own(b_layout), *own(c_layout), *own(d_layout)};
    if (const cublasStatus_t status = check(problem)) return status;
    Algorithm algorithm{hash_of(problem), 0, {16, 16, 16, 16}, 1};
    if (algo) std::memcpy(&algorithm, algo, sizeof algorithm);
    if (algorithm.problem != hash_of(problem)) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm.workspace_bytes > workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm.workspace_bytes > 0 && !is_device_memory(workspace, workspace_bytes)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    Operands operands{*static_cast<const float*>(alpha), *static_cast<const float*>(beta), a, b, c, d,
                      static_cast<int>(algorithm.sums)};
    const bool reads_c = operands.beta != 0.0f;
    const auto& alignment = algorithm.alignment;
    if (const auto status = check_pointer(a, problem.a.bytes(), alignment[0])) return status;
    if (const auto status = check_pointer(b, problem.b.bytes(), alignment[1])) return status;
    if (reads_c) {
        if (const auto status = check_pointer(c, problem.c.bytes(), alignment[2])) return status;
        if (c == d && problem.c.leading != problem.d.leading) return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (const auto status = check_pointer(d, problem.d.bytes(), alignment[3])) return status;
    if (const cublasStatus_t status = check_epilogue_pointers(problem)) return status;

    enqueue(stream, [problem, operands, reads_c, workspace, used = algorithm.workspace_bytes] {
        check_written("A", problem.a, operands.a);
        check_written("B", problem.b, operands.b);
        if (reads_c) check_written("C", problem.c, operands.c);
        check_epilogue_written(problem);
        const auto algorithm = static_cast<size_t>(operands.sums - 1);
        if (algorithm < algorithm_times.size()) pretend_to_take(algorithm_times[algorithm]);
        if (used > 0) std::memset(workspace, 0xff, used);
        multiply(problem, operands);
        for (int64_t batch = 0; batch < problem.d.batch_count; ++batch) {
            for (int64_t line = 0; line < problem.d.lines(); ++line) {
                race::written(static_cast<char*>(operands.d) +
                                  (batch * problem.d.batch_stride + line * problem.d.leading) * size_of(problem.d.type),
                              static_cast<size_t>(problem.d.line_length() * size_of(problem.d.type)));
            }
        }
    });
    return CUBLAS_STATUS_SUCCESS;
}
}
