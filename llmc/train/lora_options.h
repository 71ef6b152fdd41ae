// What --lora and the options beside it, or --adapter, make of a model.
#pragma once

#include "llmc/io/peft/peft_folder.h"
#include "llmc/io/weights.h"
#include "llmc/run/state.h"
#include "llmc/train/options.h"

#include <optional>

namespace llmc {

/// What the adapters of a run are, as PEFT would write it; nothing where it has none.
std::optional<PeftConfig> adapter_config(const Options& options, const Model& base);

/// The model with the run's adapters, and with biases that train beside them.
Model with_adapters(const Options& options, Model base);

/// Fails (exit code 2) where --adapter names no folder of an adapter.
void require_adapter_folder(const Options& options);

/// Fills in what the folder that --adapter names says of the adapters, for a run that goes on with them. Fails (exit
/// code 2) where other options were given that contradict it.
void settle_adapter(Options& options, const Model& base);

/// Fills the state of a run from the weights it begins with, and its adapters from --adapter, or at random.
void load_weights(const Options& options, const WeightSource& weights, State& state);

/// "rank 16, alpha 32 on q_proj, v_proj; fp32".
std::string describe_adapters(const Options& options, const Model& model);

/// Where --base-format was left open: as the folder that --model names has its matrices in NF4, if it does.
void settle_base_format(Options& options, const WeightSource& weights, const Model& model);

/// Fails (exit code 2) where --base-format is about nothing: no matrix of a layer is frozen.
void require_base(const Options& options, const Model& model);

/// "matrices of layers as nf4-double, 4.13 bits each"; "" where they are as activations are.
std::string describe_base(const Model& model, const Places& places);

/// Learning rate and weight decay that suit adapters, where they were left open.
void settle_adapter_schedule(Options& options);

/// What to say of adapters whose model nobody has trained; "" where there are none.
std::string remark_on_lora(const Options& options);

/// Options that mean nothing without --lora or --adapter, and those that contradict each other.
void validate_lora(const Options& options);

}  // namespace llmc
