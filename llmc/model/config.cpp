#include "llmc/model/config.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/nearest_word.h"
#include "llmc/base/program_name.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace llmc {
namespace {

ModelConfig gpt2(const std::string& name, int64_t L, int64_t NH, int64_t C, int64_t V, int64_t maxT) {
    ModelConfig config = config_of(Family::Gpt2);
    config.name = name;
    config.L = L, config.C = C, config.NH = NH, config.NKV = NH, config.HD = C / NH, config.F = 4 * C;
    config.V = V, config.maxT = maxT, config.tied = true;
    return config;
}

ModelConfig llama(const std::string& name, int64_t L, int64_t NH, int64_t NKV, int64_t C, int64_t F, int64_t V,
                  int64_t maxT, double rope_theta, bool tied = false) {
    ModelConfig config = config_of(Family::Llama);
    config.name = name;
    config.L = L, config.C = C, config.NH = NH, config.NKV = NKV, config.HD = C / NH, config.F = F;
    config.V = V, config.maxT = maxT, config.tied = tied, config.rope_theta = rope_theta;
    return config;
}

ModelConfig with_llama3_scaling(ModelConfig config, double factor) {
    config.rope_scaling.kind = RopeScaling::Kind::Llama3;
    config.rope_scaling.factor = factor;
    return config;
}

/// Qwen2.5 (biases in qkv) and Qwen3 (q/k norms, heads of their own size).
ModelConfig qwen(Family family, int64_t HD, ModelConfig config) {
    config.family = family;
    config.features = row_of(family).features;
    config.HD = HD;
    config.norm_epsilon = 1e-6;
    return config;
}

/// Every fourth layer has no positions.
ModelConfig smollm3(ModelConfig config) {
    config.family = Family::SmolLm3;
    config.norm_epsilon = 1e-6;
    for (int64_t layer = 0; layer < config.L; ++layer) config.rope_layers.push_back(layer % 4 != 3);
    return config;
}

ModelConfig mistral(ModelConfig config) {
    config.family = Family::Mistral;
    return config;
}

ModelConfig phi3(ModelConfig config, int64_t window) {
    config.family = Family::Phi3;
    config.window = window;
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
        mistral(llama("mistral-7b", 32, 32, 8, 4096, 14336, 32768, 32768, 1e6)),  // v0.3, which has no window.
        llama("llama3-8b", 32, 32, 8, 4096, 14336, 128256, 8192, 5e5),
        with_llama3_scaling(llama("llama3.1-8b", 32, 32, 8, 4096, 14336, 128256, 131072, 5e5), 8),
        phi3(llama("phi-3-mini", 32, 32, 32, 3072, 8192, 32064, 4096, 1e4), 2047),
        smollm3(llama("smollm3-3b", 36, 16, 4, 2048, 11008, 128256, 65536, 5e6, true)),
        qwen(Family::Qwen2, 64, llama("qwen2.5-0.5b", 24, 14, 2, 896, 4864, 151936, 32768, 1e6, true)),
        qwen(Family::Qwen2, 128, llama("qwen2.5-1.5b", 28, 12, 2, 1536, 8960, 151936, 131072, 1e6, true)),
        qwen(Family::Qwen2, 128, llama("qwen2.5-3b", 36, 16, 2, 2048, 11008, 151936, 32768, 1e6, true)),
        qwen(Family::Qwen2, 128, llama("qwen2.5-7b", 28, 28, 4, 3584, 18944, 152064, 131072, 1e6)),
        qwen(Family::Qwen3, 128, llama("qwen3-0.6b", 28, 16, 8, 1024, 3072, 151936, 40960, 1e6, true)),
        qwen(Family::Qwen3, 128, llama("qwen3-1.7b", 28, 16, 8, 2048, 6144, 151936, 40960, 1e6, true)),
        qwen(Family::Qwen3, 128, llama("qwen3-4b", 36, 32, 8, 2560, 9728, 151936, 40960, 1e6, true)),
        qwen(Family::Qwen3, 128, llama("qwen3-8b", 36, 32, 8, 4096, 12288, 151936, 40960, 1e6)),
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
    fail_usage("--model={}: there is no such preset{}; {} explain presets lists them", name,
               likely_as_question(name, preset_names()), program_name());
}

namespace {

void validate_layer_list(const char* what, const std::vector<bool>& layers, int64_t L) {
    if (layers.empty() || static_cast<int64_t>(layers.size()) == L) return;
    fail_usage("--layers={}: the model says for each of {} layers which have {}; leave it out", L, layers.size(), what);
}

void validate_rotary(const ModelConfig& config) {
    const int64_t rotated = config.rotary_columns();
    if (rotated % 2 != 0 || rotated > config.HD) {
        const std::string part = rotated == config.HD ? "" : fmt::format(", and {} of its columns to rotate", rotated);
        fail_usage("--head-size={}: rotary embedding needs an even head size{}", config.HD, part);
    }
    const RopeScaling& scaling = config.rope_scaling;
    if (scaling.kind != RopeScaling::Kind::LongRope) return;
    const auto pairs = static_cast<size_t>(rotated / 2);
    if (scaling.short_factors.size() != pairs || scaling.long_factors.size() != pairs) {
        fail_usage(
            "--head-size={}: longrope needs a short and a long factor for each of {} pairs of columns, not {} and {}",
            config.HD, pairs, scaling.short_factors.size(), scaling.long_factors.size());
    }
}

}  // namespace

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
    if (!row_of(config.family).grouped_queries && config.NKV != config.NH) {
        fail_usage("--kv-heads={}: {} has one key/value head per head ({}); choose a LLaMA model", config.NKV,
                   name_of(config.family), config.NH);
    }
    if (config.window < 0) fail_usage("a window of {} tokens: must be at least 1", config.window);
    validate_layer_list("windows", config.window_layers, config.L);
    validate_layer_list("rotary positions", config.rope_layers, config.L);
    if (config.is_rotary()) validate_rotary(config);
}

