#include "llmc/model/model.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"
#include "llmc/model/trainable.h"

namespace llmc {

int64_t Model::parameter_count() const {
    int64_t count = 0;
    for (const ParameterRow& row : parameters) count += row.used_rows * row.cols;
    return count;
}

int64_t Model::trainable_count() const {
    int64_t count = 0;
    for (const ParameterRow& row : parameters) count += row.trainable ? row.used_rows * row.cols : 0;
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

void lay_out_parameters(Model* model) {
    /// Elements; 256 bytes in fp32, so every tensor of every flat buffer starts on a cache line.
    constexpr int64_t kParameterAlignment = 64;
    model->parameter_elements = model->frozen_elements = 0;
    for (ParameterRow& row : model->parameters) {
        int64_t& elements = row.trainable ? model->parameter_elements : model->frozen_elements;
        row.offset = elements;
        elements += round_up(row.count(), kParameterAlignment);
    }
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
    CallSizes sizes = sizes_of(model, call);
    const auto tokens = static_cast<double>(call.tokens), bytes = static_cast<double>(item);
    OpCost cost;
    if (call.kind == OpKind::Attention) {
        const int products = call.pass == Pass::Backward ? call.attention_backward_products : facts.products;
        cost.flops =
            products * tokens * attention_span(model.config, T) * static_cast<double>(model.config.attention_columns());
    } else {
        cost.flops = call.only_bias ? 0 : 2.0 * facts.products * tokens * sizes.weight;
    }
    if (call.only_bias) sizes.in = sizes.weight = 0;
    const double moved = facts.in * sizes.in + facts.residual * sizes.residual + facts.out * sizes.out;
    cost.bytes = tokens * moved * bytes +
                 sizes.weight * (facts.weight * bytes + facts.weight_sums * static_cast<double>(sizeof(float)));
    return cost;
}

double model_flops_per_token(const Model& model, int64_t T) {
    const GradientPath path(model);
    const auto L = static_cast<int>(model.config.L);
    const auto of_row = [&](int parameter, bool gradient_before) {
        if (parameter == kNone) return int64_t{0};
        const ParameterRow& row = model.parameters[static_cast<size_t>(parameter)];
        return (2 + (gradient_before ? 2 : 0) + (row.trainable ? 2 : 0)) * row.used_rows * row.cols;
    };
    const bool before_head = path.reaches(L);
    int64_t flops = of_row(model.lnf_weight, before_head) + of_row(model.lnf_bias, before_head) +
                    of_row(model.head, before_head || model.trains(model.lnf_weight) || model.trains(model.lnf_bias));
    int64_t attention = 0;  // Of 6, summed over layers.
    for (int layer = 0; layer < L; ++layer) {
        for (const OpRow& row : model.block) {
            const bool gradient_before = path.reaches(layer, row.in);
            if (row.kind == OpKind::Attention) attention += gradient_before ? 6 : 2;
            for (const int operand : {row.weight, row.bias}) {
                flops += of_row(model.parameter_index(layer, operand), gradient_before);
            }
        }
    }
    return static_cast<double>(flops) +
           static_cast<double>(attention * model.config.attention_columns()) * attention_span(model.config, T);
}

}  // namespace llmc
