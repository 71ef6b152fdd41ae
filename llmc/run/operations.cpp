// The executor's operations: from a step's operands to views of the arena, and the call of the backend.
#include "llmc/base/error.h"
#include "llmc/plan/communicate.h"
#include "llmc/run/executor.h"
#include "llmc/run/fusion.h"

#include <algorithm>

namespace llmc {

struct Executor::Views {
    Tensor in, residual, out, stat0, stat1, d_out, d_in, tokens, logits, losses, documents, mask_rows, rows, workspace;
    Tensor weight, bias, d_weight, d_bias;
    RowRange range;  ///< Tokens.
    bool adds_gradients = false;
};

/// Nothing of evaluation's steps, which are told no rows.
Dropout Executor::dropout_of(const Step& step, const Views& v) {
    if (!v.mask_rows) return {};
    const float p = step.op == OpKind::Dropout ? model_.dropout : model_.lora.dropout;
    const OpRow* const row = row_of(step);
    const int site = row == nullptr ? static_cast<int>(DropoutSite::Embedding) : row->dropout_site;
    return {p, optimizer_.seed, std::max<int32_t>(0, step.layer), site, v.mask_rows};
}

/// Of an operation of layers: its tile, or all of this run.
RowRange Executor::tokens_of(const Step& step) const {
    return step.is_of_tile() ? RowRange{step.first_token, step.tokens} : RowRange{0, rows_};
}

/// Block after block of the tokens of a step whose rows do not depend on each other: what a tile of several blocks
/// adds up is added up in the same order whatever the tiles are.
void Executor::for_each_block(const Step& step, const std::function<void(RowRange tokens)>& run) {
    const RowRange all = tokens_of(step);
    const bool in_blocks = plan_.block_tokens > 0 && is_token_wise(step.op);
    const int64_t most = in_blocks ? plan_.block_tokens : all.count;
    for (int64_t done = 0; done < all.count; done += most) {
        run({all.first + done, std::min(most, all.count - done)});
    }
}

/// Of a step's tokens those given.
Executor::Views Executor::views_of(const Step& step, RowRange tokens) {
    const RowRange all = tokens_of(step);
    const auto view = [&](Slot slot) {
        const int32_t id = step.operand(slot);
        const Tensor whole = touched(id);
        if (!whole) return whole;
        RowRange rows = {0, whole.shape[0]};
        if (step.is_of_chunk()) {
            rows = rows_of(step, slot, whole.shape[0], plan_.tensor(id).is_tile);
        } else if (is_token_wise(step.op)) {
            rows = {tokens.first - (plan_.tensor(id).is_tile ? all.first : 0), tokens.count};
        }
        return rows.count == whole.shape[0] ? whole : whole.row_range(rows.first, rows.count);
    };
    Views v;
    v.range = tokens;
    v.adds_gradients = adds(step, turn_) || tokens.first > all.first;
    v.in = view(Slot::In);
    v.residual = view(Slot::Residual);
    v.out = view(Slot::Out);
    v.stat0 = view(Slot::Stat0);
    v.stat1 = view(Slot::Stat1);
    v.d_out = view(Slot::DOut);
    v.d_in = view(Slot::DIn);
    v.tokens = view(Slot::Tokens);
    v.logits = view(Slot::Logits);
    v.losses = view(Slot::Losses);
    v.documents = view(Slot::Documents);
    v.mask_rows = view(Slot::MaskRows);
    v.rows = touched(step.operand(Slot::Rows));
    v.workspace = touched(step.operand(Slot::Workspace));
    const auto [weight, bias] = parameters_of(model_, step);
    v.weight = parameter(step, weight, Slot::Weight);
    v.bias = parameter(step, bias, Slot::Bias);
    v.d_weight = gradient(step, weight);
    v.d_bias = gradient(step, bias);
    return v;
}

void Executor::run_operation(const Step& step) {
    for_each_block(step, [&](RowRange tokens) {
        const Views v = views_of(step, tokens);
        step.pass == Pass::Forward ? run_forward(step, v) : run_backward(step, v);
    });
}

void Executor::run_fused(const Step& step) {
    switch (plan_.fusions[static_cast<size_t>(step.fusion)].fusion) {
        case Fusion::ActivationAndWeightGradient: {
            const Step &activation = step.parts[0], &matmul = step.parts[1];
            return for_each_block(matmul, [&](RowRange tokens) {
                const Views act = views_of(activation, tokens), v = views_of(matmul, tokens);
                backend_.activation_and_weight_gradient({activation_of(activation.op), act.d_in, act.d_out, act.in,
                                                         v.d_weight, v.d_bias, v.adds_gradients, v.in, act.workspace});
            });
        }
        case Fusion::InputGradientAndActivation: {
            const Step &matmul = step.parts[0], &activation = step.parts[1];
            return for_each_block(matmul, [&](RowRange tokens) {
                const Views v = views_of(matmul, tokens), act = views_of(activation, tokens);
                backend_.input_gradient_and_activation(activation_of(activation.op), act.d_in, act.d_out, v.d_out,
                                                       v.weight, act.in, v.workspace);
            });
        }
        case Fusion::WeightAndBiasGradient: {
            const Step& matmul = step.parts[0];
            return for_each_block(matmul, [&](RowRange tokens) {
                const Views v = views_of(matmul, tokens);
                if (matmul.rope) rotate(matmul, v.d_out, v, /*inverse=*/true);
                backend_.weight_and_bias_gradient(v.d_weight, v.d_bias, v.adds_gradients, v.d_out, v.in, v.workspace);
            });
        }
        case Fusion::MatmulAndActivation: {
            const Step &matmul = step.parts[0], &activation = step.parts[1];
            return for_each_block(matmul, [&](RowRange tokens) {
                const Views v = views_of(matmul, tokens), act = views_of(activation, tokens);
                backend_.matmul_and_activation(activation_of(activation.op), act.out, v.out, v.in, v.weight, v.bias,
                                               v.workspace);
            });
        }
    }
}

namespace {

const AdapterShape& adapter_shape(const Model& model, const Step& step) {
    return model.adapters[static_cast<size_t>(model.block[static_cast<size_t>(step.row)].adapter)];
}

}  // namespace

/// Sequences of the tokens at hand: those of the plan, or where these are others, one of all of them.
AttentionShape Executor::shape_of(const Step& step, const Views& v) const {
    const ModelConfig& config = model_.config;
    const bool whole = v.range.count == plan_.shape.N();
    AttentionShape shape = {whole ? plan_.shape.B : 1, whole ? plan_.shape.T : v.range.count, config.NH, config.NKV,
                            config.HD};
    shape.documents = v.documents;
    if (step.layer < 0) return shape;
    shape.window = config.window_of(step.layer);
    shape.scale = config.score_scale(step.layer);
    return shape;
}

FirstPosition Executor::first_position() const { return {0, cache_rows_ > 0 ? state_.position() : Tensor()}; }

/// Of the tokens at hand.
RopeRows Executor::rope_rows(const Step& step, const Views& v) const {
    RopeRows rows = {state_.rope_table(), shape_of(step, v), first_position(), v.range.first};
    rows.shape.T = rows_ == plan_.shape.N() ? plan_.shape.T : rows_;
    return rows;
}

void Executor::rotate(const Step& step, const Tensor& qkv, const Views& v, bool inverse) {
    backend_.rope_rows(qkv, rope_rows(step, v), inverse);
}

void Executor::run_forward(const Step& step, const Views& v) {
    const AttentionShape shape = shape_of(step, v);
    const auto epsilon = static_cast<float>(model_.config.norm_epsilon);
    const FirstPosition first = first_position();
    switch (step.op) {
        case OpKind::Embedding:
            return backend_.embedding_forward(v.out, v.tokens, v.weight, v.bias, shape.T, first, v.documents);
        case OpKind::LayerNorm:
            return backend_.layernorm_forward(v.out, v.stat0, v.stat1, v.in, v.weight, v.bias, epsilon);
        case OpKind::RmsNorm: return backend_.rmsnorm_forward(v.out, v.stat1, v.in, v.weight, epsilon);
        case OpKind::HeadNorm:
            backend_.head_norm_forward(v.out, v.stat1, v.in, v.weight, v.bias, shape, epsilon);
            if (step.rope) rotate(step, v.out, v, /*inverse=*/false);
            return;
        case OpKind::Matmul:
            if (step.rope) {
                CHECK(!v.residual, "a projection to rotate with a residual");
                return backend_.matmul_and_rope(v.out, v.in, v.weight, v.bias, v.workspace, rope_rows(step, v));
            }
            return backend_.matmul_forward(v.out, v.in, v.weight, v.bias, v.residual, v.workspace);
        case OpKind::Attention:
            if (v.stat1) return backend_.attention_cached(v.out, v.stat0, v.stat1, v.in, shape, first, v.workspace);
            return backend_.attention_forward(v.out, v.stat0, v.in, shape, v.workspace);
        case OpKind::Gelu: return backend_.gelu_forward(v.out, v.in);
        case OpKind::GeluExact: return backend_.gelu_exact_forward(v.out, v.in);
        case OpKind::Swiglu: return backend_.swiglu_forward(v.out, v.in);
        case OpKind::ScoredRows: return backend_.gather_rows(v.out, v.in, v.rows);
        case OpKind::Classifier: return backend_.matmul_forward(v.logits, v.in, v.weight, {}, {}, v.workspace);
        case OpKind::CrossEntropy: return backend_.cross_entropy(v.losses, v.logits, v.tokens, model_.config.V, {});
        case OpKind::LossSum:
            return backend_.accumulate_loss(state_.loss_sum(), adds(step, turn_),
                                            v.losses.row_range(0, rows_of_head()));
        case OpKind::AdapterDown:
            return backend_.adapter_down_forward(v.out, v.in, v.weight, adapter_shape(model_, step),
                                                 dropout_of(step, v), v.workspace);
        case OpKind::AdapterUp:
            backend_.adapter_up_forward(v.out, v.in, v.weight, adapter_shape(model_, step), v.workspace);
            if (step.rope) rotate(step, v.out, v, /*inverse=*/false);
            return;
        case OpKind::Dropout: return backend_.dropout(v.out, v.in, v.residual, dropout_of(step, v));
    }
    CHECK(false, "no forward", name_of(step.op));
}

void Executor::run_backward(const Step& step, const Views& v) {
    const AttentionShape shape = shape_of(step, v);
    const bool adds_gradients = v.adds_gradients;
    switch (step.op) {
        case OpKind::Embedding:
            return backend_.embedding_backward(v.d_weight, v.d_bias, adds_gradients, v.d_out, v.tokens, shape.T,
                                               v.documents, v.workspace);
        case OpKind::LayerNorm:
            return backend_.layernorm_backward(v.d_in, step.accumulate, v.d_weight, v.d_bias, adds_gradients, v.d_out,
                                               v.in, v.stat0, v.stat1, v.weight, v.workspace);
        case OpKind::RmsNorm:
            return backend_.rmsnorm_backward(v.d_in, step.accumulate, v.d_weight, adds_gradients, v.d_out, v.in,
                                             v.stat1, v.weight, v.workspace);
        case OpKind::HeadNorm:
            if (step.rope) rotate(step, v.d_out, v, /*inverse=*/true);
            return backend_.head_norm_backward(v.d_in, v.d_weight, v.d_bias, adds_gradients, v.d_out, v.in, v.stat1,
                                               v.weight, v.bias, shape, v.workspace);
        case OpKind::Matmul:
            if (step.rope) rotate(step, v.d_out, v, /*inverse=*/true);
            if (step.pass == Pass::BackwardInput) {
                return backend_.matmul_backward_input(v.d_in, v.d_out, v.weight, v.workspace);
            }
            return backend_.matmul_backward_weight(v.d_weight, v.d_bias, adds_gradients, v.d_out, v.in, v.workspace);
        case OpKind::Attention:
            return backend_.attention_backward(v.d_in, v.d_out, v.in, v.out, v.stat0, shape, v.workspace);
        case OpKind::Gelu: return backend_.gelu_backward(v.d_in, v.d_out, v.in);
        case OpKind::GeluExact: return backend_.gelu_exact_backward(v.d_in, v.d_out, v.in);
        case OpKind::Swiglu: return backend_.swiglu_backward(v.d_in, v.d_out, v.in);
        case OpKind::ScoredRows: return backend_.gather_rows(v.d_in, v.d_out, v.rows);
        case OpKind::Classifier:
            if (step.pass == Pass::BackwardInput) {
                return backend_.matmul_backward_input(v.d_in, v.logits, v.weight, v.workspace);
            }
            return backend_.matmul_backward_weight(v.d_weight, {}, adds_gradients, v.logits, v.in, v.workspace);
        case OpKind::CrossEntropy:
            return backend_.cross_entropy(v.losses, v.logits, v.tokens, model_.config.V, state_.loss_scale());
        case OpKind::AdapterDown: {
            const AdapterShape& adapter = adapter_shape(model_, step);
            if (step.pass == Pass::BackwardInput) {
                return backend_.adapter_down_backward_input(v.d_in, v.d_out, v.weight, adapter, dropout_of(step, v),
                                                            v.workspace);
            }
            return backend_.adapter_down_backward_weight(v.d_weight, adds_gradients, v.d_out, v.in, adapter,
                                                         dropout_of(step, v), v.workspace);
        }
        case OpKind::AdapterUp: {
            const AdapterShape& adapter = adapter_shape(model_, step);
            if (step.rope) rotate(step, v.d_out, v, /*inverse=*/true);
            if (step.pass == Pass::BackwardInput) {
                return backend_.adapter_up_backward_input(v.d_in, v.d_out, v.weight, adapter, v.workspace);
            }
            return backend_.adapter_up_backward_weight(v.d_weight, adds_gradients, v.d_out, v.in, adapter, v.workspace);
        }
        case OpKind::Dropout: return backend_.dropout(v.d_in, v.d_out, {}, dropout_of(step, v));
        case OpKind::LossSum: break;
    }
    CHECK(false, "no backward", name_of(step.op));
}

}  // namespace llmc
