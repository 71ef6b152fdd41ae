// A configuration as JSON, in checkpoints and run folders. Versions before the features were fields of their own wrote
// no "version"; then the family says what they are.
#include "llmc/base/error.h"
#include "llmc/base/shallow_json.h"
#include "llmc/model/config.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <type_traits>

namespace llmc {
namespace {

using Json = nlohmann::json;

constexpr int64_t kVersion = 2;

constexpr std::array<std::string_view, 2> kNormNames = {"layernorm", "rmsnorm"};
constexpr std::array<std::string_view, 3> kActivationNames = {"gelu_tanh", "gelu_exact", "swiglu"};
constexpr std::array<std::string_view, 2> kPositionNames = {"learned", "rotary"};

template <typename Enum, typename Names>
std::string_view name_in(const Names& names, Enum value) {
    return names[static_cast<size_t>(value)];
}

/// Takes fields out of a JSON object, strictly: no number is cut to an integer, no truth value becomes a number.
class FieldReader {
  public:
    FieldReader(const Json& object, const std::string& where) : object_(object), where_(where) {}

    const Json& at(const char* name) const {
        const auto it = object_.find(name);
        if (it == object_.end()) fail("{}: the model configuration is damaged: no field '{}'", where_, name);
        return *it;
    }
    bool has(const char* name) const { return object_.contains(name); }
    FieldReader object(const char* name) const {
        if (!at(name).is_object()) wrong(name);
        return {at(name), where_};
    }

    template <typename T>
    void read(const char* name, T* value) const {
        const Json& field = at(name);
        if (!fits<T>(field)) wrong(name);
        field.get_to(*value);
    }

    template <typename T>
    void read(const char* name, std::vector<T>* list) const {
        const Json& field = at(name);
        if (!field.is_array() || !std::all_of(field.begin(), field.end(), [](const Json& v) { return fits<T>(v); })) {
            wrong(name);
        }
        *list = field.get<std::vector<T>>();
    }

    /// One of the names, whose place in the list is the value.
    template <typename Enum, typename Names>
    void read_name(const char* name, const Names& names, Enum* value) const {
        std::string text;
        read(name, &text);
        const auto found = std::find(names.begin(), names.end(), text);
        if (found == names.end()) {
            fail("{}: {} '{}' is unknown; known are {}", where_, name, text, fmt::join(names, ", "));
        }
        *value = static_cast<Enum>(found - names.begin());
    }

  private:
    template <typename T>
    static bool fits(const Json& field) {
        if constexpr (std::is_same_v<T, bool>) return field.is_boolean();
        if constexpr (std::is_same_v<T, int64_t>) return field.is_number_integer();
        if constexpr (std::is_same_v<T, double>) return field.is_number();
        return field.is_string();
    }
    [[noreturn]] void wrong(const char* name) const {
        fail("{}: the model configuration is damaged: '{}' cannot be {}", where_, name, at(name).dump());
    }

