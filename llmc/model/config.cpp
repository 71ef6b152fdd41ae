#include "llmc/model/config.h"

#include "llmc/base/error.h"

#include <nlohmann/json.hpp>

#include <charconv>
#include <type_traits>

namespace llmc {
namespace {

ModelConfig gpt2(const std::string& name, int64_t L, int64_t NH, int64_t C, int64_t V, int64_t maxT) {
    ModelConfig config;
    config.name = name;
    config.family = Family::Gpt2;
    config.L = L, config.C = C, config.NH = NH, config.NKV = NH, config.HD = C / NH, config.F = 4 * C;
    config.V = V, config.maxT = maxT, config.tied = true;
    return config;
}

ModelConfig llama(const std::string& name, int64_t L, int64_t NH, int64_t NKV, int64_t C, int64_t F, int64_t V,
                  int64_t maxT, double rope_theta, bool tied = false) {
    ModelConfig config;
    config.name = name;
    config.family = Family::Llama;
    config.L = L, config.C = C, config.NH = NH, config.NKV = NKV, config.HD = C / NH, config.F = F;
    config.V = V, config.maxT = maxT, config.tied = tied, config.rope_theta = rope_theta;
    return config;
}

ModelConfig with_llama3_scaling(ModelConfig config, double factor) {
    config.rope_scaling = {RopeScaling::Kind::Llama3, factor, 1, 4, 8192};
    return config;
}

constexpr int64_t kByteVocabulary = 257;  // 256 bytes and end-of-text.

const std::vector<ModelConfig>& presets() {
    // clang-format off
    static const std::vector<ModelConfig> table = {
        //               L  NH    C      V  maxT
        gpt2("gpt2-nano", 4, 4, 128, kByteVocabulary, 0),
        gpt2("gpt2-mini", 6, 6, 384, kByteVocabulary, 0),
        gpt2("gpt2", 12, 12, 768, 50257, 1024),
        gpt2("gpt2-medium", 24, 16, 1024, 50257, 1024),
        gpt2("gpt2-large", 36, 20, 1280, 50257, 1024),
        gpt2("gpt2-xl", 48, 25, 1600, 50257, 1024),
        //                     L  NH NKV   C     F       V    maxT  theta
        llama("llama-nano", 4, 4, 2, 128, 352, kByteVocabulary, 0, 1e4, true),
        llama("llama-mini", 6, 6, 2, 384, 1024, kByteVocabulary, 0, 1e4, true),
        llama("smollm2-135m", 30, 9, 3, 576, 1536, 49152, 8192, 1e5, true),
        llama("smollm2-360m", 32, 15, 5, 960, 2560, 49152, 8192, 1e5, true),
        llama("smollm2-1.7b", 24, 32, 32, 2048, 8192, 49152, 8192, 1.3e5, true),
        llama("tinyllama-1.1b", 22, 32, 4, 2048, 5632, 32000, 2048, 1e4),
        with_llama3_scaling(llama("llama3.2-1b", 16, 32, 8, 2048, 8192, 128256, 131072, 5e5, true), 32),
        with_llama3_scaling(llama("llama3.2-3b", 28, 24, 8, 3072, 8192, 128256, 131072, 5e5, true), 32),
        llama("llama2-7b", 32, 32, 32, 4096, 11008, 32000, 4096, 1e4),
        llama("mistral-7b", 32, 32, 8, 4096, 14336, 32768, 32768, 1e6),  // v0.3, which has no sliding window.
        llama("llama3-8b", 32, 32, 8, 4096, 14336, 128256, 8192, 5e5),
        with_llama3_scaling(llama("llama3.1-8b", 32, 32, 8, 4096, 14336, 128256, 131072, 5e5), 8),
        with_llama3_scaling(llama("llama3-70b", 80, 64, 8, 8192, 28672, 128256, 131072, 5e5), 8),
    };
    // clang-format on
    return table;
}

/// llm.c's depth-named GPT-2 models: heads of 64 channels.
bool depth_preset(const std::string& name, ModelConfig* config) {
    struct Depth {
        int64_t L, C;
    };
    constexpr Depth kDepths[] = {{6, 384},   {12, 768},  {24, 1024}, {36, 1280},
                                 {48, 1600}, {60, 1920}, {72, 2880}, {84, 3456}};
    if (name.size() < 2 || name[0] != 'd') return false;
    int64_t depth = 0;
    const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), depth);
    if (error != std::errc() || end != name.data() + name.size()) return false;
    for (const Depth& row : kDepths) {
        if (row.L == depth) *config = gpt2(name, row.L, row.C / 64, row.C, 50257, 1024);
        if (row.L == depth) return true;
    }
    return false;
}

}  // namespace

std::vector<std::string> preset_names() {
    std::vector<std::string> names;
    for (const ModelConfig& config : presets()) names.push_back(config.name);
    return names;
}

std::optional<ModelConfig> find_preset(const std::string& name) {
    for (const ModelConfig& config : presets()) {
        if (config.name == name) return config;
    }
    ModelConfig config;
    if (depth_preset(name, &config)) return config;
    return std::nullopt;
}

