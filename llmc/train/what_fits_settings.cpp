#include "llmc/train/what_fits_settings.h"

#include "llmc/base/advice_text.h"
#include "llmc/base/printable.h"
#include "llmc/plan/policy.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/setup.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <type_traits>
#include <variant>

namespace llmc {
namespace {

constexpr int64_t kUsualRank = 16;

/// What a run is called with where the user, or a way to train, has it: before the shape of a batch, and behind it.
constexpr const char* kOfModel[] = {"layers",    "channels", "heads",      "kv-heads",
                                    "head-size", "ffn-size", "vocab-size", "max-seq-len"};
constexpr const char* kOfTraining[] = {"optimizer",    "moments",    "masters",    "gradients",    "freeze",
                                       "lora",         "lora-alpha", "rslora",     "lora-targets", "lora-bias",
                                       "lora-dropout", "dropout",    "base-format"};

std::string value_text(const Options& options, const OptionRow& row) {
    return std::visit(
        [&](auto member) -> std::string {
            const auto& value = options.*member;
            if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, std::vector<std::string>>) {
                return fmt::format("{}", fmt::join(value, ","));
            } else {
                return fmt::format("{}", value);
            }
        },
        row.field);
}

const OptionRow& option_named(const std::string& name) {
    const std::vector<OptionRow>& table = option_table();
    return *std::find_if(table.begin(), table.end(), [&](const OptionRow& row) { return row.name() == name; });
}

/// As TOML has it: numbers and truth values without quotes.
std::string toml_text(const std::string& value) {
    double number = 0;
    const auto read = std::from_chars(value.data(), value.data() + value.size(), number);
    const bool is_number = read.ec == std::errc() && read.ptr == value.data() + value.size();
    return is_number || value == "true" || value == "false" ? value : fmt::format("\"{}\"", value);
}

/// The lower half of the layers and the embeddings.
std::string lower_half(const ModelConfig& config) {
    std::string text = "wte";
    if (!config.is_rotary()) text += ",wpe";
    return text + (config.L > 1 ? fmt::format(",layers.0-{}.*", config.L / 2 - 1) : "");
}

Options with_offload_option(const Options& options, const std::string& list) {
    Options other = options;
    other.offload = list;
    return other;
}

/// The fastest fixed level with one placement, and the batches that were the fastest and the largest of any level.
struct Placed {
    std::string offload;
    std::optional<Setting> setting;
    std::vector<int64_t> batches;
    double speed() const { return setting ? setting->fit.tokens_per_second : 0; }
};

Placed fastest_level(const Options& options, const std::string& offload, const std::vector<std::string>& levels,
                     const Model& model, Backend& backend, int64_t limit) {
    Placed placed = {offload, {}, {}};
    const WhatFits what_fits(with_offload_option(options, offload), model, backend, limit);
    for (const std::string& level : levels) {
        if (level == "auto" || (find_policy(level).host_memory && offload != "none")) continue;
        if (!what_fits.fits(level, {1, options.seq_len})) continue;
        const Largest batch = what_fits.batch(level, options.seq_len);
        const Largest fastest = what_fits.fastest(level, options.seq_len, batch);
        placed.batches.insert(placed.batches.end(), {fastest.size, batch.size});
        if (fastest.plan.tokens_per_second <= placed.speed()) continue;
        placed.setting = {level, offload, fastest.size, options.seq_len, fastest.plan};
    }
    return placed;
}

std::vector<std::string> policy_names() {
    std::vector<std::string> names;
    for (const PolicyRow& policy : policies()) names.emplace_back(policy.name);
    return names;
}

}  // namespace

OptionWords words_of(const Options& options, const Setting& setting, DType dtype, int64_t limit) {
    OptionWords words = {{"model", options.model}};
    const auto add_given = [&](const char* name) {
        const bool is_of_way = (name == std::string("freeze") && !options.freeze.empty()) ||
                               (name == std::string("lora") && options.lora > 0) ||
                               (name == std::string("base-format") && options.base_format != "auto");
        if (is_of_way || options.was_given(name)) words.emplace_back(name, value_text(options, option_named(name)));
    };
    for (const char* name : kOfModel) add_given(name);
    words.emplace_back("batch-size", std::to_string(setting.batch_size));
    words.emplace_back("seq-len", std::to_string(setting.seq_len));
    for (const char* name : kOfTraining) add_given(name);
    words.emplace_back("recompute", setting.recompute);
    if (setting.offload != "none") words.emplace_back("offload", setting.offload);
    // What auto found was found within this; another budget is another plan.
    if (setting.recompute == "auto") {
        words.emplace_back("memory-budget", size_option(limit));
        add_given("host-memory-budget");
    }
    if (options.block_tokens > 0) words.emplace_back("block-tokens", std::to_string(options.block_tokens));
    if (options.tile_tokens != "none") words.emplace_back("tile-tokens", options.tile_tokens);
    if (options.logits_chunk > 0) words.emplace_back("logits-chunk", std::to_string(options.logits_chunk));
    if (options.zero > 0) words.emplace_back("zero", std::to_string(options.zero));
    words.emplace_back("dtype", std::string(name_of(dtype)));
    return words;
}

