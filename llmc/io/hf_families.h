// How families of models are written by transformers: a row each, which hf_config.cpp reads configurations and
// hf_names.cpp tensors by. To add one, see dev/notes/models.md.
#pragma once

#include "llmc/model/family.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// The names and meanings of a configuration's fields.
enum class HfSpelling : uint8_t { Gpt2, Llama };

/// Which attention windows a configuration can say.
enum class HfWindows : uint8_t {
    None,
    EveryLayer,  ///< sliding_window
    ByLayer,     ///< sliding_window if use_sliding_window, in the layers of layer_types, or from max_window_layers on
    NoRope,      ///< the same, in the layers of layer_types, or in those without rotary positions
};

/// One of our parameters, and what it is called there; several names are those of its parts.
struct HfNameRow {
    const char* ours;
    std::vector<const char*> theirs;
    bool transposed = false;
};

/// The names of all parameters that models of a kind may have.
struct HfNames {
    const char* prefix;
    const char* layer;             ///< Before the layer's number.
    std::vector<HfNameRow> model;  ///< Parameters outside the layers.
    std::vector<HfNameRow> block;  ///< Of one layer.
};

struct HfFamily {
    Family family;
    const char* model_type;
    const char* classes;  ///< Beginning of the names of its classes.
    const char* head;     ///< End of the name of the one with a language model's head.
    HfSpelling spelling;
    const HfNames& (*names)();

    // What is taken where a field is absent, of HfSpelling::Llama; 0: as if the model had no such field.
    int64_t max_position_embeddings = 2048;
    double rope_theta = 10000;
    double norm_epsilon = 1e-6;
    bool tied = false;
    int64_t kv_heads = 0;  ///< 0: one for each head.
    int64_t head_dim = 0;  ///< 0: hidden_size over heads.
    int64_t sliding_window = 0;
    // Which fields mean something.
    bool attention_bias = false, mlp_bias = false;
    HfWindows windows = HfWindows::None;
    bool refuses_layer_types = false;  ///< transformers reads a configuration with them as another family's.
    bool no_rope_layers = false;
    bool partial_rotary_factor = false;
    /// "yarn" and "su" are older names of longrope, and original_max_position_embeddings is a field of the
    /// configuration with this default (0: it is one of the RoPE's, max_position_embeddings if absent).
    int64_t longrope_length = 0;
};

/// In the order of Family.
std::span<const HfFamily> hf_families();
const HfFamily& hf_family(Family family);
/// By model_type, or by the name of a class ("GPT2LMHeadModel"); null if there is none.
const HfFamily* find_hf_family(const std::string& model_type);
const HfFamily* find_hf_class(const std::string& architecture);
/// "gpt2, llama, ... and phi3".
std::string hf_family_names();

}  // namespace llmc
