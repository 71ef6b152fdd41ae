// config.json of Hugging Face folders, both ways, read by meaning: the family (hf_families.h) says how fields are
// spelled and which of them count, the fields say what the model is. What a configuration says and this program would
// compute differently (another activation, a RoPE type) is an Error that names the field and its value; fields that
// change nothing in the mathematics are passed over.
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/io/bitsandbytes.h"
#include "llmc/model/config.h"

#include <string>

namespace llmc {

/// From the text of config.json. Errors name `path`, the file. The configuration has no name yet. How tensors are
/// stored is not part of it, but has to be readable.
ModelConfig model_config_from_hf(const std::string& text, const std::string& path);

/// The text of config.json for tensors of that type. `token_ids` holds bos_token_id, eos_token_id and the like; those
/// it lacks, or that are not in the vocabulary, become null. `format` is how the matrices are stored. An Error if
/// transformers has no such model.
std::string to_hf_config(const ModelConfig& config, DType dtype, const std::string& token_ids,
                         MatrixFormat format = MatrixFormat::Plain);

/// bos_token_id, eos_token_id and pad_token_id of a config.json or generation_config.json, those that are there.
std::string hf_token_ids(const std::string& text, const std::string& path);

}  // namespace llmc
