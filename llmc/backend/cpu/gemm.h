// A single-threaded GEMM on one block, from a library: oneDNN (gemm_onednn.cpp), or OpenBLAS where oneDNN is absent
// (gemm_openblas.cpp). The caller's OpenMP loop spreads blocks over threads; the library never starts threads itself,
// so the thread count cannot change a result. Kernels are created once per shape and cached.
#pragma once

#include "llmc/base/dtype.h"

#include <cstdint>

namespace llmc::cpu {

/// C (m, n) = or += op(A) (m, k) * op(B) (k, n) + bias (n). Row-major, ld* = elements from one row to the next.
struct GemmSpec {
    int64_t m = 0, n = 0, k = 0;
    int64_t lda = 0, ldb = 0, ldc = 0;
    bool transpose_a = false;  ///< A is stored (k, m).
    bool transpose_b = false;  ///< B is stored (n, k).
    bool accumulate = false;   ///< C += ...; the sum is rounded once.
    bool bias = false;         ///< A row vector (n) of type `ab` is added.
    DType ab = DType::F32;     ///< Type of A, B and the bias: fp32 or bf16.
    DType c = DType::F32;      ///< Type of C: fp32, or bf16 if `ab` is bf16.
    bool operator==(const GemmSpec&) const = default;
};

/// Whether the library of this build multiplies bf16.
bool gemm_supports_bf16();

class Gemm;

/// The kernel for this shape, created at the first request. Safe to call from several threads; keep the pointer over a
/// loop, since the look-up costs about as much as a small product.
const Gemm* find_gemm(const GemmSpec& spec);

/// Bytes of scratch memory that one concurrent run of this kernel needs. 64-byte alignment.
int64_t gemm_scratch_bytes(const Gemm* gemm);

/// Runs the kernel in the calling thread. `bias` may be null if the spec has none.
void run_gemm(const Gemm* gemm, const void* a, const void* b, void* c, const void* bias, void* scratch);

}  // namespace llmc::cpu
