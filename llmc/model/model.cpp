#include "llmc/model/model.h"

#include "llmc/base/check.h"

namespace llmc {

int64_t Model::parameter_count() const {
    int64_t count = 0;
    for (const ParameterRow& row : parameters) count += row.used_rows * row.cols;
    return count;
}

int Model::producer(int slot) const {
    for (size_t i = 0; i < block.size(); ++i) {
        const OpRow& row = block[i];
        if (row.out == slot || row.stat0 == slot || row.stat1 == slot) return static_cast<int>(i);
    }
    return kNone;
}

int Model::find_parameter(const std::string& name) const {
    for (size_t i = 0; i < parameters.size(); ++i) {
        if (parameters[i].name == name) return static_cast<int>(i);
    }
    return kNone;
}

namespace {

/// Columns of the operands of a call, and elements of its weight.
struct CallSizes {
    double in = 0, residual = 0, out = 0, weight = 0;
};

CallSizes sizes_of(const Model& model, const OpCall& call) {
    const auto C = static_cast<double>(model.config.C), Vp = static_cast<double>(model.config.Vp());
    CallSizes sizes;
    if (call.row != nullptr) {
        const auto columns = [&](int slot) {
            if (slot == kNone) return 0.0;
            return slot == kLayerOutput ? C : static_cast<double>(model.activations[static_cast<size_t>(slot)].columns);
        };
        sizes = {columns(call.row->in), columns(call.row->residual), columns(call.row->out), 0};
        if (call.row->weight != kNone) {
            const int index = model.parameter_index(0, call.row->weight);
            sizes.weight = static_cast<double>(model.parameters[static_cast<size_t>(index)].count());
        }
        return sizes;
    }
    switch (call.kind) {
        case OpKind::Classifier: return {C, 0, Vp, C * Vp};
        case OpKind::CrossEntropy: return {Vp, 0, 0, 0};
        case OpKind::LossSum: return {1, 0, 0, 0};
        default: return {C, 0, C, 0};  // Embedding and final norm work on the residual stream.
    }
}

}  // namespace

OpCost op_cost(const Model& model, const OpCall& call, int64_t T, int64_t item) {
    const PassFacts& facts = facts_of(call.kind, call.pass);
    const CallSizes sizes = sizes_of(model, call);
    const auto tokens = static_cast<double>(call.tokens), bytes = static_cast<double>(item);
    OpCost cost;
    if (call.kind == OpKind::Attention) {
        const int products = call.pass == Pass::Backward ? call.attention_backward_products : facts.products;
        cost.flops =
            products * tokens * attention_span(model.config, T) * static_cast<double>(model.config.attention_columns());
    } else {
        cost.flops = 2.0 * facts.products * tokens * sizes.weight;
    }
    const double moved = facts.in * sizes.in + facts.residual * sizes.residual + facts.out * sizes.out;
    cost.bytes = tokens * moved * bytes +
                 sizes.weight * (facts.weight * bytes + facts.weight_sums * static_cast<double>(sizeof(float)));
    return cost;
}

double model_flops_per_token(const Model& model, int64_t T) {
    int64_t parameters = model.parameter_count();
    if (model.wpe != kNone) parameters -= model.parameters[static_cast<size_t>(model.wpe)].count();
    if (!model.config.tied) parameters -= model.config.V * model.config.C;  // The lookup multiplies nothing.
    return 6.0 * static_cast<double>(parameters) +
           6.0 * static_cast<double>(model.config.L * model.config.attention_columns()) *
               attention_span(model.config, T);
}

}  // namespace llmc