    const Json& object_;
    const std::string& where_;
};

std::vector<std::string_view> family_keys() {
    std::vector<std::string_view> keys;
    for (const FamilyRow& row : families()) keys.push_back(row.key);
    return keys;
}

void read_features(const FieldReader& fields, Features* features) {
    fields.read_name("norm", kNormNames, &features->norm);
    fields.read_name("activation", kActivationNames, &features->activation);
    fields.read_name("positions", kPositionNames, &features->positions);
    fields.read("qkv_bias", &features->qkv_bias);
    fields.read("att_proj_bias", &features->att_proj_bias);
    fields.read("mlp_bias", &features->mlp_bias);
    fields.read("qk_norm", &features->qk_norm);
    fields.read("scale_scores", &features->scale_scores);
    fields.read("scale_scores_by_layer", &features->scale_scores_by_layer);
}

void read_scaling(const FieldReader& fields, bool is_old, RopeScaling* scaling) {
    fields.read_name("kind", rope_scaling_names(), &scaling->kind);
    fields.read("factor", &scaling->factor);
    fields.read("low_freq_factor", &scaling->low_freq_factor);
    fields.read("high_freq_factor", &scaling->high_freq_factor);
    fields.read("original_max_position", &scaling->original_max_position);
    if (is_old) return;
    fields.read("attention_factor", &scaling->attention_factor);
    fields.read("beta_fast", &scaling->beta_fast);
    fields.read("beta_slow", &scaling->beta_slow);
    fields.read("truncate", &scaling->truncate);
    fields.read("short_factors", &scaling->short_factors);
    fields.read("long_factors", &scaling->long_factors);
}

ModelConfig config_of_fields(const FieldReader& fields, const std::string& where) {
    const bool is_old = !fields.has("version") && !fields.has("features");
    int64_t version = kVersion;
    if (!is_old) fields.read("version", &version);
    if (version != kVersion) {
        fail("{}: the model configuration has 'version' {}, this program reads {}; use the one that wrote it", where,
             version, kVersion);
    }
    Family family = Family::Gpt2;
    fields.read_name("family", family_keys(), &family);
    ModelConfig config = config_of(family);
    fields.read("name", &config.name);
    fields.read("layers", &config.L);
    fields.read("channels", &config.C);
    fields.read("heads", &config.NH);
    fields.read("kv_heads", &config.NKV);
    fields.read("head_size", &config.HD);
    fields.read("ffn_size", &config.F);
    fields.read("vocab_size", &config.V);
    fields.read("max_seq_len", &config.maxT);
    fields.read("tied", &config.tied);
    fields.read("norm_epsilon", &config.norm_epsilon);
    fields.read("rope_theta", &config.rope_theta);
    read_scaling(fields.object("rope_scaling"), is_old, &config.rope_scaling);
    if (is_old) return config;
    read_features(fields.object("features"), &config.features);
    fields.read("rotary_size", &config.rotary_size);
    fields.read("rope_layers", &config.rope_layers);
    fields.read("window", &config.window);
    fields.read("window_layers", &config.window_layers);
    return config;
}

nlohmann::ordered_json to_object(const Features& features) {
    return {{"norm", name_in(kNormNames, features.norm)},
            {"activation", name_in(kActivationNames, features.activation)},
            {"positions", name_in(kPositionNames, features.positions)},
            {"qkv_bias", features.qkv_bias},
            {"att_proj_bias", features.att_proj_bias},
            {"mlp_bias", features.mlp_bias},
            {"qk_norm", features.qk_norm},
            {"scale_scores", features.scale_scores},
            {"scale_scores_by_layer", features.scale_scores_by_layer}};
}

nlohmann::ordered_json to_object(const RopeScaling& scaling) {
    return {{"kind", name_of(scaling.kind)},
            {"factor", scaling.factor},
            {"low_freq_factor", scaling.low_freq_factor},
            {"high_freq_factor", scaling.high_freq_factor},
            {"original_max_position", scaling.original_max_position},
            {"attention_factor", scaling.attention_factor},
            {"beta_fast", scaling.beta_fast},
            {"beta_slow", scaling.beta_slow},
            {"truncate", scaling.truncate},
            {"short_factors", scaling.short_factors},
            {"long_factors", scaling.long_factors}};
}

}  // namespace

std::string to_json(const ModelConfig& config) {
    const nlohmann::ordered_json json = {
        {"version", kVersion},
        {"name", config.name},
        {"family", row_of(config.family).key},
        {"features", to_object(config.features)},
        {"layers", config.L},
        {"channels", config.C},
        {"heads", config.NH},
        {"kv_heads", config.NKV},
        {"head_size", config.HD},
        {"ffn_size", config.F},
        {"vocab_size", config.V},
        {"max_seq_len", config.maxT},
        {"tied", config.tied},
        {"norm_epsilon", config.norm_epsilon},
        {"rope_theta", config.rope_theta},
        {"rotary_size", config.rotary_size},
        {"rope_scaling", to_object(config.rope_scaling)},
        {"rope_layers", config.rope_layers},
        {"window", config.window},
        {"window_layers", config.window_layers},
    };
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);  // The name may come from a path.
}

ModelConfig model_config_from_json(const std::string& json, const std::string& where) {
    try {
        const Json object = Json::parse(shallow_json(json));
        if (!object.is_object()) fail("{}: the model configuration is damaged: {} is no object", where, json);
        return config_of_fields({object, where}, where);
    } catch (const nlohmann::json::exception& error) {
        fail("{}: the model configuration is damaged ({})", where, error.what());
    }
}

}  // namespace llmc
