#include "llmc/model/model.h"

#include "llmc/base/check.h"
#include "llmc/model/builder.h"

#include <cmath>
#include <numbers>

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

Model make_model(const ModelConfig& config) {
    validate(config);
    return config.family == Family::Gpt2 ? make_gpt2(config) : make_llama(config);
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
        cost.flops = products * tokens * static_cast<double>(T * model.config.attention_columns());
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
           6.0 * static_cast<double>(model.config.L * model.config.attention_columns() * T);
}

std::vector<float> rope_table(const ModelConfig& config, int64_t positions) {
    const int64_t half = config.HD / 2;
    const RopeScaling& scaling = config.rope_scaling;
    std::vector<double> frequency(static_cast<size_t>(half));
    for (int64_t i = 0; i < half; ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.HD);
        double f = std::pow(config.rope_theta, -exponent);
        if (scaling.kind == RopeScaling::Kind::Linear) f /= scaling.factor;
        if (scaling.kind == RopeScaling::Kind::Llama3) {
            // Short waves stay, long ones are stretched, those between are blended.
            const double turns = scaling.original_max_position * f / (2 * std::numbers::pi);
            const double blend =
                (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
            const double keep = blend < 0 ? 0 : blend > 1 ? 1 : blend;
            f = keep * f + (1 - keep) * f / scaling.factor;
        }
        frequency[static_cast<size_t>(i)] = f;
    }
    std::vector<float> table(static_cast<size_t>(positions * config.HD));
    for (int64_t t = 0; t < positions; ++t) {
        for (int64_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(t) * frequency[static_cast<size_t>(i)];
            table[static_cast<size_t>(t * config.HD + i)] = static_cast<float>(std::cos(angle));
            table[static_cast<size_t>(t * config.HD + half + i)] = static_cast<float>(std::sin(angle));
        }
    }
    return table;
}

}  // namespace llmc
