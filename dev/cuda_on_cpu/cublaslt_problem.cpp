#include "dev/cuda_on_cpu/cublaslt_problem.h"

#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace cuda_on_cpu {

namespace {

// DGELU alone stores no bias gradient, BGRADB alone does nothing else.
constexpr uint32_t kBias = 4, kGelu = 32, kDerivative = 64, kAux = 128, kSums = CUBLASLT_EPILOGUE_BGRADB;
constexpr uint32_t kKnown[] = {CUBLASLT_EPILOGUE_DEFAULT,   CUBLASLT_EPILOGUE_BIAS,     CUBLASLT_EPILOGUE_GELU,
                               CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                               CUBLASLT_EPILOGUE_DGELU,     CUBLASLT_EPILOGUE_BGRADB};

float load(const void* p, int64_t i, int type) {
    if (type == CUDA_R_32F) return static_cast<const float*>(p)[i];
    return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
}

/// As tensor cores read an fp32 number: to the nearest of 10 bits behind the point, halves away from 0.
float to_tf32(float x) {
    if (!std::isfinite(x)) return x;
    return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 0x1000u) & ~uint32_t{0x1fff});
}

void store(void* p, int64_t i, int type, float value) {
    if (type == CUDA_R_32F) {
        static_cast<float*>(p)[i] = value;
    } else {
        static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16(value);
    }
}

