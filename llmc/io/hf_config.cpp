#include "llmc/io/hf_config.h"

#include "llmc/base/error.h"
#include "llmc/io/pipeline/json_fields.h"

#include <cmath>

namespace llmc {
namespace {

using nlohmann::json;

constexpr const char* kTokenIdFields[] = {"bos_token_id", "eos_token_id", "pad_token_id"};

/// Takes fields out of config.json, strictly. A field that is null counts as absent, as transformers treats it.
class Fields {
  public:
    Fields(const json& object, const std::string& path) : object_(object), path_(path) {
        if (!object.is_object()) fail("'{}': {} is not a JSON object", path, object.dump());
    }

    bool has(const char* name) const { return object_.contains(name) && !object_[name].is_null(); }

    int64_t integer(const char* name) const {
        require(name);
        if (!object_[name].is_number_integer()) wrong(name, "a whole number");
        return object_[name].get<int64_t>();
    }
    int64_t integer(const char* name, int64_t otherwise) const { return has(name) ? integer(name) : otherwise; }

    double number(const char* name) const {
        require(name);
        if (!object_[name].is_number()) wrong(name, "a number");
        return object_[name].get<double>();
    }
    double number(const char* name, double otherwise) const { return has(name) ? number(name) : otherwise; }

    bool flag(const char* name, bool otherwise) const {
        if (!has(name)) return otherwise;
        if (!object_[name].is_boolean()) wrong(name, "true or false");
        return object_[name].get<bool>();
    }

    std::string text(const char* name, const std::string& otherwise) const {
        if (!has(name)) return otherwise;
        if (!object_[name].is_string()) wrong(name, "a text");
        return object_[name].get<std::string>();
    }

    Fields object(const char* name) const { return {object_[name], path_}; }

    /// Refuses a field that would make another model of it.
    void refuse(const char* name, bool unsupported, const char* supported) const {
        if (!unsupported) return;
        fail("'{}': {} is {}, which this program does not have; it has {}", path_, name,
             has(name) ? object_[name].dump() : "absent", supported);
    }

  private:
    void require(const char* name) const {
        if (!has(name))
            fail("'{}' has no field '{}'; it belongs to another kind of model or is incomplete", path_, name);
    }
    [[noreturn]] void wrong(const char* name, const char* wanted) const {
        fail("'{}': {} is {}, not {}", path_, name, object_[name].dump(), wanted);
    }

