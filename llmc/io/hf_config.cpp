#include "llmc/io/hf_config.h"

#include "llmc/base/error.h"
#include "llmc/io/hf_families.h"
#include "llmc/io/hf_fields.h"
#include "llmc/io/hf_rope.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llmc {
namespace {

using nlohmann::json;

constexpr const char* kTokenIdFields[] = {"bos_token_id", "eos_token_id", "pad_token_id"};

/// Fields of other families that would change what is computed; the values of 0, 1 and false say that they do not.
constexpr const char* kOfOtherFamilies[] = {"attn_logit_softcapping",
                                            "final_logit_softcapping",
                                            "query_pre_attn_scalar",
                                            "attention_multiplier",
                                            "embedding_multiplier",
                                            "residual_multiplier",
                                            "logits_scaling",
                                            "logit_scale",
                                            "clip_qkv",
                                            "alibi",
                                            "parallel_attn",
                                            "use_parallel_residual",
                                            "num_local_experts",
                                            "num_experts",
                                            "attention_chunk_size",
                                            "use_qk_norm"};

void refuse_other_families(const HfFields& fields) {
    for (const char* name : kOfOtherFamilies) {
        if (!fields.has(name)) continue;
        const json& value = fields.value(name);
        const bool neutral = value == false || value == 0 || value == 1;
        fields.refuse(name, !neutral, "models without it; convert the model to one without");
    }
    fields.refuse("is_causal", !fields.flag("is_causal", true), "causal models; this one looks at both sides");
    matrix_format_of(fields);
}

double norm_epsilon(const HfFields& fields, const char* name, double otherwise) {
    const double epsilon = fields.number(name, otherwise);
    if (!(epsilon > 0 && epsilon < 1)) fields.wrong(name, "a positive number below 1");
    return epsilon;
}

/// Ids of special tokens are tokens: numbers of the vocabulary, one or a list.
void require_token_ids(const HfFields& fields, int64_t V) {
    for (const char* name : {"bos_token_id", "eos_token_id"}) {
        if (!fields.has(name)) continue;
        const json& value = fields.value(name);
        for (const json& id : value.is_array() ? value : json::array({value})) {
            if (!id.is_number_integer()) fields.wrong(name, "a whole number or a list of them");
            if (id.get<int64_t>() >= 0 && id.get<int64_t>() < V) continue;
            fail(
                "'{}': {} is {}, outside the vocabulary of {} tokens (vocab_size); give the id the tokenizer has, or "
                "null",
                fields.path(), name, value.dump(), V);
        }
    }
}

// ---- as GPT-2 spells it -------------------------------------------------------------------------------------------

Activation gelu_of(const HfFields& fields) {
    const std::string name = fields.text("activation_function", "gelu_new");
    for (const char* tanh : {"gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"}) {
        if (name == tanh) return Activation::GeluTanh;
    }
    fields.refuse("activation_function", name != "gelu" && name != "gelu_python", "gelu_new (the tanh form) and gelu");
    return Activation::GeluExact;
}

/// transformers takes the general name of a field for GPT-2's own.
int64_t either(const HfFields& fields, const char* own, const char* general) {
    const int64_t value = fields.integer(!fields.has(own) && fields.has(general) ? general : own);
    fields.refuse(general, fields.has(general) && fields.integer(general) != value,
                  fmt::format("one number for it, and {} is {}; leave one of the two out", own, value));
    return value;
}

ModelConfig read_as_gpt2(const HfFields& fields, const HfFamily& family) {
    fields.refuse("add_cross_attention", fields.flag("add_cross_attention", false), "decoders only");
    ModelConfig config = config_of(family.family);
    config.features.activation = gelu_of(fields);
    config.features.scale_scores = fields.flag("scale_attn_weights", true);
    config.features.scale_scores_by_layer = fields.flag("scale_attn_by_inverse_layer_idx", false);
    config.L = either(fields, "n_layer", "num_hidden_layers"), config.C = either(fields, "n_embd", "hidden_size");
    config.NH = config.NKV = either(fields, "n_head", "num_attention_heads");
    fields.refuse("n_head", config.NH < 1 || config.C % config.NH != 0, "heads that divide n_embd");
    config.HD = config.C / config.NH;
    config.F = fields.integer("n_inner", 4 * config.C);
    config.V = fields.integer("vocab_size");
    config.maxT = fields.integer("n_positions", fields.integer("max_position_embeddings", 1024));
    config.norm_epsilon = norm_epsilon(fields, "layer_norm_epsilon", 1e-5);
    config.tied = fields.flag("tie_word_embeddings", true);
    return config;
}

json as_gpt2(const ModelConfig& config) {
    if (config.HD * config.NH != config.C) {
        fail("transformers has no GPT-2 with {} heads of {} in {} channels; only llama models choose their head size",
             config.NH, config.HD, config.C);
    }
    const bool exact = config.features.activation == Activation::GeluExact;
    json root = {{"n_layer", config.L},
                 {"n_head", config.NH},
                 {"n_embd", config.C},
                 {"n_inner", config.F},
                 {"n_positions", config.maxT},
                 {"layer_norm_epsilon", config.norm_epsilon},
                 {"activation_function", exact ? "gelu" : "gelu_new"},
                 {"resid_pdrop", 0.0},
                 {"embd_pdrop", 0.0},
                 {"attn_pdrop", 0.0}};
    if (!config.features.scale_scores) root["scale_attn_weights"] = false;
    if (config.features.scale_scores_by_layer) root["scale_attn_by_inverse_layer_idx"] = true;
    return root;
}

// ---- as LLaMA spells it -------------------------------------------------------------------------------------------

/// Layers of layer_types with a window; empty if the field is not there.
std::vector<bool> layers_with_window(const HfFields& fields, int64_t L) {
    std::vector<bool> layers;
    if (!fields.has("layer_types")) return layers;
    const json& types = fields.value("layer_types");
    if (!types.is_array() || static_cast<int64_t>(types.size()) != L)
        fields.wrong("layer_types", "a list of all layers");
    for (const json& type : types) {
        fields.refuse("layer_types", type != "full_attention" && type != "sliding_attention",
                      "full_attention and sliding_attention");
        layers.push_back(type == "sliding_attention");
    }
    return layers;
}

void read_windows(const HfFields& fields, const HfFamily& family, ModelConfig* config) {
    fields.refuse("layer_types", family.refuses_layer_types && fields.has("layer_types"),
                  "the same window in all layers of this model_type; leave layer_types out if that is meant");
    if (family.windows == HfWindows::None) return;
    const bool may_switch = family.windows != HfWindows::EveryLayer;
    if (may_switch && !fields.flag("use_sliding_window", false)) return;
    const int64_t absent = fields.mentions("sliding_window") ? 0 : family.sliding_window;
    config->window = fields.integer("sliding_window", absent);
    if (fields.has("sliding_window") && config->window < 1)
        fields.wrong("sliding_window", "1 or more, or null for none");
    if (!may_switch || config->window == 0) return;
    std::vector<bool> layers = layers_with_window(fields, config->L);
    const int64_t first = fields.integer("max_window_layers", 28);
    for (int64_t layer = 0; !fields.has("layer_types") && layer < config->L; ++layer) {
        layers.push_back(family.windows == HfWindows::NoRope ? !config->rotates(layer) : layer >= first);
    }
    const auto with = std::count(layers.begin(), layers.end(), true);
    if (with == 0) config->window = 0;
    if (with > 0 && with < config->L) config->window_layers = layers;
}

void read_rope_layers(const HfFields& fields, ModelConfig* config) {
    const int64_t interval = fields.integer("no_rope_layer_interval", 4);
    if (interval < 1) fields.wrong("no_rope_layer_interval", "1 or more");
    std::vector<bool> layers;
    if (fields.has("no_rope_layers")) {
        const json& list = fields.value("no_rope_layers");  // 1: with, whatever the name says.
        const bool whole = list.is_array() && static_cast<int64_t>(list.size()) >= config->L;
        if (!whole) fields.wrong("no_rope_layers", "a list of 1 (rotated) or 0 for each layer");
        for (int64_t layer = 0; layer < config->L; ++layer) {
            const json& value = list[static_cast<size_t>(layer)];
            if (value != 0 && value != 1) fields.wrong("no_rope_layers", "a list of 1 (rotated) or 0 for each layer");
            layers.push_back(value == 1);
        }
    } else {
        for (int64_t layer = 0; layer < config->L; ++layer) layers.push_back((layer + 1) % interval != 0);
    }
    if (std::any_of(layers.begin(), layers.end(), [](bool rotated) { return !rotated; })) config->rope_layers = layers;
}

ModelConfig read_as_llama(const HfFields& fields, const HfFamily& family) {
    const std::string activation = fields.text("hidden_act", "silu");
    fields.refuse("hidden_act", activation != "silu" && activation != "swish", "silu");
    ModelConfig config = config_of(family.family);
    if (family.attention_bias) {
        config.features.qkv_bias = config.features.att_proj_bias = fields.flag("attention_bias", false);
    }
    if (family.mlp_bias) config.features.mlp_bias = fields.flag("mlp_bias", false);
    config.L = fields.integer("num_hidden_layers"), config.C = fields.integer("hidden_size");
    config.NH = fields.integer("num_attention_heads");
    const bool all_heads = family.kv_heads == 0 || fields.mentions("num_key_value_heads");
    config.NKV = fields.integer("num_key_value_heads", all_heads ? config.NH : family.kv_heads);
    const bool shares = family.head_dim == 0 || fields.mentions("head_dim");
    const bool divides = config.NH >= 1 && (fields.has("head_dim") || !shares || config.C % config.NH == 0);
    fields.refuse("num_attention_heads", !divides, "heads that divide hidden_size, or a head_dim");
    config.HD = fields.integer("head_dim", shares ? config.C / config.NH : family.head_dim);
    config.F = fields.integer("intermediate_size");
    config.V = fields.integer("vocab_size");
    config.maxT = fields.integer("max_position_embeddings", family.max_position_embeddings);
    config.norm_epsilon = norm_epsilon(fields, "rms_norm_eps", family.norm_epsilon);
    config.tied = fields.flag("tie_word_embeddings", family.tied);
    read_hf_rope(fields, family, &config);
    if (config.L < 1 || config.L > 100'000) return config;  // validate() has the words.
    if (family.no_rope_layers) read_rope_layers(fields, &config);
    read_windows(fields, family, &config);
    return config;
}

void write_windows(const ModelConfig& config, const HfFamily& family, json* root) {
    if (family.windows == HfWindows::None) return;
    (*root)["sliding_window"] = config.window > 0 ? json(config.window) : json();
    if (family.windows == HfWindows::EveryLayer) return;
    json types = json::array();
    int64_t first = config.L;
    for (int64_t layer = config.L - 1; layer >= 0; --layer) {
        if (config.window_of(layer) > 0) first = layer;
    }
    for (int64_t layer = 0; layer < config.L; ++layer) {
        types.push_back(config.window_of(layer) > 0 ? "sliding_attention" : "full_attention");
    }
    (*root)["use_sliding_window"] = config.window > 0;
    (*root)["layer_types"] = types;
    if (family.windows == HfWindows::ByLayer) (*root)["max_window_layers"] = first;
}

json as_llama(const ModelConfig& config, const HfFamily& family) {
    json root = {{"num_hidden_layers", config.L},
                 {"num_attention_heads", config.NH},
                 {"num_key_value_heads", config.NKV},
                 {"head_dim", config.HD},
                 {"hidden_size", config.C},
                 {"intermediate_size", config.F},
                 {"rms_norm_eps", config.norm_epsilon},
                 {"hidden_act", "silu"},
                 {"attention_dropout", 0.0}};
    if (family.attention_bias) root["attention_bias"] = config.features.qkv_bias;
    if (family.mlp_bias) root["mlp_bias"] = config.features.mlp_bias;
    if (family.no_rope_layers) {
        for (int64_t layer = 0; layer < config.L; ++layer)
            root["no_rope_layers"].push_back(config.rotates(layer) ? 1 : 0);
    }
    write_hf_rope(config, family, &root);
    write_windows(config, family, &root);
    return root;
}

// -------------------------------------------------------------------------------------------------------------------

json parse(const std::string& text, const std::string& path) { return parse_json(text, path); }

/// By model_type; where there is none, by the class that wrote it.
const HfFamily& family_of(const HfFields& fields) {
    const std::string type = fields.text("model_type", "");
    if (!type.empty()) {
        const HfFamily* family = find_hf_family(type);
        fields.refuse("model_type", family == nullptr, hf_family_names());
        return *family;
    }
    if (fields.has("architectures")) {
        for (const json& name : fields.value("architectures")) {
            const HfFamily* family = name.is_string() ? find_hf_class(name.get<std::string>()) : nullptr;
            if (family != nullptr) return *family;
        }
        fields.refuse("architectures", "language models of the kinds " + hf_family_names());
    }
    fail("'{}' has no field 'model_type', nor 'architectures'; it is not the config.json of a Hugging Face model",
         fields.path());
}

ModelConfig read_by(const HfFields& fields, const HfFamily& family) {
    switch (family.spelling) {
        case HfSpelling::Gpt2: return read_as_gpt2(fields, family);
        case HfSpelling::Llama: return read_as_llama(fields, family);
    }
    return {};
}

json write_by(const ModelConfig& config, const HfFamily& family) {
    json root;
    switch (family.spelling) {
        case HfSpelling::Gpt2: root = as_gpt2(config); break;
        case HfSpelling::Llama: root = as_llama(config, family); break;
    }
    root["architectures"] = {std::string(family.classes) + family.head};
    root["model_type"] = family.model_type;
    root["vocab_size"] = config.V;
    root["tie_word_embeddings"] = config.tied;
    return root;
}

/// What is read back from what was written has to be the same model: a field that the family cannot say would be lost.
void require_sayable(const ModelConfig& config, const json& root, const HfFamily& family) {
    ModelConfig said;
    try {
        said = model_config_from_hf(root.dump(), "config.json");
    } catch (const Error& error) {
        fail("transformers has no such model of model_type {}: {}", family.model_type, error.what());
    }
    said.name = config.name;
    if (said == config) return;
    const std::string features = difference(config.features, said.features);
    if (!features.empty()) {
        fail("a config.json of model_type {} cannot say what this model is: {}; transformers has no such model",
             family.model_type, features);
    }
    const json wanted = json::parse(to_json(config)), got = json::parse(to_json(said));
    for (const auto& [field, value] : wanted.items()) {
        if (value == got.at(field)) continue;
        fail("a config.json of model_type {} cannot say that {} is {}; transformers has no such model",
             family.model_type, field, value.dump());
    }
}

bool is_in_vocabulary(const json& ids, int64_t V) {
    const auto is_token = [V](const json& id) { return id.is_number_integer() && id >= 0 && id < V; };
    return ids.is_array() ? std::all_of(ids.begin(), ids.end(), is_token) : is_token(ids);
}

/// validate() speaks of options, which nobody gave: "--channels=-64: must ..." is about hidden_size, or n_embd.
std::string in_fields(const std::string& message, HfSpelling spelling) {
    struct Name {
        const char *option, *gpt2, *llama;
    };
    constexpr Name kNames[] = {
        {"--layers", "n_layer", "num_hidden_layers"},      {"--channels", "n_embd", "hidden_size"},
        {"--heads", "n_head", "num_attention_heads"},      {"--kv-heads", "n_head", "num_key_value_heads"},
        {"--head-size", "n_embd over n_head", "head_dim"}, {"--ffn-size", "n_inner", "intermediate_size"},
        {"--vocab-size", "vocab_size", "vocab_size"},      {"--max-seq-len", "n_positions", "max_position_embeddings"}};
    const size_t equals = message.find('=');
    for (const Name& name : kNames) {
        if (message.substr(0, equals) != name.option) continue;
        const std::string field = spelling == HfSpelling::Gpt2 ? name.gpt2 : name.llama;
        return fmt::format("{} is {}", field, message.substr(equals + 1));
    }
    return message;
}

}  // namespace

ModelConfig model_config_from_hf(const std::string& text, const std::string& path) {
    const json root = parse(text, path);
    const HfFields fields(root, path);
    const HfFamily& family = family_of(fields);
    refuse_other_families(fields);
    try {
        const ModelConfig config = read_by(fields, family);
        validate(config);
        require_token_ids(fields, config.V);
        return config;
    } catch (const Error& error) {
        if (error.exit_code() != kExitBadUsage) throw;
        fail("'{}' describes a model that cannot be: {}", path, in_fields(error.what(), family.spelling));
    }
}

std::string to_hf_config(const ModelConfig& config, DType dtype, const std::string& token_ids, MatrixFormat format) {
    const json ids = json::parse(token_ids);
    const HfFamily& family = hf_family(config.family);
    json root = write_by(config, family);
    require_sayable(config, root, family);
    root["torch_dtype"] = dtype == DType::BF16 ? "bfloat16" : "float32";
    root["use_cache"] = true;
    root["initializer_range"] = 0.02;
    if (format != MatrixFormat::Plain) root["quantization_config"] = quantization_config(format, dtype);
    for (const char* field : kTokenIdFields) {
        const bool known = ids.contains(field) && is_in_vocabulary(ids[field], config.V);
        root[field] = known ? ids[field] : json();
    }
    return root.dump(2) + "\n";
}

std::string hf_token_ids(const std::string& text, const std::string& path) {
    const json root = parse(text, path);
    json ids = json::object();
    for (const char* field : kTokenIdFields) {
        if (root.is_object() && root.contains(field)) ids[field] = root[field];
    }
    return ids.dump();
}

}  // namespace llmc
