// Adding rows to a model's tables.
#pragma once

#include "llmc/model/model.h"

#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// Collects the parameter rows of one layer (names without the "layers.N." prefix) and of the model.
class ModelBuilder {
  public:
    explicit ModelBuilder(const ModelConfig& config);
    using Parts = std::vector<int64_t>;  ///< Of ParameterRow.

    /// Rows of every layer. Return the operand number for OpRow::weight and OpRow::bias.
    int layer_matrix(const std::string& name, int64_t out, int64_t in, double stddev, Parts parts = {});
    int layer_vector(const std::string& name, int64_t size, Init init, Parts parts = {});
    int layer_vector_if(bool there, const std::string& name, int64_t size, Init init, Parts parts = {}) {
        return there ? layer_vector(name, size, init, std::move(parts)) : kNone;
    }

    /// An activation of the layer; returns its slot.
    int activation(const std::string& name, int64_t columns, ActivationRole role);
    int activation_if(bool there, const std::string& name, int64_t columns, ActivationRole role) {
        return there ? activation(name, columns, role) : kNone;
    }
    void op(const OpRow& row) { model_.block.push_back(row); }

    /// Lays out all parameters: embeddings, layers, final norm, head.
    Model finish(bool learned_positions, bool norm_bias);

    /// Standard deviation of ordinary matrices, and of those that write into the residual stream.
    double stddev() const { return 0.02; }
    double residual_stddev() const;

  private:
    int add_parameter(ParameterRow row);
    Model model_;
    std::vector<ParameterRow> layer_rows_;
};

}  // namespace llmc
