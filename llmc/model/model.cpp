#include "llmc/model/model.h"

#include "llmc/base/check.h"
#include "llmc/model/builder.h"

#include <cmath>
#include <numbers>

namespace llmc {

std::string_view name_of(OpKind kind) {
    switch (kind) {
        case OpKind::Embedding: return "embedding";
        case OpKind::LayerNorm: return "layernorm";
        case OpKind::RmsNorm: return "rmsnorm";
        case OpKind::Matmul: return "matmul";
        case OpKind::Attention: return "attention";
        case OpKind::Gelu: return "gelu";
        case OpKind::Swiglu: return "swiglu";
        case OpKind::Classifier: return "classifier";
    }
    return "?";
}

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

double elements(const Model& model, int slot, const BatchShape& shape) {
    if (slot == kNone) return 0;
    const int64_t columns =
        slot == kLayerOutput ? model.config.C : model.activations[static_cast<size_t>(slot)].columns;
    return static_cast<double>(columns * shape.N());
}

double matmul_flops(const Model& model, const OpRow& row, const BatchShape& shape) {
    const ParameterRow& weight = model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))];
    return 2.0 * static_cast<double>(shape.N()) * static_cast<double>(weight.count());
}

/// One of the two products of causal attention.
double attention_product_flops(const Model& model, const BatchShape& shape) {
    const auto T = static_cast<double>(shape.T);
    return static_cast<double>(shape.B * model.config.attention_columns()) * T * T;
}

double weight_elements(const Model& model, const OpRow& row) {
    if (row.kind != OpKind::Matmul) return 0;
    return static_cast<double>(model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))].count());
}

}  // namespace

OpCost forward_cost(const Model& model, const OpRow& row, const BatchShape& shape, int64_t item) {
    OpCost cost;
    if (row.kind == OpKind::Matmul) cost.flops = matmul_flops(model, row, shape);
    if (row.kind == OpKind::Attention) cost.flops = 2 * attention_product_flops(model, shape);
    const double moved = elements(model, row.in, shape) + elements(model, row.residual, shape) +
                         elements(model, row.out, shape) + weight_elements(model, row);
    cost.bytes = moved * static_cast<double>(item);
    return cost;
}

OpCost backward_cost(const Model& model, const OpRow& row, const BatchShape& shape, int64_t item) {
    OpCost cost;
    if (row.kind == OpKind::Matmul) cost.flops = 2 * matmul_flops(model, row, shape);
    if (row.kind == OpKind::Attention) cost.flops = 5 * attention_product_flops(model, shape);
    // Reads the input (and what else was kept) and the output's gradient, writes the input's gradient; the weight's
    // gradient is read and written in fp32.
    const double moved = 2 * elements(model, row.in, shape) + 2 * elements(model, row.out, shape);
    cost.bytes = moved * static_cast<double>(item) + weight_elements(model, row) * static_cast<double>(item + 8);
    return cost;
}

OpCost head_cost(const Model& model, const BatchShape& shape, int64_t item, bool training) {
    const ModelConfig& config = model.config;
    const auto N = static_cast<double>(shape.N()), C = static_cast<double>(config.C);
    const auto Vp = static_cast<double>(config.Vp());
    const double products = training ? 3 : 1;
    return {products * 2 * N * C * Vp, static_cast<double>(item) * (2 * products * N * Vp + 8 * N * C)};
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
