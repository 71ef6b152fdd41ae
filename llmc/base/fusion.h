// The runs of operations that a backend may run as one. What each computes, and when a backend does it, is written at
// Backend::fuses() and the operations after it; which steps of a plan they are, in run/fusion.h.
#pragma once

#include <cstdint>

namespace llmc {

enum class Fusion : uint8_t {
    /// The backward of an activation, then the weight gradient of the matmul before it, which has a bias.
    ActivationAndWeightGradient,
    /// The input gradient of a matmul, then the backward of the activation before it.
    InputGradientAndActivation,
    /// One operation, the weight gradient of a matmul with a bias: both gradients in one pass.
    WeightAndBiasGradient,
    /// A matmul, then the activation after it.
    MatmulAndActivation,
};

enum class ActivationFunction : uint8_t { Gelu, GeluExact, Swiglu };

}  // namespace llmc
