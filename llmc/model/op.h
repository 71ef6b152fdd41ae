// The fixed list of operations a model is made of, and one row of facts for each: what its backward reads, what it does
// with parameters, what may work in place, what it computes and moves. A model is a table of rows (model.h); every row
// is one of these kinds with its operands in fixed slots. There is no general graph.
#pragma once

#include "llmc/base/dtype.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmc {

enum class OpKind : uint8_t {
    Embedding,     ///< out = wte[token] (+ wpe[position])
    LayerNorm,     ///< out, stat0 = mean, stat1 = rstd
    RmsNorm,       ///< out, stat1 = rstd
    HeadNorm,      ///< out = in with each query and key head normalised (weight: queries', bias: keys'), then RoPE on
                   ///< it if the row says so; stat1 = rstd of each head
    Matmul,        ///< out = (residual +) in * weight^T (+ bias), then RoPE on it if the row says so
    Attention,     ///< out, stat0 = log-sum-exp
    Gelu,          ///< out = gelu(in), the tanh form
    GeluExact,     ///< out = gelu(in)
    Swiglu,        ///< out = silu(gate) * up
    ScoredRows,    ///< out = the rows of in whose targets count, in order; backward: each to its place, others 0
    Classifier,    ///< logits of some tokens = in * head^T
    CrossEntropy,  ///< losses of these tokens; backward: and in place of the logits their gradient
    LossSum,       ///< the losses join the sum of the update
    AdapterDown,   ///< z = in * A^T, fp32
    AdapterUp,     ///< out = residual + scale * in * B^T, in the residual's place; then RoPE on it if the row says so
    Dropout,       ///< out = (residual +) in with some elements 0 and the others scaled (base/dropout.h)
};
constexpr int kNumOpKinds = 16;

/// What a step does with its operation.
enum class Pass : uint8_t {
    Forward,
    Backward,        ///< Gradient of the input (and of small parameters: norms, embeddings).
    BackwardWeight,  ///< Of a split backward: gradients of weight and bias. Comes first, so that `in` can die early.
    BackwardInput,   ///< Of a split backward: gradient of the input.
};
constexpr int kNumPasses = 4;

/// What one pass of an operation does, beyond what its kind says.
struct PassFacts {
    bool reads_parameters = false;
    bool writes_gradients = false;  ///< Of parameters.
    /// Matrix products: of tokens with the weight, or for attention of queries with keys, causal.
    int products = 0;
    // How often elements of the operands move between memory and chip, at least.
    int in = 0, residual = 0, out = 0, weight = 0;  ///< In the type of activations.
    int weight_sums = 0;                            ///< In fp32: the weight's gradient.
};

/// Which forward operands the backward of an operation reads. Everything the backward reads and the policy did not keep
/// has to be brought back, so plans are generated from this.
struct BackwardReads {
    bool in = false, out = false, stats = false;
};

/// Everything about a kind that planning, pricing and running look up: a row of the table in op.cpp.
struct OpFacts {
    OpKind kind = OpKind::Matmul;
    std::string_view name;
    BackwardReads backward_reads = {};
    bool splits_backward = false;        ///< Into BackwardWeight and BackwardInput.
    bool d_in_replaces_d_out = false;    ///< The gradient of the input may take the place of that of the output.
    bool d_in_replaces_in = false;       ///< It may take that of the input, which nothing else reads any more.
    bool out_replaces_residual = false;  ///< The output takes the place of the residual, which nothing else reads.
    PassFacts passes[kNumPasses] = {};
};
const OpFacts& facts_of(OpKind kind);
inline const PassFacts& facts_of(OpKind kind, Pass pass) { return facts_of(kind).passes[static_cast<size_t>(pass)]; }
inline std::string_view name_of(OpKind kind) { return facts_of(kind).name; }

/// Whether rows of an operation of layers, or the final norm, do not depend on each other: it may have some tokens at a
/// time, and gradients of its parameters add up.
constexpr bool is_token_wise(OpKind kind) {
    switch (kind) {
        case OpKind::LayerNorm:
        case OpKind::RmsNorm:
        case OpKind::HeadNorm:
        case OpKind::Matmul:
        case OpKind::Gelu:
        case OpKind::GeluExact:
        case OpKind::Swiglu:
        case OpKind::AdapterDown:
        case OpKind::AdapterUp:
        case OpKind::Dropout: return true;
        case OpKind::Embedding:
        case OpKind::Attention:
        case OpKind::ScoredRows:
        case OpKind::Classifier:
        case OpKind::CrossEntropy:
        case OpKind::LossSum: break;
    }
    return false;
}

/// Sizes of one micro-batch, and what its sequences are.
struct BatchShape {
    int64_t B = 0, T = 0;
    bool packed = false;         ///< A sequence may hold several documents, each of which sees itself alone.
    bool partly_scored = false;  ///< Not every target counts: the head has the rows of those that do, and no others.
    int64_t N() const { return B * T; }
    bool operator==(const BatchShape&) const = default;
};

/// Work of one call: floating-point operations of matrix products (attention counted causal, as half, and within its
/// windows), and bytes that must at least move through memory. Where layers differ in their windows, their mean.
struct OpCost {
    double flops = 0;
    double bytes = 0;
};

}  // namespace llmc
