// How a GGUF file says that rotary positions are stretched: by keys, which llama.cpp reads for every architecture, or
// by a tensor with a divisor for each frequency, which only some of its architectures take. Keys:
// https://github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py; what they do: src/llama-context.cpp and
// ggml_rope_yarn_corr_dims in ggml/src/ggml.c.
#pragma once

#include "llmc/io/gguf/gguf_file.h"
#include "llmc/model/config.h"

#include <string>
#include <vector>

namespace llmc {

/// Whether a file for an architecture that takes the tensor of divisors, or does not, can say this.
bool gguf_can_say_rope(const ModelConfig& config, bool takes_divisors);

/// rope_freqs.weight: by what each rotary frequency is divided (HD/2); empty where keys say it, or nothing is divided.
std::vector<float> gguf_rope_divisors(const ModelConfig& config, bool takes_divisors);

/// Keys that begin with the name of the architecture.
void add_rope_metadata(const std::string& architecture, const ModelConfig& config, bool takes_divisors,
                       GgufMetadata* metadata);

}  // namespace llmc