// The tanh form, like cuBLASLt's.
constexpr float kGeluScale = 0.7978845608028654f, kGeluCube = 0.044715f;
float gelu(float x) { return 0.5f * x * (1.0f + std::tanh(kGeluScale * (x + kGeluCube * x * x * x))); }
float gelu_derivative(float x) {
    const float t = std::tanh(kGeluScale * (x + kGeluCube * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kGeluScale * (1.0f + 3.0f * kGeluCube * x * x);
}

int bias_type(const Problem& p) { return p.description.bias_type >= 0 ? p.description.bias_type : p.d.type; }

// alpha·op(A)·op(B) of one batch, column by column; the innermost loop runs down a column and vectorises.
std::vector<float> product(const Problem& p, const Operands& x, int64_t batch) {
    const int64_t M = p.m(), N = p.n(), K = p.k();
    const bool a_as_is = p.description.transpose_a == CUBLAS_OP_N, b_as_is = p.description.transpose_b == CUBLAS_OP_N;
    const bool rounds = p.description.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && p.a.type == CUDA_R_32F;
    const auto element = [rounds](const void* from, int64_t i, int type) {
        const float x = load(from, i, type);
        return rounds ? to_tf32(x) : x;
    };
    std::vector<float> a(M * K), result(M * N), part(x.sums > 1 ? M : 0);
    for (int64_t k = 0; k < K; ++k) {
        for (int64_t m = 0; m < M; ++m) {
            const int64_t at = a_as_is ? p.a.at(m, k) : p.a.at(k, m);
            a[k * M + m] = element(x.a, batch * p.a.batch_stride + at, p.a.type);
        }
    }
    for (int64_t n = 0; n < N; ++n) {
        for (int sum = 0; sum < x.sums; ++sum) {
            float* const column = sum == 0 ? &result[n * M] : part.data();
            std::fill_n(column, M, 0.0f);
            for (int64_t k = sum; k < K; k += x.sums) {
                const int64_t at = b_as_is ? p.b.at(k, n) : p.b.at(n, k);
                const float factor = element(x.b, batch * p.b.batch_stride + at, p.b.type);
                const float* const from = &a[k * M];
                for (int64_t m = 0; m < M; ++m) column[m] += from[m] * factor;
            }
            for (int64_t m = 0; sum > 0 && m < M; ++m) result[n * M + m] += part[m];
        }
    }
    return result;
}

// The row sums of op(B), of D's type.
void store_sums_of_b(const Problem& p, const Operands& x) {
    const bool as_is = p.description.transpose_b == CUBLAS_OP_N;
    for (int64_t n = 0; n < p.n(); ++n) {
        float sum = 0;
        for (int64_t k = 0; k < p.k(); ++k) sum += load(x.b, as_is ? p.b.at(k, n) : p.b.at(n, k), p.b.type);
        store(p.description.bias, n, p.d.type, sum);
    }
    race::written(p.description.bias, static_cast<size_t>(p.n() * size_of(p.d.type)));
}

// What the documentation says of each epilogue, and what is known of it besides.
cublasStatus_t check_epilogue(const Problem& p) {
    const Description& d = p.description;
    if (d.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_SUCCESS;
    const bool known = std::find(std::begin(kKnown), std::end(kKnown), d.epilogue) != std::end(kKnown);
    if (!known || p.d.order != CUBLASLT_ORDER_COL) return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((p.has(kBias) || p.has(kSums)) && bias_type(p) != static_cast<int>(p.d.type)) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (p.has(kSums) && (!d.bias || p.d.batch_count > 1)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!p.has(kAux)) return CUBLAS_STATUS_SUCCESS;
    if (d.aux_type >= 0 && d.aux_type != static_cast<int>(p.d.type)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.has(kDerivative) && p.d.type != CUDA_R_16BF) return CUBLAS_STATUS_NOT_SUPPORTED;
    const bool fits = d.aux && d.aux_leading >= p.m() && d.aux_leading % 8 == 0;
    const bool aligned = reinterpret_cast<uintptr_t>(d.aux) % 16 == 0;
    return fits && aligned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

size_t aux_bytes(const Problem& p) {
    return static_cast<size_t>(((p.n() - 1) * p.description.aux_leading + p.m()) * size_of(p.d.type));
}

}  // namespace

int64_t size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

cublasStatus_t check(const Problem& p) {
    const Description& d = p.description;
    const bool compute = d.compute == CUBLAS_COMPUTE_32F || d.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                         d.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (!compute || d.scale != CUDA_R_32F || d.pointer_mode != CUBLASLT_POINTER_MODE_HOST) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    for (const Layout* layout : {&p.a, &p.b, &p.c, &p.d}) {
        if (layout->type != CUDA_R_32F && layout->type != CUDA_R_16BF) return CUBLAS_STATUS_NOT_SUPPORTED;
        if (layout->rows <= 0 || layout->columns <= 0 || layout->leading < layout->line_length()) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        if (layout->batch_count != p.d.batch_count) return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool types =
        p.a.type == p.b.type && p.c.type == p.d.type && (p.a.type == CUDA_R_16BF || p.d.type == CUDA_R_32F);
    if (!types) return CUBLAS_STATUS_NOT_SUPPORTED;
    const bool a_as_is = d.transpose_a == CUBLAS_OP_N, b_as_is = d.transpose_b == CUBLAS_OP_N;
    const int64_t a_rows = a_as_is ? p.a.rows : p.a.columns, b_rows = b_as_is ? p.b.rows : p.b.columns;
    const int64_t b_columns = b_as_is ? p.b.columns : p.b.rows;
    if (a_rows != p.m() || b_rows != p.k() || b_columns != p.n() || p.c.rows != p.m() || p.c.columns != p.n()) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    return check_epilogue(p);
}

cublasStatus_t check_epilogue_pointers(const Problem& p) {
    if (p.description.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_SUCCESS;
    const auto item = static_cast<size_t>(size_of(p.d.type));
    const auto numbers = static_cast<size_t>(p.has(kSums) ? p.n() : p.m());
    if ((p.has(kBias) || p.has(kSums)) && !is_device_memory(p.description.bias, numbers * item)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool lacks_aux = p.has(kAux) && !is_device_memory(p.description.aux, aux_bytes(p));
    return lacks_aux ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}

void check_epilogue_written(const Problem& p) {
    if (!p.has(kDerivative) || race::is_written(p.description.aux, aux_bytes(p))) return;
    report(cudaErrorIllegalAddress, format("read of unwritten memory: the auxiliary matrix of cublasLtMatmul at %p",
                                           static_cast<const void*>(p.description.aux)));
}

uint64_t hash_of(const Problem& p) {
    uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&hash](int64_t value) {
        hash = (hash ^ static_cast<uint64_t>(value)) * 0x100000001b3 ^ hash >> 29;
    };
    for (const Layout* layout : {&p.a, &p.b, &p.c, &p.d}) {
        for (const int64_t value : {int64_t{layout->type}, layout->rows, layout->columns, layout->leading,
                                    int64_t{layout->order}, int64_t{layout->batch_count}, layout->batch_stride}) {
            add(value);
        }
    }
    add(p.description.compute);
    add(p.description.transpose_a);
    add(p.description.transpose_b);
    add(p.description.epilogue);
    return hash;
}

void multiply(const Problem& p, const Operands& x) {
    const Description& d = p.description;
    const int type = p.d.type;
    const bool epilogue = d.epilogue != CUBLASLT_EPILOGUE_DEFAULT;
    if (p.has(kSums)) store_sums_of_b(p, x);
    for (int64_t batch = 0; batch < p.d.batch_count; ++batch) {
        const std::vector<float> products = product(p, x, batch);
        for (int64_t n = 0; n < p.n(); ++n) {
            for (int64_t m = 0; m < p.m(); ++m) {
                float value = x.alpha * products[n * p.m() + m];
                if (x.beta != 0.0f) value += x.beta * load(x.c, batch * p.c.batch_stride + p.c.at(m, n), type);
                if (epilogue && p.has(kBias)) value += load(d.bias, m, type);
                if (epilogue && p.has(kDerivative)) value *= gelu_derivative(load(d.aux, n * d.aux_leading + m, type));
                if (epilogue && p.has(kGelu)) {
                    if (p.has(kAux)) store(d.aux, n * d.aux_leading + m, type, value);
                    value = gelu(value);
                }
                store(x.d, batch * p.d.batch_stride + p.d.at(m, n), type, value);
            }
        }
    }
    if (epilogue && p.has(kGelu) && p.has(kAux)) {
        for (int64_t n = 0; n < p.n(); ++n) {
            race::written(static_cast<char*>(d.aux) + n * d.aux_leading * size_of(p.d.type),
                          static_cast<size_t>(p.m() * size_of(p.d.type)));
        }
    }
}

}  // namespace cuda_on_cpu
