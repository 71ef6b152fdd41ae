// Dropout of the residual stream's branches and of the embedding, as operations of the model's table: a product that
// adds to the stream writes its branch instead, and an operation drops and adds it. (Srivastava et al. 2014; where
// GPT-2 has it: Radford et al. 2019.) Attention's scores are left alone. Plans drop nothing but in training.
#pragma once

#include "llmc/model/model.h"

#include <vector>

namespace llmc {

/// The table with dropout of probability p in [0, 1); 0 leaves it as it is. Before with_lora().
Model with_dropout(Model model, double p);

/// The rows of the block as they are without dropout, each where it was; the dropout's own stand there and mean
/// nothing.
std::vector<OpRow> block_without_dropout(const Model& model);

/// The same table for another configuration of the family, everything but adapters trainable.
Model with_config(const Model& model, const ModelConfig& config);

}  // namespace llmc