std::string command_of(const OptionWords& words) {
    std::string text = "train_gpt";
    for (const auto& [name, value] : words) {
        text += value == "true" ? fmt::format(" --{}", name) : fmt::format(" --{}={}", name, shell_word(value));
    }
    return text;
}

std::string config_of(const OptionWords& words, const std::string& remark) {
    std::string text = fmt::format("# {}\n", remark);
    for (const auto& [name, value] : words) text += fmt::format("{} = {}\n", name, toml_text(value));
    return text;
}

Options options_of(WayToTrain way, const Options& given, const ModelConfig& config) {
    Options options = given;
    options.lora = 0;
    options.freeze.clear();
    if (way == WayToTrain::Part) options.freeze = lower_half(config);
    if (way == WayToTrain::Lora || way == WayToTrain::QLora) options.lora = given.lora > 0 ? given.lora : kUsualRank;
    if (way == WayToTrain::QLora) options.base_format = name_of(WeightFormat::Nf4Double);
    return options;
}

std::vector<std::string> levels_to_fit(const Options& options) {
    std::vector<std::string> levels = wanted_policies(options);
    if (!options.was_given("recompute")) levels.push_back("auto");
    return levels;
}

std::optional<Setting> fastest_setting(const Options& options, const Model& model, Backend& backend, int64_t limit) {
    constexpr size_t kOfAuto = 3;
    const std::vector<std::string> levels = levels_to_fit(options);
    const bool is_open = !options.was_given("offload") || places_by_itself(options);
    const std::vector<std::string> lists =
        is_open ? placements_to_try(options, backend) : std::vector<std::string>{options.offload};
    std::vector<Placed> all;
    for (const std::string& list : lists) all.push_back(fastest_level(options, list, levels, model, backend, limit));
    std::stable_sort(all.begin(), all.end(), [](const Placed& a, const Placed& b) { return a.speed() > b.speed(); });
    std::optional<Setting> best = all.front().setting;
    const bool has_auto = std::find(levels.begin(), levels.end(), "auto") != levels.end();
    for (size_t i = 0; has_auto && i < std::min(all.size(), kOfAuto); ++i) {
        const WhatFits what_fits(with_offload_option(options, all[i].offload), model, backend, limit);
        const Largest most = what_fits.batch("auto", options.seq_len);
        if (most.size == 0) continue;
        const Largest fastest = what_fits.fastest("auto", options.seq_len, most, all[i].batches);
        if (best && fastest.plan.tokens_per_second <= best->fit.tokens_per_second) continue;
        best = {"auto", all[i].offload, fastest.size, options.seq_len, fastest.plan};
    }
    return best;
}

WayFit fit_of(WayToTrain way, const Options& given, const ModelConfig& config, Backend& backend, int64_t limit,
              Candidates candidates) {
    WayFit result = {false, options_of(way, given, config), {}, 0};
    const Model model = model_to_train(result.options, config);
    const std::optional<Options> possible = with_what_fits(result.options, model, backend, limit);
    if (!possible) {
        const WhatFits what_fits(result.options, model, backend, limit);
        result.smallest_bytes = what_fits.measure("sqrt", {1, result.options.seq_len}).total_bytes;
        return result;
    }
    const std::string offload = possible->offload;
    result.options.seq_len = possible->seq_len;
    const std::optional<Setting> found =
        candidates == Candidates::All
            ? fastest_setting(result.options, model, backend, limit)
            : fastest_level(result.options, offload, policy_names(), model, backend, limit).setting;
    result.options.offload = found ? found->offload : offload;
    result.fits = found.has_value();
    if (found) result.setting = *found;
    return result;
}

}  // namespace llmc