std::string describe(const ModelConfig& config) {
    std::string text =
        fmt::format("{}, {}, {}", name_of(config.family), counted(config.L, "layer"), counted(config.NH, "head"));
    if (config.NKV != config.NH) text += fmt::format(" ({} key/value)", config.NKV);
    text += fmt::format(" of {}, {}, vocabulary {}", config.HD, counted(config.C, "channel"), config.V);
    if (config.window > 0) {
        const auto with = std::count(config.window_layers.begin(), config.window_layers.end(), true);
        text += fmt::format(", windows of {}", counted(config.window, "token"));
        if (!config.window_layers.empty()) text += fmt::format(" in {}", counted(with, "layer"));
    }
    return text;
}

std::string difference(const Features& is, const Features& others) {
    const auto biases = [](bool has) { return has ? "it has biases in" : "it has no biases in"; };
    if (is.norm != others.norm) return "its norms are of another kind";
    if (is.activation != others.activation) return "its activation function is another";
    if (is.positions != others.positions) return "its positions are of another kind";
    if (is.qkv_bias != others.qkv_bias)
        return fmt::format("{} its query, key and value projections", biases(is.qkv_bias));
    if (is.att_proj_bias != others.att_proj_bias) return fmt::format("{} attention's output", biases(is.att_proj_bias));
    if (is.mlp_bias != others.mlp_bias) return fmt::format("{} its MLPs", biases(is.mlp_bias));
    if (is.qk_norm != others.qk_norm) return is.qk_norm ? "it normalises queries and keys" : "it has no q/k norms";
    if (is.scale_scores != others.scale_scores || is.scale_scores_by_layer != others.scale_scores_by_layer) {
        return "it scales attention's scores in another way";
    }
    return "";
}

ModelConfig config_of(Family family) {
    ModelConfig config;
    config.family = family;
    config.features = row_of(family).features;
    return config;
}

ModelConfig with_layers(ModelConfig config, int64_t layers) {
    config.L = layers;
    for (std::vector<bool>* list : {&config.rope_layers, &config.window_layers}) {
        const size_t period = list->size();
        if (period == 0) continue;
        list->resize(static_cast<size_t>(layers));
        for (size_t layer = period; layer < list->size(); ++layer) (*list)[layer] = (*list)[layer - period];
    }
    return config;
}

float ModelConfig::score_scale(int64_t layer) const {
    const float scale = features.scale_scores ? 1.0f / std::sqrt(static_cast<float>(HD)) : 1.0f;
    return features.scale_scores_by_layer ? scale / static_cast<float>(layer + 1) : scale;
}

double attention_span(const ModelConfig& config, int64_t T, int64_t layer) {
    const int64_t window = config.window_of(layer);
    const auto all = static_cast<double>(T), hidden = static_cast<double>(T - window);
    return window == 0 || window >= T ? all : all - hidden * hidden / all;
}

double attention_span(const ModelConfig& config, int64_t T) {
    if (config.window == 0) return static_cast<double>(T);
    double sum = 0;
    for (int64_t layer = 0; layer < config.L; ++layer) sum += attention_span(config, T, layer);
    return sum / static_cast<double>(config.L);
}

}  // namespace llmc
