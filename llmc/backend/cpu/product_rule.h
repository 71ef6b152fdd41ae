// Which kernels form the sums of matrix products, and in which order: what decides the bits of a product on the CPU.
// That comes from a committed table by family of processors and instruction set, never from a measurement at run time;
// --cpu-products takes the name of another row, and a run records the row that it began with.
#pragma once

#include "llmc/base/dtype.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace llmc::cpu {

enum class ProductKind {
    Library,  ///< gemm.h.
    Fp32,     ///< Our own, of fp32 numbers; bf16 operands become fp32 while they are packed.
    Bf16,     ///< Our own, of bf16 pairs by the processor's bf16 dot products; bf16 operands only.
};

struct ProductRule {
    ProductKind kind = ProductKind::Library;
    /// Units of the summed dimension (one fp32 number, two bf16 numbers) that are added up before they join the rest.
    int64_t depth = 0;
};

struct RulesOfType {
    ProductRule forward, backward_input, backward_weight;
};

/// A row of the table.
struct ProductRules {
    const char* name;
    const char* meant_for;
    RulesOfType fp32, bf16;
    const RulesOfType& of(DType type) const { return type == DType::BF16 ? bf16 : fp32; }
};

std::span<const ProductRules> product_table();

/// The row for this processor.
const ProductRules& rules_of_this_processor();

/// The row of this name; "auto" is that of this processor. A name that no row has, or one whose products this processor
/// or this build cannot form, is an Error.
const ProductRules& product_rules(std::string_view name);

/// Whether product_rules() has such a row for this processor and this build.
bool can_form_products(std::string_view name);

}  // namespace llmc::cpu
