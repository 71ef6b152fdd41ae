#include "llmc/io/hf_families.h"

#include <algorithm>
#include <iterator>

namespace llmc {
namespace {

// Defaults are those of the configuration classes of transformers 5.24.
constexpr HfFamily kFamilies[] = {
    {.family = Family::Gpt2,
     .model_type = "gpt2",
     .classes = "GPT2",
     .head = "LMHeadModel",
     .spelling = HfSpelling::Gpt2,
     .tensors = HfTensors::Gpt2},
    {.family = Family::Llama,
     .model_type = "llama",
     .classes = "Llama",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .tensors = HfTensors::Llama,
     .attention_bias = true,
     .mlp_bias = true},
    {.family = Family::Mistral,
     .model_type = "mistral",
     .classes = "Mistral",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .tensors = HfTensors::Llama,
     .max_position_embeddings = 131072,
     .kv_heads = 8,
     .sliding_window = 4096,
     .windows = HfWindows::EveryLayer},
    {.family = Family::Qwen2,
     .model_type = "qwen2",
     .classes = "Qwen2",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .tensors = HfTensors::Llama,
     .max_position_embeddings = 32768,
     .kv_heads = 32,
     .sliding_window = 4096,
     .windows = HfWindows::ByLayer},
    {.family = Family::Qwen3,
     .model_type = "qwen3",
     .classes = "Qwen3",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .tensors = HfTensors::Llama,
     .max_position_embeddings = 32768,
     .kv_heads = 32,
     .head_dim = 128,
     .sliding_window = 4096,
     .attention_bias = true,
     .windows = HfWindows::ByLayer},
    {.family = Family::SmolLm3,
     .model_type = "smollm3",
     .classes = "SmolLM3",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .tensors = HfTensors::Llama,
     .max_position_embeddings = 32768,
     .rope_theta = 2e6,
     .tied = true,
     .kv_heads = 4,
     .attention_bias = true,
     .mlp_bias = true,
     .windows = HfWindows::NoRope,
     .no_rope_layers = true},
    {.family = Family::Phi3,
     .model_type = "phi3",
     .classes = "Phi3",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .tensors = HfTensors::Phi3,
     .max_position_embeddings = 4096,
     .norm_epsilon = 1e-5,
     .windows = HfWindows::EveryLayer,
     .partial_rotary_factor = true,
     .longrope_length = 4096},
};

constexpr bool in_order() {
    for (size_t i = 0; i < std::size(kFamilies); ++i) {
        if (kFamilies[i].family != static_cast<Family>(i)) return false;
    }
    return std::size(kFamilies) == static_cast<size_t>(Family::Phi3) + 1;
}
static_assert(in_order(), "the table is indexed by the family");

}  // namespace

std::span<const HfFamily> hf_families() { return kFamilies; }

const HfFamily& hf_family(Family family) { return kFamilies[static_cast<size_t>(family)]; }

const HfFamily* find_hf_family(const std::string& model_type) {
    for (const HfFamily& row : kFamilies) {
        if (model_type == row.model_type) return &row;
    }
    return nullptr;
}

const HfFamily* find_hf_class(const std::string& architecture) {
    for (const HfFamily& row : kFamilies) {
        const std::string base = row.classes;
        if (architecture == base + row.head || architecture == base + "Model") return &row;
    }
    return nullptr;
}

std::string hf_family_names() {
    std::string text;
    for (const HfFamily& row : kFamilies) {
        const char* between = &row == kFamilies ? "" : &row == std::end(kFamilies) - 1 ? " and " : ", ";
        text += between + std::string(row.model_type);
    }
    return text;
}

}  // namespace llmc
