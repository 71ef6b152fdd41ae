// ModelConfig: everything that fixes a model's architecture, and the presets with their published dimensions.
#pragma once

#include "llmc/model/dims.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace llmc {

enum class Family { Gpt2, Llama };

/// How RoPE frequencies are stretched for contexts longer than the model was first trained on.
struct RopeScaling {
    enum class Kind { None, Linear, Llama3 };
    Kind kind = Kind::None;
    double factor = 1;
    // Llama3 only (Dubey et al. 2024, and the reference implementation of Llama 3.1):
    double low_freq_factor = 1;
    double high_freq_factor = 4;
    double original_max_position = 8192;
    bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
    std::string name;  ///< Preset or file the configuration came from, for messages.
    Family family = Family::Gpt2;
    int64_t L = 0, C = 0, NH = 0, NKV = 0, HD = 0, F = 0, V = 0, maxT = 0;
    bool tied = true;  ///< The LM head is the token embedding.
    double norm_epsilon = 1e-5;
    double rope_theta = 10000;  ///< LLaMA only.
    RopeScaling rope_scaling;   ///< LLaMA only.
    bool operator==(const ModelConfig&) const = default;

    int64_t Vp() const { return (V + kVocabularyMultiple - 1) / kVocabularyMultiple * kVocabularyMultiple; }
    int64_t QKV() const { return (NH + 2 * NKV) * HD; }
    int64_t attention_columns() const { return NH * HD; }
};

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

std::string name_of(Family family);

/// One JSON object with every field; from_json() names a missing or mistyped field in its Error.
std::string to_json(const ModelConfig& config);
ModelConfig model_config_from_json(const std::string& json, const std::string& where);

}  // namespace llmc
