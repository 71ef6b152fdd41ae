// The fixed list of operations a model is made of, and what each one reads in its backward pass. A model is a table of
// rows (model.h); every row is one of these kinds with its operands in fixed slots. There is no general graph.
#pragma once

#include "llmc/base/dtype.h"

#include <cstdint>
#include <string_view>

namespace llmc {

enum class OpKind : uint8_t {
    Embedding,   ///< out = wte[token] (+ wpe[position])
    LayerNorm,   ///< out, stat0 = mean, stat1 = rstd
    RmsNorm,     ///< out, stat1 = rstd
    Matmul,      ///< out = (residual +) in * weight^T (+ bias), then RoPE on it if the row says so
    Attention,   ///< out, stat0 = log-sum-exp
    Gelu,        ///< out = gelu(in)
    Swiglu,      ///< out = silu(gate) * up
    Classifier,  ///< losses, and for training d_in and the head's gradient, in chunks of tokens
};

std::string_view name_of(OpKind kind);

/// Which forward operands the backward of an operation reads. Everything the backward reads and the policy did not keep
/// has to be brought back, so this table is what the plans are generated from.
struct BackwardReads {
    bool in, out, stats;
};
constexpr BackwardReads backward_reads(OpKind kind) {
    switch (kind) {
        case OpKind::LayerNorm:
        case OpKind::RmsNorm: return {.in = true, .out = false, .stats = true};
        case OpKind::Matmul:
        case OpKind::Gelu:
        case OpKind::Swiglu: return {.in = true, .out = false, .stats = false};
        case OpKind::Attention: return {.in = true, .out = true, .stats = true};
        case OpKind::Embedding:
        case OpKind::Classifier: return {.in = false, .out = false, .stats = false};
    }
    return {};
}

/// Sizes of one micro-batch.
struct BatchShape {
    int64_t B = 0, T = 0;
    int64_t N() const { return B * T; }
    bool operator==(const BatchShape&) const = default;
};

/// Work of one call: floating-point operations of matrix products (attention counted causal, as half), and bytes that
/// must at least move through memory.
struct OpCost {
    double flops = 0;
    double bytes = 0;
};

}  // namespace llmc
