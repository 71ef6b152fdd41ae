// Low-rank adapters as rows and operations of the model's table: two thin parameter rows for every adapted weight, and
// two operations beside its product, z = x A^T and out += scale z B^T. Plans, memory, gradients, checkpoints and prices
// follow from the table and know nothing of adapters. (Hu et al. 2021)
#pragma once

#include "llmc/model/model.h"

namespace llmc {

/// The table with adapters: at the end of every layer rows "qkv_lora_a", drawn from U(-1/sqrt(in), 1/sqrt(in)), and
/// "qkv_lora_b", zeros. They train; everything else is frozen, unless with_trainable() says otherwise afterwards.
/// The targets are parts of weights of the block's products, by weight in the order of their rows, and do not overlap.
Model with_lora(Model model, const LoraSpec& spec);

/// Whether a parameter row is an adapter's.
bool is_adapter(const Model& model, int parameter);

}  // namespace llmc
