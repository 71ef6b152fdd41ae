// Rotary positions in config.json: rope_theta and rope_scaling, as transformers 4 writes them, or rope_parameters, as 5
// does.
#pragma once

#include "llmc/io/hf_families.h"
#include "llmc/io/hf_fields.h"
#include "llmc/model/config.h"

namespace llmc {

/// Of a configuration whose head size and max_position_embeddings have been read; the latter (maxT) grows where the
/// positions are stretched beyond it.
void read_hf_rope(const HfFields& fields, const HfFamily& family, ModelConfig* config);

/// Adds the fields to a config.json, max_position_embeddings among them.
void write_hf_rope(const ModelConfig& config, const HfFamily& family, nlohmann::json* root);

}  // namespace llmc