    const json& object_;
    const std::string& path_;
};

ModelConfig gpt2_config(const Fields& fields) {
    const std::string activation = fields.text("activation_function", "gelu_new");
    fields.refuse("activation_function", activation != "gelu_new" && activation != "gelu_pytorch_tanh",
                  "gelu_new, the tanh form");
    fields.refuse("scale_attn_weights", !fields.flag("scale_attn_weights", true), "scaled attention");
    fields.refuse("scale_attn_by_inverse_layer_idx", fields.flag("scale_attn_by_inverse_layer_idx", false), "false");
    fields.refuse("add_cross_attention", fields.flag("add_cross_attention", false), "decoders only");
    fields.refuse("tie_word_embeddings", !fields.flag("tie_word_embeddings", true), "GPT-2 with a tied head");
    ModelConfig config;
    config.family = Family::Gpt2;
    config.L = fields.integer("n_layer"), config.C = fields.integer("n_embd");
    config.NH = config.NKV = fields.integer("n_head");
    fields.refuse("n_head", config.NH < 1 || config.C % config.NH != 0, "heads that divide n_embd");
    config.HD = config.C / config.NH;
    config.F = fields.integer("n_inner", 4 * config.C);
    config.V = fields.integer("vocab_size"), config.maxT = fields.integer("n_positions");
    config.norm_epsilon = fields.number("layer_norm_epsilon", 1e-5);
    return config;
}

RopeScaling rope_scaling(const Fields& fields) {
    RopeScaling scaling;
    const std::string kind = fields.text("rope_type", fields.text("type", "default"));
    if (kind == "default") return scaling;
    const char* name = fields.has("rope_type") ? "rope_type" : "type";
    fields.refuse(name, kind != "linear" && kind != "llama3", "default, linear and llama3");
    scaling.factor = fields.number("factor");
    scaling.kind = RopeScaling::Kind::Linear;
    if (kind == "linear") return scaling;
    scaling.kind = RopeScaling::Kind::Llama3;
    scaling.low_freq_factor = fields.number("low_freq_factor");
    scaling.high_freq_factor = fields.number("high_freq_factor");
    scaling.original_max_position = fields.number("original_max_position_embeddings");
    return scaling;
}

ModelConfig llama_config(const Fields& fields) {
    fields.refuse("hidden_act", fields.text("hidden_act", "silu") != "silu", "silu");
    fields.refuse("attention_bias", fields.flag("attention_bias", false), "attention without biases");
    fields.refuse("mlp_bias", fields.flag("mlp_bias", false), "MLPs without biases");
    ModelConfig config;
    config.family = Family::Llama;
    config.L = fields.integer("num_hidden_layers"), config.C = fields.integer("hidden_size");
    config.NH = fields.integer("num_attention_heads");
    config.NKV = fields.integer("num_key_value_heads", config.NH);
    fields.refuse("num_attention_heads", config.NH < 1 || (!fields.has("head_dim") && config.C % config.NH != 0),
                  "heads that divide hidden_size, or a head_dim");
    config.HD = fields.integer("head_dim", config.C / config.NH);
    config.F = fields.integer("intermediate_size");
    config.V = fields.integer("vocab_size"), config.maxT = fields.integer("max_position_embeddings");
    config.norm_epsilon = fields.number("rms_norm_eps", 1e-6);
    config.tied = fields.flag("tie_word_embeddings", false);
    config.rope_theta = fields.number("rope_theta", 10000);
    if (fields.has("rope_scaling")) config.rope_scaling = rope_scaling(fields.object("rope_scaling"));
    if (fields.has("rope_parameters")) {  // Later versions of transformers keep both in here.
        const Fields rope = fields.object("rope_parameters");
        config.rope_theta = rope.number("rope_theta", config.rope_theta);
        config.rope_scaling = rope_scaling(rope);
    }
    return config;
}

json parse(const std::string& text, const std::string& path) { return parse_json(text, path); }

json gpt2_json(const ModelConfig& config) {
    if (config.HD * config.NH != config.C) {
        fail("transformers has no GPT-2 with {} heads of {} in {} channels; only llama models choose their head size",
             config.NH, config.HD, config.C);
    }
    return {{"architectures", {"GPT2LMHeadModel"}},
            {"model_type", "gpt2"},
            {"n_layer", config.L},
            {"n_head", config.NH},
            {"n_embd", config.C},
            {"n_inner", config.F},
            {"n_positions", config.maxT},
            {"layer_norm_epsilon", config.norm_epsilon},
            {"activation_function", "gelu_new"},
            {"resid_pdrop", 0.0},
            {"embd_pdrop", 0.0},
            {"attn_pdrop", 0.0}};
}

json rope_scaling_json(const RopeScaling& scaling) {
    switch (scaling.kind) {
        case RopeScaling::Kind::None: return nullptr;
        // Exactly these two fields: transformers before 4.43 takes no others, and later ones read "type" as well.
        case RopeScaling::Kind::Linear: return {{"type", "linear"}, {"factor", scaling.factor}};
        case RopeScaling::Kind::Llama3:
            return {{"rope_type", "llama3"},
                    {"factor", scaling.factor},
                    {"low_freq_factor", scaling.low_freq_factor},
                    {"high_freq_factor", scaling.high_freq_factor},
                    {"original_max_position_embeddings", std::llround(scaling.original_max_position)}};
    }
    return nullptr;
}

json llama_json(const ModelConfig& config) {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"num_hidden_layers", config.L},
            {"num_attention_heads", config.NH},
            {"num_key_value_heads", config.NKV},
            {"head_dim", config.HD},
            {"hidden_size", config.C},
            {"intermediate_size", config.F},
            {"max_position_embeddings", config.maxT},
            {"rms_norm_eps", config.norm_epsilon},
            {"hidden_act", "silu"},
            {"rope_theta", config.rope_theta},
            {"rope_scaling", rope_scaling_json(config.rope_scaling)},
            {"attention_bias", false},
            {"mlp_bias", false},
            {"attention_dropout", 0.0}};
}

}  // namespace

ModelConfig model_config_from_hf(const std::string& text, const std::string& path) {
    const json root = parse(text, path);
    const Fields fields(root, path);
    const std::string type = fields.text("model_type", "");
    if (type.empty()) fail("'{}' has no field 'model_type'; it is not the config.json of a Hugging Face model", path);
    fields.refuse("model_type", type != "gpt2" && type != "llama", "gpt2 and llama");
    try {
        const ModelConfig config = type == "gpt2" ? gpt2_config(fields) : llama_config(fields);
        validate(config);
        return config;
    } catch (const Error& error) {  // validate() speaks of options, which nobody gave.
        if (error.exit_code() != kExitBadUsage) throw;
        fail("'{}' describes a model that cannot be: {}", path, error.what());
    }
}

std::string to_hf_config(const ModelConfig& config, DType dtype, const json& token_ids) {
    json root = config.family == Family::Gpt2 ? gpt2_json(config) : llama_json(config);
    root["vocab_size"] = config.V;
    root["tie_word_embeddings"] = config.tied;
    root["torch_dtype"] = dtype == DType::BF16 ? "bfloat16" : "float32";
    root["use_cache"] = true;
    root["initializer_range"] = 0.02;
    for (const char* field : kTokenIdFields) root[field] = token_ids.contains(field) ? token_ids[field] : json();
    return root.dump(2) + "\n";
}

json hf_token_ids(const std::string& text, const std::string& path) {
    const json root = parse(text, path);
    json ids = json::object();
    for (const char* field : kTokenIdFields) {
        if (root.is_object() && root.contains(field)) ids[field] = root[field];
    }
    return ids;
}

}  // namespace llmc
