// The weights that a model begins with, into what this rank keeps of it. What a checkpoint of a run has is put back by
// load_checkpoint() (checkpointing.h).
#pragma once

#include "llmc/io/peft/peft_folder.h"
#include "llmc/io/weights.h"
#include "llmc/run/state.h"

#include <cstdint>

namespace llmc {

/// Fills parameters (and master weights) from a model of the same table. Where other ranks have parameters that this
/// one needs, gather_parameters() is still to follow.
void load_weights(const WeightSource& weights, State& state);

/// The same for a model with adapters (model/lora.h): those of `adapter`, with what else it has anew, or where there is
/// none new ones, drawn with `seed`.
void load_adapted(const WeightSource& weights, const PeftFolder* adapter, uint64_t seed, State& state);

}  // namespace llmc
