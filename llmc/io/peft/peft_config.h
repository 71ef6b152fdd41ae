// adapter_config.json of a folder that the library PEFT writes for low-rank adapters.
// https://huggingface.co/docs/peft/developer_guides/lora and package_reference/lora
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmc {

struct PeftConfig {
    std::string base_model;  ///< Name or folder of the model it was trained on; empty where unknown.
    int64_t rank = 8;
    double alpha = 8;
    double dropout = 0;         ///< Probability in training, of what adapters read.
    std::string bias = "none";  ///< Or "all", "lora_only": which biases were trained and are in the folder.
    bool rslora = false;
    bool dora = false;
    bool fan_in_fan_out = false;
    /// Modules with other ranks or alphas: patterns for the ends of their names. The first that fits counts.
    std::vector<std::pair<std::string, int64_t>> rank_pattern;
    std::vector<std::pair<std::string, double>> alpha_pattern;
    std::vector<std::string> target_modules;  ///< Names of modules, or ends of them; empty where a pattern says which.
    std::string target_pattern;               ///< A regular expression for whole names, or "all-linear".
    std::vector<std::string> modules_to_save;

    /// Alpha and rank of a module ("model.layers.0.self_attn.q_proj").
    int64_t rank_of(std::string_view module) const;
    double alpha_of(std::string_view module) const;
    /// What the product of a module's factors is multiplied by.
    double scale_of(std::string_view module) const;
    /// Whether target_modules name it; true where a pattern says which.
    bool names(std::string_view module) const;
};

/// An Error that names file and key where it is no such file, of another kind of adapter, or asks for what this program
/// does not do.
PeftConfig peft_config_from_json(const std::string& text, const std::string& path);

/// The file's text.
std::string to_json(const PeftConfig& config);

}  // namespace llmc
