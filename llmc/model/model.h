// Model: an architecture as a table. Three kinds of rows: parameters (name, shape, offset in the flat buffers, decay,
// initialisation), activations of one layer (name, columns, type), and operations of one layer (kind, operand slots).
// transformer.cpp fills it from the features; plans, executor, optimiser, initialisation and checkpoints iterate it.
// Nothing else knows an architecture.
#pragma once

#include "llmc/base/adapter.h"
#include "llmc/model/config.h"
#include "llmc/model/lora_spec.h"
#include "llmc/model/op.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

enum class Init : uint8_t { Zeros, Ones, Normal, Uniform };

/// One parameter tensor. Offsets and counts are in elements of the flat buffers: trainable rows lie in parameters,
/// gradients and moments, frozen ones in a buffer of their own (plan/places.h), whose format is how they are stored.
struct ParameterRow {
    std::string name;       ///< "wte", "layers.3.qkv_weight", ...
    int64_t rows = 0;       ///< As stored; the embedding and the head have Vp rows.
    int64_t cols = 1;       ///< 1 for vectors.
    int64_t used_rows = 0;  ///< Rows that are real parameters: V where rows is Vp, else rows.
    int64_t offset = 0;     ///< Among the trainable rows, or among the frozen ones.
    bool decay = false;     ///< Weight decay applies: tensors with two dimensions.
    Init init = Init::Zeros;
    float stddev = 0;       ///< Of Init::Normal; of Init::Uniform the largest magnitude.
    bool trainable = true;  ///< Otherwise frozen: no gradient, no moments, never changed. See trainable.h.
    /// Rows of the projections that it is made of, one after the other: elsewhere they are tensors of their own, and
    /// are quantised each by itself. Empty: it is one.
    std::vector<int64_t> parts = {};
    int64_t count() const { return rows * cols; }
};

/// What an activation is to the recomputation policies.
enum class ActivationRole : uint8_t {
    LayerInput,   ///< The residual stream at a block boundary. Always slot 0.
    MidResidual,  ///< The residual stream between attention and MLP.
    NormOut,
    Stat,  ///< Saved statistics, fp32.
    MatmulOut,
    PreActivation,  ///< Output of the matmul before GELU or SwiGLU.
    AttentionOut,
    AttentionStat,  ///< Log-sum-exp, fp32.
    ActivationOut,  ///< Output of GELU or SwiGLU.
};

/// One activation of a layer: (N, columns).
struct ActivationRow {
    std::string name;
    int64_t columns = 0;
    ActivationRole role = ActivationRole::MatmulOut;
    bool is_stat() const { return role == ActivationRole::Stat || role == ActivationRole::AttentionStat; }
    /// Part of the residual stream: all such tensors of all layers share one gradient, d_residual.
    bool is_residual() const { return role == ActivationRole::LayerInput || role == ActivationRole::MidResidual; }
};

constexpr int kNone = -1;           ///< An absent operand.
constexpr int kLayerInput = 0;      ///< Slot of the block's input.
constexpr int kLayerOutput = 1000;  ///< "Slot" of the block's output: the next layer's input.

/// One operation of a block. `in`, `residual`, `out`, `stat0`, `stat1` are activation slots; `weight` and `bias` count
/// the layer's parameter rows.
struct OpRow {
    OpKind kind = OpKind::Matmul;
    std::string name;
    int in = kNone;
    int residual = kNone;
    int out = kNone;
    int stat0 = kNone;
    int stat1 = kNone;
    int weight = kNone;
    int bias = kNone;
    bool rope = false;
    int adapter = kNone;       ///< AdapterDown, AdapterUp: of Model::adapters.
    int dropout_site = kNone;  ///< Dropout, AdapterDown: where masks are drawn (base/dropout.h), an adapter's first.
};

struct Model {
    ModelConfig config;

    std::vector<ParameterRow> parameters;  ///< wte (, wpe), layer 0, layer 1, ..., final norm (, lm_head).
    int first_layer_parameter = 0;         ///< Index of layer 0's first row.
    int parameters_per_layer = 0;
    /// Elements of a flat buffer, alignment gaps included: of trainable rows, and of frozen ones.
    int64_t parameter_elements = 0, frozen_elements = 0;

    std::vector<ActivationRow> activations;  ///< Of one layer, by slot.
    std::vector<OpRow> block;                ///< In forward order; the last writes kLayerOutput.
    float dropout = 0;                       ///< Probability; see with_dropout() (dropout.h).
    LoraSpec lora;                           ///< What with_lora() (lora.h) has added ...
    std::vector<AdapterShape> adapters;      ///< ... for the weights that have adapters.
    OpKind norm = OpKind::LayerNorm;         ///< Of the final norm.

    int wte = kNone, wpe = kNone, lnf_weight = kNone, lnf_bias = kNone, head = kNone;  ///< Indices into `parameters`.

    /// Index into `parameters` of a block row's operand in a layer.
    int parameter_index(int layer, int row_operand) const {
        return row_operand == kNone ? kNone : first_layer_parameter + layer * parameters_per_layer + row_operand;
    }
    /// Parameters as people count them: no padding rows, no alignment gaps, tied head once.
    int64_t parameter_count() const;
    /// Those of them that train.
    int64_t trainable_count() const;
    bool has_frozen() const { return frozen_elements > 0; }
    /// Whether training draws masks for operations of this kind.
    bool drops(OpKind kind) const {
        return (kind == OpKind::Dropout && dropout > 0) || (kind == OpKind::AdapterDown && lora.dropout > 0);
    }
    /// Whether there is such a parameter row, and it is trainable.
    bool trains(int parameter) const {
        return parameter != kNone && parameters[static_cast<size_t>(parameter)].trainable;
    }
    /// Whether it is a matrix of a layer: the linear layers that quantisation and adapters are about.
    bool is_layer_matrix(int parameter) const {
        const int in_layers = parameter - first_layer_parameter;
        return in_layers >= 0 && in_layers < parameters_per_layer * config.L &&
               parameters[static_cast<size_t>(parameter)].cols > 1;
    }
    /// The row of `block` that writes an activation slot; kNone for the layer's input.
    int producer(int slot) const;
    /// The parameter row of that name, or kNone.
    int find_parameter(const std::string& name) const;
};

/// The table of a validated configuration; everything trains.
Model make_model(const ModelConfig& config);

/// Gives every row its offset, after those before it that are trainable or frozen as it is.
void lay_out_parameters(Model* model);

/// One call of an operation: of a row of the block, or outside the blocks (row == nullptr).
struct OpCall {
    OpKind kind = OpKind::Matmul;
    Pass pass = Pass::Forward;
    const OpRow* row = nullptr;
    int64_t tokens = 0;
    int attention_backward_products = 5;  ///< What the kernel really runs; see DeviceInfo.
    bool only_bias = false;               ///< Pass::BackwardWeight without the weight's product.
};
/// Its work in sequences of T tokens; `item` = bytes of an activation element.
OpCost op_cost(const Model& model, const OpCall& call, int64_t T, int64_t item);

/// FLOPs per token by the usual convention of model FLOPs utilisation: 6 P + 6 L C T, with P the parameters without
/// learned positions, attention causal and within its windows, no credit for work done twice. Of the 6 per parameter,
/// 2 are the forward, 2 the gradient of its operation's input and 2 its own; a frozen one has no credit for its own,
/// and what lies before the first trainable row, attention included, only for its forward.
double model_flops_per_token(const Model& model, int64_t T);

}  // namespace llmc
