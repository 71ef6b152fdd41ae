// Adapters between our tables and PEFT's folders: which rows a configuration means, merging, and writing a folder.
#pragma once

#include "llmc/io/peft/peft_config.h"
#include "llmc/model/lora.h"

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

/// Last parts of the names of all modules that may have adapters: "q_proj", "c_attn"; each once, in the model's order.
std::vector<std::string> adaptable_modules(const Model& base);

/// The modules that a list names: "all", or names with commas between them, which may leave "_proj" out ("q,v"). Fails
/// (exit code 2), naming `option` and the modules there are, where one matches none.
std::vector<std::string> named_modules(const Model& base, const std::string& option, std::string_view list);

/// The adapters that a configuration's rank and target_modules mean.
LoraSpec lora_spec(const Model& base, const PeftConfig& config);

/// The model with these adapters, and with the biases that train beside them.
Model with_adapters(Model base, const PeftConfig& config);

/// weight (rows, in) += scale * B A, for the groups of one weight's adapters; in fp32.
void add_adapters(const AdapterShape& shape, std::span<const float> a, std::span<const float> b, int64_t in,
                  std::span<float> weight);
/// The same of one product: weight (rows, in) += scale * b (rows, rank) * a (rank, in).
void add_product(std::span<float> weight, std::span<const float> b, std::span<const float> a, int64_t rank, int64_t in,
                 float scale);

/// Writes adapter_config.json and adapter_model.safetensors into a folder that exists: the adapters of `model`, and
/// what else trains in it. `values` gives the used rows of one of its parameters; tensors are fp32.
void write_peft_folder(const std::string& folder, const Model& model, PeftConfig config,
                       const std::function<std::vector<float>(int parameter)>& values);

}  // namespace llmc