ModelConfig preset(const std::string& name) {
    if (const auto config = find_preset(name)) return *config;
    std::string names;
    for (const std::string& known : preset_names()) names += " " + known;
    fail_usage("--model={}: no such model; choose one of:{}, or d6, d12, d24, d36, d48, d60, d72, d84", name, names);
}

void validate(const ModelConfig& config) {
    // The same limits as the options have: sizes that no file should have either.
    const auto within = [](const char* option, int64_t value, int64_t most) {
        if (value < 1) fail_usage("{}={}: must be at least 1", option, value);
        if (value > most) fail_usage("{}={}: must be at most {}", option, value, most);
    };
    within("--layers", config.L, 1000);
    within("--channels", config.C, 1'000'000);
    within("--heads", config.NH, 100'000);
    within("--kv-heads", config.NKV, 100'000);
    within("--head-size", config.HD, 256);
    within("--ffn-size", config.F, 10'000'000);
    within("--vocab-size", config.V, 100'000'000);
    within("--max-seq-len", config.maxT, 100'000'000);
    if (config.NH % config.NKV != 0) {
        fail_usage("--kv-heads={}: must divide the number of heads, {}", config.NKV, config.NH);
    }
    if (config.family == Family::Gpt2 && config.NKV != config.NH) {
        fail_usage("--kv-heads={}: GPT-2 has one key/value head per head ({}); choose a LLaMA model", config.NKV,
                   config.NH);
    }
    if (config.family == Family::Gpt2 && !config.tied) fail_usage("--tied=false: GPT-2's LM head is the embedding");
    if (config.family == Family::Llama && config.HD % 2 != 0) {
        fail_usage("--head-size={}: rotary embedding needs an even head size", config.HD);
    }
}

std::string name_of(Family family) { return family == Family::Gpt2 ? "GPT-2" : "LLaMA"; }

std::string describe(const ModelConfig& config) {
    std::string text = fmt::format("{}, {} layers, {} heads", name_of(config.family), config.L, config.NH);
    if (config.NKV != config.NH) text += fmt::format(" ({} key/value)", config.NKV);
    return text + fmt::format(" of {}, {} channels, vocabulary {}", config.HD, config.C, config.V);
}

namespace {

constexpr const char* kScalingNames[] = {"none", "linear", "llama3"};

RopeScaling::Kind scaling_kind(const std::string& name, const std::string& where) {
    for (int kind = 0; kind < 3; ++kind) {
        if (name == kScalingNames[kind]) return static_cast<RopeScaling::Kind>(kind);
    }
    fail("{}: rope_scaling '{}' is unknown; known are none, linear, llama3", where, name);
}

/// Takes fields out of a JSON object, strictly: no number is cut to an integer, no truth value becomes a number.
struct FieldReader {
    const nlohmann::json& object;
    const std::string& where;

    const nlohmann::json& at(const char* name) const {
        const auto it = object.find(name);
        if (it == object.end()) fail("{}: the model configuration is damaged: no field '{}'", where, name);
        return *it;
    }
    template <typename T>
    void read(const char* name, T* value) const {
        const nlohmann::json& field = at(name);
        bool fits = field.is_string();
        if constexpr (std::is_same_v<T, bool>) fits = field.is_boolean();
        if constexpr (std::is_same_v<T, int64_t>) fits = field.is_number_integer();
        if constexpr (std::is_same_v<T, double>) fits = field.is_number();
        if (!fits) fail("{}: the model configuration is damaged: '{}' cannot be {}", where, name, field.dump());
        field.get_to(*value);
    }
};

}  // namespace

std::string to_json(const ModelConfig& config) {
    nlohmann::ordered_json json = {
        {"name", config.name},
        {"family", config.family == Family::Gpt2 ? "gpt2" : "llama"},
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
        {"rope_scaling",
         {{"kind", kScalingNames[static_cast<int>(config.rope_scaling.kind)]},
          {"factor", config.rope_scaling.factor},
          {"low_freq_factor", config.rope_scaling.low_freq_factor},
          {"high_freq_factor", config.rope_scaling.high_freq_factor},
          {"original_max_position", config.rope_scaling.original_max_position}}},
    };
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);  // The name may come from a path.
}

ModelConfig model_config_from_json(const std::string& json, const std::string& where) {
    try {
        const auto object = nlohmann::json::parse(json);
        const FieldReader fields = {object, where};
        ModelConfig config;
        std::string family, scaling_name;
        fields.read("name", &config.name);
        fields.read("family", &family);
        if (family != "gpt2" && family != "llama") fail("{}: model family '{}' is unknown", where, family);
        config.family = family == "gpt2" ? Family::Gpt2 : Family::Llama;
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
        const FieldReader scaling = {fields.at("rope_scaling"), where};
        scaling.read("kind", &scaling_name);
        config.rope_scaling.kind = scaling_kind(scaling_name, where);
        scaling.read("factor", &config.rope_scaling.factor);
        scaling.read("low_freq_factor", &config.rope_scaling.low_freq_factor);
        scaling.read("high_freq_factor", &config.rope_scaling.high_freq_factor);
        scaling.read("original_max_position", &config.rope_scaling.original_max_position);
        return config;
    } catch (const nlohmann::json::exception& error) {
        fail("{}: the model configuration is damaged ({})", where, error.what());
    }
}

}  // namespace llmc
