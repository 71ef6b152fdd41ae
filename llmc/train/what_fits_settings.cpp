#include "llmc/train/what_fits_settings.h"

#include "llmc/base/advice_text.h"
#include "llmc/base/printable.h"
#include "llmc/plan/policy.h"
#include "llmc/train/config_file.h"
#include "llmc/train/offload.h"
#include "llmc/train/options_levels.h"
#include "llmc/train/placement.h"
#include "llmc/train/setup.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
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

/// The lower half of the layers and the embeddings.
std::string lower_half(const ModelConfig& config) {
    std::string text = "wte";
    if (!config.is_rotary()) text += ",wpe";
    return text + (config.L > 1 ? fmt::format(",layers.0-{}.*", config.L / 2 - 1) : "");
}

/// A level with a placement, and its fastest batch.
struct Candidate {
    std::string level, offload;
    int64_t batch_size = 0;
    double tokens_per_second = 0;
};

/// The fastest fixed level with one placement, and the batches that were the fastest and the largest of any level.
struct Placed {
    Candidate fastest;
    std::vector<int64_t> batches;
};

Placed fastest_level(const WhatFits& what_fits, const std::string& offload, const std::vector<std::string>& levels,
                     int64_t T) {
    Placed placed = {{"", offload}, {}};
    for (const std::string& level : levels) {
        if (level == "auto" || (find_policy(level).host_memory && offload != "none")) continue;
        const int64_t fastest = what_fits.fastest(level, T);
        if (fastest == 0) continue;
        placed.batches.insert(placed.batches.end(), {fastest, what_fits.batch(level, T)});
        const double speed = what_fits.speed(level, {fastest, T});
        if (speed > placed.fastest.tokens_per_second) placed.fastest = {level, offload, fastest, speed};
    }
    return placed;
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
    words.emplace_back(kLevelOption, setting.level);
    if (setting.offload != "none") words.emplace_back("offload", setting.offload);
    // What auto found was found within this; another budget is another plan.
    if (setting.level == "auto") {
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
    for (const auto& [name, value] : words)
        text += fmt::format("{} = {}\n", name, is_bare_value(value) ? value : quoted(value));
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

std::optional<Setting> fastest_setting(PlacedFits* placed, int64_t T) {
    constexpr size_t kOfAuto = 3;
    const Options& options = placed->options();
    const std::vector<std::string> levels = levels_to_fit(options);
    const bool is_open = !options.was_given("offload") || places_by_itself(options);
    const std::vector<std::string> lists =
        is_open ? placements_to_try(options, placed->backend()) : std::vector<std::string>{options.offload};
    std::vector<Placed> all(lists.size());
    placed->for_each(
        lists, [&](size_t i, const WhatFits& what_fits) { all[i] = fastest_level(what_fits, lists[i], levels, T); });
    std::stable_sort(all.begin(), all.end(), [](const Placed& a, const Placed& b) {
        return a.fastest.tokens_per_second > b.fastest.tokens_per_second;
    });
    Candidate best = all.front().fastest;
    const bool has_auto = std::find(levels.begin(), levels.end(), "auto") != levels.end();
    if (has_auto) {
        std::vector<std::string> fastest_lists;
        for (size_t i = 0; i < std::min(all.size(), kOfAuto); ++i) fastest_lists.push_back(all[i].fastest.offload);
        std::vector<Candidate> of_auto(fastest_lists.size());
        placed->for_each(fastest_lists, [&](size_t i, const WhatFits& what_fits) {
            const int64_t fastest = what_fits.fastest("auto", T, all[i].batches);
            const double speed = fastest > 0 ? what_fits.speed("auto", {fastest, T}) : 0;
            of_auto[i] = {"auto", fastest_lists[i], fastest, speed};
        });
        for (const Candidate& each : of_auto)
            if (each.tokens_per_second > best.tokens_per_second) best = each;
    }
    if (best.batch_size == 0) return std::nullopt;
    const BatchShape shape = {best.batch_size, T};
    return Setting{best.level, best.offload, shape.B, shape.T, placed->with(best.offload).measure(best.level, shape)};
}

WayFit fit_of(WayToTrain way, const Options& given, const ModelConfig& config, Backend& backend, int64_t limit) {
    WayFit result = {false, options_of(way, given, config), {}, 0};
    const Model model = model_to_train(result.options, config);
    PlacedFits placed(result.options, model, backend, limit);
    const std::optional<Options> possible = with_what_fits(&placed);
    if (possible) result.options = *possible;
    const std::optional<Setting> found =
        possible ? fastest_setting(&placed, possible->seq_len) : std::optional<Setting>();
    result.fits = found.has_value();
    if (found) {
        result.setting = *found;
        result.options.offload = found->offload;
        return result;
    }
    const std::string level = given.was_given(kLevelOption) ? wanted_policies(given).front() : "sqrt";
    result.smallest_bytes = placed.with(result.options.offload).measure(level, {1, result.options.seq_len}).total_bytes;
    return result;
}

}  // namespace llmc
