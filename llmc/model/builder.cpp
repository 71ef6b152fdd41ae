#include "llmc/model/builder.h"

#include "llmc/base/check.h"

#include <cmath>

namespace llmc {

ModelBuilder::ModelBuilder(const ModelConfig& config) { model_.config = config; }

double ModelBuilder::residual_stddev() const {
    return stddev() / std::sqrt(2.0 * static_cast<double>(model_.config.L));
}

int ModelBuilder::layer_matrix(const std::string& name, int64_t out, int64_t in, double stddev, Parts parts) {
    layer_rows_.push_back(
        {name, out, in, out, 0, true, Init::Normal, static_cast<float>(stddev), true, std::move(parts)});
    return static_cast<int>(layer_rows_.size()) - 1;
}

int ModelBuilder::layer_vector(const std::string& name, int64_t size, Init init, Parts parts) {
    layer_rows_.push_back({name, size, 1, size, 0, false, init, 0, true, std::move(parts)});
    return static_cast<int>(layer_rows_.size()) - 1;
}

int ModelBuilder::activation(const std::string& name, int64_t columns, ActivationRole role) {
    model_.activations.push_back({name, columns, role});
    return static_cast<int>(model_.activations.size()) - 1;
}

int ModelBuilder::add_parameter(ParameterRow row) {
    model_.parameters.push_back(std::move(row));
    return static_cast<int>(model_.parameters.size()) - 1;
}

Model ModelBuilder::finish(bool learned_positions, bool norm_bias) {
    const ModelConfig& config = model_.config;
    const auto embedding = [&](const std::string& name) {
        return add_parameter({name, config.Vp(), config.C, config.V, 0, true, Init::Normal, 0.02f});
    };
    model_.wte = embedding("wte");
    if (learned_positions) {
        model_.wpe = add_parameter({"wpe", config.maxT, config.C, config.maxT, 0, true, Init::Normal, 0.02f});
    }
    model_.first_layer_parameter = static_cast<int>(model_.parameters.size());
    model_.parameters_per_layer = static_cast<int>(layer_rows_.size());
    for (int64_t layer = 0; layer < config.L; ++layer) {
        for (ParameterRow row : layer_rows_) {
            row.name = "layers." + std::to_string(layer) + "." + row.name;
            add_parameter(std::move(row));
        }
    }
    model_.lnf_weight = add_parameter({"lnf_weight", config.C, 1, config.C, 0, false, Init::Ones, 0});
    if (norm_bias) model_.lnf_bias = add_parameter({"lnf_bias", config.C, 1, config.C, 0, false, Init::Zeros, 0});
    model_.head = config.tied ? model_.wte : embedding("lm_head");
    model_.norm = model_.block.front().kind;
    lay_out_parameters(&model_);
    CHECK(model_.block.back().out == kLayerOutput &&
          model_.activations[kLayerInput].role == ActivationRole::LayerInput);
    return std::move(model_);
}

}  // namespace llmc
