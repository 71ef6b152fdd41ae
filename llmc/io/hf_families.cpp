#include "llmc/io/hf_families.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace llmc {
namespace {

// ---- tensors ------------------------------------------------------------------------------------------------------

const HfNames& gpt2_names() {
    static const HfNames table = {
        "transformer.",
        "h.",
        {{"wte", {"wte.weight"}},
         {"wpe", {"wpe.weight"}},
         {"lnf_weight", {"ln_f.weight"}},
         {"lnf_bias", {"ln_f.bias"}}},
        {{"ln1_weight", {"ln_1.weight"}},
         {"ln1_bias", {"ln_1.bias"}},
         {"qkv_weight", {"attn.c_attn.weight"}, true},
         {"qkv_bias", {"attn.c_attn.bias"}},
         {"att_proj_weight", {"attn.c_proj.weight"}, true},
         {"att_proj_bias", {"attn.c_proj.bias"}},
         {"ln2_weight", {"ln_2.weight"}},
         {"ln2_bias", {"ln_2.bias"}},
         {"fc_weight", {"mlp.c_fc.weight"}, true},
         {"fc_bias", {"mlp.c_fc.bias"}},
         {"fc_proj_weight", {"mlp.c_proj.weight"}, true},
         {"fc_proj_bias", {"mlp.c_proj.bias"}}},
    };
    return table;
}

HfNames llama_like(std::vector<HfNameRow> block) {
    const std::vector<HfNameRow> of_all = {
        {"ln1_weight", {"input_layernorm.weight"}},     {"q_norm_weight", {"self_attn.q_norm.weight"}},
        {"k_norm_weight", {"self_attn.k_norm.weight"}}, {"att_proj_weight", {"self_attn.o_proj.weight"}},
        {"att_proj_bias", {"self_attn.o_proj.bias"}},   {"ln2_weight", {"post_attention_layernorm.weight"}},
        {"fc_proj_weight", {"mlp.down_proj.weight"}},   {"fc_proj_bias", {"mlp.down_proj.bias"}},
    };
    block.insert(block.end(), of_all.begin(), of_all.end());
    return {"model.", "layers.", {{"wte", {"embed_tokens.weight"}}, {"lnf_weight", {"norm.weight"}}}, std::move(block)};
}

const HfNames& llama_names() {
    static const HfNames table = llama_like({
        {"qkv_weight", {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"}, false},
        {"qkv_bias", {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"}, false},
        {"gate_up_weight", {"mlp.gate_proj.weight", "mlp.up_proj.weight"}, false},
        {"gate_up_bias", {"mlp.gate_proj.bias", "mlp.up_proj.bias"}, false},
    });
    return table;
}

const HfNames& phi3_names() {
    static const HfNames table =
        llama_like({{"qkv_weight", {"self_attn.qkv_proj.weight"}}, {"gate_up_weight", {"mlp.gate_up_proj.weight"}}});
    return table;
}

// ---- families -----------------------------------------------------------------------------------------------------

// Defaults are those of the configuration classes of transformers 5.24.
constexpr HfFamily kFamilies[] = {
    {.family = Family::Gpt2,
     .model_type = "gpt2",
     .classes = "GPT2",
     .head = "LMHeadModel",
     .spelling = HfSpelling::Gpt2,
     .names = gpt2_names},
    {.family = Family::Llama,
     .model_type = "llama",
     .classes = "Llama",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .names = llama_names,
     .attention_bias = true,
     .mlp_bias = true},
    {.family = Family::Mistral,
     .model_type = "mistral",
     .classes = "Mistral",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .names = llama_names,
     .max_position_embeddings = 131072,
     .kv_heads = 8,
     .sliding_window = 4096,
     .windows = HfWindows::EveryLayer,
     .refuses_layer_types = true},
    {.family = Family::Qwen2,
     .model_type = "qwen2",
     .classes = "Qwen2",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .names = llama_names,
     .max_position_embeddings = 32768,
     .kv_heads = 32,
     .sliding_window = 4096,
     .windows = HfWindows::ByLayer},
    {.family = Family::Qwen3,
     .model_type = "qwen3",
     .classes = "Qwen3",
     .head = "ForCausalLM",
     .spelling = HfSpelling::Llama,
     .names = llama_names,
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
     .names = llama_names,
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
     .names = phi3_names,
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
