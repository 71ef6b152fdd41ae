#include "llmc/model/lora.h"

#include "llmc/base/check.h"
#include "llmc/base/dropout.h"

#include <cmath>
#include <utility>

namespace llmc {
namespace {

/// Builds the rows of one layer's adapters, and the block with their operations.
class Adapters {
  public:
    Adapters(Model model, const LoraSpec& spec) : model_(std::move(model)), spec_(spec) { model_.lora = spec; }

    Model add() {
        int adapted = 0;
        for (const OpRow& row : std::exchange(model_.block, {})) {
            const AdapterShape shape = row.kind == OpKind::Matmul ? shape_of(weight_name(row)) : AdapterShape{};
            adapted += static_cast<int>(shape.groups.size());
            shape.groups.empty() ? model_.block.push_back(row) : adapt(row, shape);
        }
        CHECK(adapted == static_cast<int>(spec_.targets.size()), adapted, spec_.targets.size());
        insert_rows();
        lay_out_parameters(&model_);
        return std::move(model_);
    }

  private:
    const ParameterRow& weight_of(const OpRow& row) const {
        return model_.parameters[static_cast<size_t>(model_.parameter_index(0, row.weight))];
    }
    std::string weight_name(const OpRow& row) const {
        return weight_of(row).name.substr(std::string("layers.0.").size());
    }

    AdapterShape shape_of(const std::string& weight) const {
        AdapterShape shape = {spec_.rank, {}};
        int64_t end = 0;
        for (const LoraTarget& target : spec_.targets) {
            if (target.weight != weight) continue;
            CHECK(target.first_row >= end, target.module, target.first_row, end);
            end = target.first_row + target.rows;
            shape.groups.push_back({target.first_row, target.rows, static_cast<float>(target.scale)});
        }
        return shape;
    }

    int activation(const ActivationRow& row) {
        model_.activations.push_back(row);
        return static_cast<int>(model_.activations.size()) - 1;
    }

    int parameter(ParameterRow row) {
        rows_.push_back(std::move(row));
        return model_.parameters_per_layer + static_cast<int>(rows_.size()) - 1;
    }

    /// The product's output goes on to the operation that adds the adapters', in its place.
    void adapt(OpRow row, const AdapterShape& shape) {
        const ParameterRow& weight = weight_of(row);
        CHECK(shape.groups.back().first_column + shape.groups.back().columns <= weight.rows, weight.name);
        const std::string name = weight_name(row).substr(0, weight_name(row).rfind("_weight"));
        const int adapter = static_cast<int>(model_.adapters.size());
        model_.adapters.push_back(shape);
        const int64_t R = shape.z_columns(), IC = weight.cols;
        const auto bound = static_cast<float>(1 / std::sqrt(static_cast<double>(IC)));
        const int a = parameter({name + "_lora_a", R, IC, R, 0, true, Init::Uniform, bound});
        const int b =
            parameter({name + "_lora_b", shape.b_rows(), spec_.rank, shape.b_rows(), 0, true, Init::Zeros, 0});
        const int z = activation({name + "_lora_z", R, ActivationRole::Stat});
        ActivationRow plain = row.out == kLayerOutput ? model_.activations[kLayerInput]
                                                      : model_.activations[static_cast<size_t>(row.out)];
        plain.name += "_plain";
        const int out = std::exchange(row.out, activation(plain));
        const bool rope = std::exchange(row.rope, false);
        model_.block.push_back({.kind = OpKind::AdapterDown,
                                .name = name + "_lora_a",
                                .in = row.in,
                                .out = z,
                                .weight = a,
                                .adapter = adapter,
                                .dropout_site = next_site_});
        next_site_ += static_cast<int>(shape.groups.size());
        model_.block.push_back(row);
        model_.block.push_back({.kind = OpKind::AdapterUp,
                                .name = name + "_lora_b",
                                .in = z,
                                .residual = row.out,
                                .out = out,
                                .weight = b,
                                .rope = rope,
                                .adapter = adapter});
    }

    void insert_rows() {
        const int L = static_cast<int>(model_.config.L), per_layer = model_.parameters_per_layer,
                  added = static_cast<int>(rows_.size());
        for (ParameterRow& row : model_.parameters) row.trainable = false;
        std::vector<ParameterRow> all(model_.parameters.begin(),
                                      model_.parameters.begin() + model_.first_layer_parameter);
        for (int layer = 0; layer < L; ++layer) {
            const auto first = model_.parameters.begin() + model_.parameter_index(layer, 0);
            all.insert(all.end(), first, first + per_layer);
            for (ParameterRow row : rows_) {
                row.name = "layers." + std::to_string(layer) + "." + row.name;
                all.push_back(std::move(row));
            }
        }
        all.insert(all.end(), model_.parameters.begin() + model_.parameter_index(L, 0), model_.parameters.end());
        model_.parameters = std::move(all);
        model_.parameters_per_layer += added;
        const int behind = model_.first_layer_parameter;
        for (int* index : {&model_.wte, &model_.wpe, &model_.lnf_weight, &model_.lnf_bias, &model_.head}) {
            if (*index >= behind) *index += L * added;
        }
    }

    Model model_;
    const LoraSpec& spec_;
    std::vector<ParameterRow> rows_;  ///< Of a layer.
    int next_site_ = static_cast<int>(DropoutSite::Adapters);
};

}  // namespace

Model with_lora(Model model, const LoraSpec& spec) {
    if (!spec) return model;
    CHECK(!model.lora, "adapters of adapters");
    return Adapters(std::move(model), spec).add();
}

bool is_adapter(const Model& model, int parameter) {
    const std::string& name = model.parameters[static_cast<size_t>(parameter)].name;
    return model.lora && (name.ends_with("_lora_a") || name.ends_with("_lora_b"));
}

}  // namespace llmc
