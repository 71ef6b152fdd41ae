#include "llmc/io/peft/peft_config.h"

#include "llmc/base/dropout.h"
#include "llmc/base/error.h"
#include "llmc/io/pipeline/json_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <regex>

namespace llmc {
namespace {

using nlohmann::json;

/// Keys that change what an adapter computes, or where its tensors belong, in ways that are not built. Others that are
/// unknown say how it was initialised or trained.
constexpr std::array kUnsupported = {
    "layers_to_transform", "layer_replication", "target_parameters", "trainable_token_indices",
    "lora_bias",           "use_qalora",        "use_bdlora",        "alora_invocation_tokens",
    "velora_config",       "kasa_config",       "arrow_config",      "monteclora_config"};

bool is_default(const json& value) {
    return value.is_null() || value == false || value == 0 || (value.is_string() && value.get<std::string>().empty()) ||
           (value.is_structured() && value.empty());
}

/// As PEFT matches keys of rank_pattern and alpha_pattern: a regular expression for the name's last parts.
bool pattern_fits(const std::string& pattern, std::string_view module) {
    const std::regex whole("(.*\\.)?(" + pattern + ")");
    return std::regex_match(module.begin(), module.end(), whole);
}

template <typename T>
T by_pattern(const std::vector<std::pair<std::string, T>>& patterns, std::string_view module, T otherwise) {
    const auto found = std::find_if(patterns.begin(), patterns.end(),
                                    [&](const auto& entry) { return pattern_fits(entry.first, module); });
    return found == patterns.end() ? otherwise : found->second;
}

void require_pattern(const std::string& pattern, const json& where) {
    try {
        std::regex compiled(pattern);
    } catch (const std::regex_error&) {
        throw JsonFault{&where, fmt::format("has the key '{}', which is no regular expression", pattern)};
    }
}

int64_t as_rank(const json& value) {
    const int64_t rank = as_whole_number(value, "a rank, 1 or more");
    if (rank < 1 || rank > (1 << 20)) throw is_not(value, "a rank, 1 or more");
    return rank;
}

double as_alpha(const json& value) {
    const double alpha = as_number(value);
    if (!std::isfinite(alpha)) throw is_not(value, "a number");
    return alpha;
}

double as_dropout(const json& value) {
    const double dropout = as_number(value);
    if (!(dropout >= 0 && dropout <= kLargestDropout)) {
        throw is_not(value, "a probability, 0 to " + std::to_string(kLargestDropout).substr(0, 4));
    }
    return dropout;
}

std::vector<std::string> as_texts(const json& value) {
    std::vector<std::string> texts;
    for (const json& item : as_list(value)) texts.push_back(as_text(item));
    return texts;
}

void read_targets(const json& content, PeftConfig* config) {
    const json* targets = member_or_null(content, "target_modules");
    if (targets == nullptr) return;
    if (targets->is_string()) {
        config->target_pattern = targets->get<std::string>();
    } else {
        config->target_modules = as_texts(*targets);
    }
}

template <typename T, typename Read>
void read_pattern(const json& content, const char* key, std::vector<std::pair<std::string, T>>* patterns,
                  const Read& read) {
    const json* object = member_or_null(content, key);
    if (object == nullptr) return;
    for (const auto& [pattern, value] : as_object(*object).items()) {
        require_pattern(pattern, *object);
        patterns->emplace_back(pattern, read(value));
    }
}

PeftConfig read(const json& content) {
    as_object(content);
    PeftConfig config;
    const json& kind = member(content, "peft_type");
    if (as_text(kind) != "LORA") {
        throw JsonFault{&kind, fmt::format("is {}; only adapters of the kind LORA can be read", kind.dump())};
    }
    for (const char* key : kUnsupported) {
        const json* value = member_or_null(content, key);
        if (value == nullptr || is_default(*value)) continue;
        throw JsonFault{value, fmt::format("is {}, which this program does not build; train the adapter without it",
                                           value->dump().substr(0, 60))};
    }
    if (const json* value = member_or_null(content, "r")) config.rank = as_rank(*value);
    if (const json* value = member_or_null(content, "lora_alpha")) config.alpha = as_alpha(*value);
    if (const json* value = member_or_null(content, "lora_dropout")) config.dropout = as_dropout(*value);
    if (const json* value = member_or_null(content, "bias")) {
        config.bias = as_text(*value);
        if (config.bias != "none" && config.bias != "all" && config.bias != "lora_only") {
            throw is_not(*value, "none, all or lora_only");
        }
    }
    config.rslora = flag_of(content, "use_rslora", false);
    config.dora = flag_of(content, "use_dora", false);
    config.fan_in_fan_out = flag_of(content, "fan_in_fan_out", false);
    config.base_model = text_of(content, "base_model_name_or_path");
    read_targets(content, &config);
    if (const json* value = member_or_null(content, "modules_to_save")) config.modules_to_save = as_texts(*value);
    read_pattern(content, "rank_pattern", &config.rank_pattern, as_rank);
    read_pattern(content, "alpha_pattern", &config.alpha_pattern, as_alpha);
    return config;
}

}  // namespace

int64_t PeftConfig::rank_of(std::string_view module) const { return by_pattern(rank_pattern, module, rank); }

double PeftConfig::alpha_of(std::string_view module) const { return by_pattern(alpha_pattern, module, alpha); }

double PeftConfig::scale_of(std::string_view module) const {
    const auto r = static_cast<double>(rank_of(module));
    return alpha_of(module) / (rslora ? std::sqrt(r) : r);
}

bool PeftConfig::names(std::string_view module) const {
    if (!target_pattern.empty() || target_modules.empty()) return true;
    return std::any_of(target_modules.begin(), target_modules.end(),
                       [&](const std::string& target) { return module == target || module.ends_with("." + target); });
}

PeftConfig peft_config_from_json(const std::string& text, const std::string& path) {
    const json content = parse_json(text, path);
    return reading("'" + path + "'", content, [&] { return read(content); });
}

std::string to_json(const PeftConfig& config) {
    json content = {
        {"peft_type", "LORA"},
        {"task_type", "CAUSAL_LM"},
        {"inference_mode", true},
        {"r", config.rank},
        {"lora_alpha", config.alpha},
        {"lora_dropout", config.dropout},
        {"bias", config.bias},
        {"use_rslora", config.rslora},
        {"use_dora", config.dora},
        {"fan_in_fan_out", config.fan_in_fan_out},
        {"target_modules", config.target_modules},
        {"rank_pattern", json::object()},
        {"alpha_pattern", json::object()},
        {"init_lora_weights", true},
    };
    content["base_model_name_or_path"] = config.base_model.empty() ? json() : json(config.base_model);
    content["modules_to_save"] = config.modules_to_save.empty() ? json() : json(config.modules_to_save);
    // PEFT takes whole numbers where there are some.
    if (config.alpha == std::floor(config.alpha)) content["lora_alpha"] = static_cast<int64_t>(config.alpha);
    for (const auto& [pattern, rank] : config.rank_pattern) content["rank_pattern"][pattern] = rank;
    for (const auto& [pattern, alpha] : config.alpha_pattern) content["alpha_pattern"][pattern] = alpha;
    return content.dump(2) + "\n";
}

}  // namespace llmc
