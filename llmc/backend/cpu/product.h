// Matrix products of our own, for one thread and one block of the output: packed operands, a register block
// (product_tile.h), bias and residual added where the sums leave the registers. product_rule.h says where they are used
// and where a library's products (gemm.h) are; matmul.cpp is the loop over blocks.
#pragma once

#include "llmc/backend/cpu/gemm.h"
#include "llmc/backend/cpu/product_rule.h"

#include <cstdint>

namespace llmc::cpu {

/// What a block of a product reads and writes. `a`, `b` and `c` as in GemmSpec.
struct ProductOperands {
    const void *a, *b;
    void* c;
    const void* bias = nullptr;      ///< (n), of type `ab`; null if the spec has none.
    const void* residual = nullptr;  ///< (m, n) of type `c`, `ldc` from row to row, added to the sums. May be `c`.
};

/// C (m, n) = or += op(A) * op(B) + bias + residual. The order in which an element is summed depends on `k` and on the
/// rule alone: neither on `m` and `n`, nor on the element's place, so that cutting C into blocks changes no bit.
/// `scratch`: product_scratch_bytes(), 64-byte aligned. `rule.kind` is not Library.
void run_product(const GemmSpec& spec, const ProductRule& rule, const ProductOperands& operands, void* scratch);

int64_t product_scratch_bytes(const GemmSpec& spec, const ProductRule& rule);

/// Whether this build has bf16 dot products.
bool product_has_bf16_dots();

}  // namespace llmc::cpu
