// Which of several ways to compute the same a device takes, where they differ in the last bits and neither the model,
// nor its shapes, nor the kind of device says it. Decided once for all ranks (train/arithmetic.h), named in the banner,
// noted in run folder and checkpoint, and kept by a resume.
#pragma once

#include "llmc/base/dtype.h"

#include <cstdint>
#include <string>

namespace llmc {

// What Arithmetic::kernels may be.
constexpr const char* kPortableKernels = "portable";  ///< Those that run on every card.
constexpr const char* kHopperKernels = "hopper";      ///< Those for compute capability 9.0, of what they take.

/// Whether attention of this type and head size has kernels for compute capability 9.0.
constexpr bool hopper_kernels_take(DType activations, int64_t HD) {
    return activations == DType::BF16 && (HD == 64 || HD == 128);
}

/// Tensor cores form half as many products of TF32 numbers as of bf16 ones, on all cards that have them.
constexpr double kTf32Operands = 2;

struct Arithmetic {
    std::string cpu_products;  ///< A CPU's matrix products: a row of backend/cpu/product_rule.h. Empty: a GPU's.
    std::string kernels;       ///< A GPU's attention, as above. Empty: a CPU's.
    bool tf32 = false;         ///< A GPU's products of fp32 numbers round them to TF32 (8 and 10 bits) first.
    bool operator==(const Arithmetic&) const = default;
};

}  // namespace llmc
