// ModelConfig: everything that fixes a model's architecture, and the presets with their published dimensions.
#pragma once

#include "llmc/model/dims.h"
#include "llmc/model/family.h"
#include "llmc/model/rope.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

struct ModelConfig {
    std::string name;              ///< Preset or file the configuration came from, for messages.
    Family family = Family::Gpt2;  ///< What it is called; the features say what it is.
    Features features = {};
    int64_t L = 0, C = 0, NH = 0, NKV = 0, HD = 0, F = 0, V = 0, maxT = 0;
    bool tied = true;  ///< The LM head is the token embedding.
    double norm_epsilon = 1e-5;
    // Positions::Rotary only.
    double rope_theta = 10000;
    int64_t rotary_size = 0;  ///< Columns of a head that are rotated, from its first; 0: all.
    RopeScaling rope_scaling;
    std::vector<bool> rope_layers;  ///< Layers with rotary positions; empty: all.
    // A window of W tokens: a query sees itself and the W - 1 tokens before it.
    int64_t window = 0;               ///< 0: none.
    std::vector<bool> window_layers;  ///< Layers that have it; empty: all.
    bool operator==(const ModelConfig&) const = default;

    int64_t Vp() const { return (V + kVocabularyMultiple - 1) / kVocabularyMultiple * kVocabularyMultiple; }
    int64_t QKV() const { return (NH + 2 * NKV) * HD; }
    int64_t attention_columns() const { return NH * HD; }

    bool is_rotary() const { return features.positions == Positions::Rotary; }
    int64_t rotary_columns() const { return rotary_size > 0 ? rotary_size : HD; }
    bool rotates(int64_t layer) const {
        return is_rotary() && (rope_layers.empty() || rope_layers[static_cast<size_t>(layer)]);
    }
    /// 0: the layer has none.
    int64_t window_of(int64_t layer) const {
        return window_layers.empty() || window_layers[static_cast<size_t>(layer)] ? window : 0;
    }
    /// What attention's scores are multiplied by.
    float score_scale(int64_t layer) const;
};

/// A configuration of the family without sizes.
ModelConfig config_of(Family family);

/// The same model with another number of layers; what is said layer by layer is cut, or begins anew.
ModelConfig with_layers(ModelConfig config, int64_t layers);

/// Tokens that a query sees on average, times two, in sequences of T: T where there is no window. Over all layers.
double attention_span(const ModelConfig& config, int64_t T);
/// Of one layer.
double attention_span(const ModelConfig& config, int64_t T, int64_t layer);

/// Names of all presets, in the order of `--help`.
std::vector<std::string> preset_names();

/// The preset of that name, or llm.c's dN form ("d12": N layers, GPT-2); nothing if there is none. maxT = 0 in the
/// small presets means "as long as the run's sequences".
std::optional<ModelConfig> find_preset(const std::string& name);
/// The same; fails (exit code 2) with the list of names if there is none.
ModelConfig preset(const std::string& name);

/// Throws a usage Error naming the option if the dimensions do not fit together.
void validate(const ModelConfig& config);

/// "GPT-2, 12 layers, 12 heads, 768 channels, vocabulary 50257".
std::string describe(const ModelConfig& config);

/// The first feature in which a model is not like others, in words ("it has biases in its MLPs"); empty if it is.
std::string difference(const Features& is, const Features& others);

/// One JSON object with every field (config_json.cpp); from_json() names a missing or mistyped field in its Error. It
/// reads what earlier versions wrote, too.
std::string to_json(const ModelConfig& config);
ModelConfig model_config_from_json(const std::string& json, const std::string& where);

}  // namespace llmc
