// A matrix product as cuBLASLt describes it: D = epilogue(alpha·op(A)·op(B) + beta·C).
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

int64_t size_of(cudaDataType type);

struct Layout {
    cudaDataType type;
    int64_t rows, columns, leading;
    int32_t order = CUBLASLT_ORDER_COL;
    int32_t batch_count = 1;
    int64_t batch_stride = 0;

    /// Contiguous pieces: columns, or rows if the order says so.
    int64_t lines() const { return order == CUBLASLT_ORDER_COL ? columns : rows; }
    int64_t line_length() const { return order == CUBLASLT_ORDER_COL ? rows : columns; }
    int64_t at(int64_t row, int64_t column) const {
        return order == CUBLASLT_ORDER_COL ? row + column * leading : row * leading + column;
    }
    size_t bytes() const {
        return static_cast<size_t>(((batch_count - 1) * batch_stride + (lines() - 1) * leading + line_length()) *
                                   size_of(type));
    }
};

struct Description {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
    void* bias = nullptr;
    int32_t bias_type = -1;  ///< As D, unless it is set.
    void* aux = nullptr;
    int64_t aux_leading = 0;
    int32_t aux_type = -1;
};

struct Problem {
    Description description;
    Layout a, b, c, d;
    int64_t m() const { return d.rows; }
    int64_t n() const { return d.columns; }
    int64_t k() const { return description.transpose_a == CUBLAS_OP_N ? a.columns : a.rows; }
    bool has(uint32_t bit) const { return description.epilogue & bit; }
};

struct Operands {
    float alpha, beta;
    const void *a, *b, *c;
    void* d;
    /// Of the algorithm: so many partial sums, each of every so many-th product, are added up in the end.
    int sums = 1;
};

/// Whether shapes, leading dimensions, types and epilogue fit each other, and the epilogue's operands are given and
/// aligned.
cublasStatus_t check(const Problem& problem);

/// Whether bias and auxiliary matrix are in memory of the device.
cublasStatus_t check_epilogue_pointers(const Problem& problem);

/// Reports what the epilogue reads and nobody has written.
void check_epilogue_written(const Problem& problem);

/// Of all that an algorithm depends on: shapes, layouts, types, epilogue; not the pointers.
uint64_t hash_of(const Problem& problem);

void multiply(const Problem& problem, const Operands& operands);

/// Searches for an algorithm since the program began.
uint64_t algorithm_searches();

}  // namespace cuda_on_cpu
