#include "llmc/train/plan_what_fits.h"

#include "llmc/base/advice_text.h"
#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/base/output.h"
#include "llmc/base/process_limits.h"
#include "llmc/base/terminal.h"
#include "llmc/base/units.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/report_units.h"
#include "llmc/draw/text_table.h"
#include "llmc/io/json_text.h"
#include "llmc/train/options_levels.h"
#include "llmc/train/output_file.h"
#include "llmc/train/placement.h"
#include "llmc/train/profile_file.h"
#include "llmc/train/remedy.h"
#include "llmc/train/setup.h"
#include "llmc/train/what_fits_settings.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <tuple>
#include <utility>

namespace llmc {
namespace {

/// So that a plan twice as large as what fits can still be counted.
constexpr int64_t kMostBytes = int64_t{1} << 60;

int64_t limit_of(const Options& options, const Backend& backend) {
    const DeviceInfo device = backend.info();
    if (options.what_fits == kWholeDevice) return std::min(kMostBytes, memory_limit(options, device));
    const int64_t whole = options.device_profile.empty() ? device.total() : device_profile_of(options).usable_bytes();
    return std::min(kMostBytes, parse_budget("--what-fits", options.what_fits, whole));
}

/// "23.0 GiB (24.0 GiB of rtx4090, less 1.00 GiB for CUDA and the screen)".
std::string describe_limit(const Options& options, const Backend& backend, int64_t limit) {
    if (options.what_fits != kWholeDevice) {
        return fmt::format("{} ({} B)", options.what_fits, format_count(limit));
    }
    const std::string bound = memory_bound(options, backend.info());
    return format_bytes(limit) + (bound.empty() ? "" : fmt::format(" ({})", bound));
}

Setting setting_of(const Options& options, const WhatFitsRow& row) {
    return {row.policy, options.offload, row.fastest.size, options.seq_len, row.fastest.plan};
}

nlohmann::ordered_json largest_json(const Largest& largest) {
    if (largest.size == 0) {
        return {
            {"largest", 0}, {"smallest", largest.smallest_size}, {"smallest_total_bytes", largest.plan.total_bytes}};
    }
    return {{"largest", largest.size},
            {"total_bytes", largest.plan.total_bytes},
            {"predicted_tokens_per_second", largest.plan.tokens_per_second}};
}

nlohmann::ordered_json setting_json(const Setting& setting) {
    return {{kLevelOption, setting.level},
            {"offload", setting.offload},
            {"batch_size", setting.batch_size},
            {"seq_len", setting.seq_len},
            {"total_bytes", setting.fit.total_bytes},
            {"host_bytes", setting.fit.host_bytes},
            {"predicted_tokens_per_second", setting.fit.tokens_per_second}};
}

std::string to_json(const Options& options, const Model& model, const WhatFitsLimits& limits, DType dtype,
                    const std::vector<WhatFitsRow>& rows, const std::optional<Setting>& best,
                    const nlohmann::ordered_json& ways) {
    constexpr int64_t kAnyLength = 100'000'000;
    nlohmann::ordered_json json = {{"model", model.config.name},  {"parameters", model.parameter_count()},
                                   {"limit_bytes", limits.bytes}, {"dtype", name_of(dtype)},
                                   {"seq_len", options.seq_len},  {"offload", options.offload}};
    if (limits.published_length < kAnyLength) json["max_seq_len"] = limits.published_length;
    if (model.has_frozen()) json["trainable_parameters"] = model.trainable_count();
    json["fits"] = nlohmann::ordered_json::array();
    for (const WhatFitsRow& row : rows) {
        nlohmann::ordered_json entry = {{kLevelOption, row.policy},
                                        {"batch_size", largest_json(row.batch)},
                                        {"seq_len", largest_json(row.sequence)}};
        if (row.fastest.size > 0) entry["fastest"] = setting_json(setting_of(options, row));
        json["fits"].push_back(entry);
    }
    if (best) json["fastest"] = setting_json(*best);
    json.update(ways);
    return json_report(json);
}

/// Prints now: the next row takes seconds.
void show(const Options& options, const std::string& text) {
    if (options.json) return;
    print_output(text);
    flush_output();
}

/// Every level, and auto, whose batches go through those of the levels: what it finds is no slower than any of them.
std::vector<WhatFitsRow> find_rows(const Options& options, const WhatFits& what_fits, const WhatFitsLimits& limits) {
    const std::vector<std::string> wanted = levels_to_fit(options);
    std::vector<WhatFitsRow> rows;
    std::vector<int64_t> batches;
    for (const std::string& policy : wanted) {
        if (policy == "auto") continue;
        rows.push_back(what_fits.row(policy, limits.seq_len));
        for (const Largest& largest : {rows.back().fastest, rows.back().batch}) batches.push_back(largest.size);
    }
    const bool has_fixed = !rows.empty();
    if (has_fixed) show(options, what_fits_table(limits, rows));
    if (std::find(wanted.begin(), wanted.end(), "auto") == wanted.end()) return rows;
    rows.push_back(what_fits.row("auto", limits.seq_len, batches));
    show(options, what_fits_table(limits, {rows.back()}, !has_fixed));
    return rows;
}

/// What is said where nothing fits: what binds, and what would do.
std::string nothing_fits(const Options& options, const Model& model, Backend& backend, int64_t limit) {
    Options one = options;
    one.batch_size = 1, one.memory_budget = size_option(limit);
    one.recompute = "auto";
    one.total_batch_size = 0;
    const BatchShape shape = {1, options.seq_len};
    const std::string floor = floor_words(one, model, shape, backend);
    return fmt::format("{}{}", floor.empty() ? "" : floor + "; ", advice(one, model, shape, backend));
}

/// "fastest: 1,239 tokens/s predicted, 22.3 GiB, 155.3 GiB of host memory:", and below it the command.
std::string setting_line(const std::string& name, const Setting& setting, const std::string& command) {
    const std::string host =
        setting.fit.host_bytes > 0 ? fmt::format(", {} of host memory", format_bytes(setting.fit.host_bytes)) : "";
    const int width = output_columns();
    return wrapped(fmt::format("{}: {} tokens/s predicted, {}{}:", name, rate_text(setting.fit.tokens_per_second),
                               format_bytes(setting.fit.total_bytes), host),
                   width) +
           wrapped_command(command, width);
}

/// What a run of a way is called with.
std::string command_of_way(const WayFit& way, const Backend& backend, int64_t limit) {
    return command_of(words_of(way.options, way.setting, dtype_of_option(way.options, backend), limit));
}

/// How else the model trains in it, where the user left that open: a line for each way, and in `json`.
std::string other_ways(const Options& given, const Model& model, Backend& backend, int64_t limit,
                       nlohmann::ordered_json* json) {
    if (given.lora > 0 || !given.freeze.empty()) return "";
    std::string text;
    for (const auto& [way, key, words] : {std::tuple(WayToTrain::Part, "in_part", "in part (its upper half)"),
                                          std::tuple(WayToTrain::Lora, "with_lora", "with adapters"),
                                          std::tuple(WayToTrain::QLora, "with_qlora", "with adapters on 4 bits")}) {
        const WayFit fit = fit_of(way, given, model.config, backend, limit);
        (*json)[key] = {{"fits", fit.fits}};
        if (!fit.fits) {
            text +=
                wrapped(fmt::format("{}: no, it needs {}", words, format_bytes(fit.smallest_bytes)), output_columns());
            continue;
        }
        const std::string command = command_of_way(fit, backend, limit);
        (*json)[key].update(setting_json(fit.setting));
        (*json)[key]["command"] = command;
        text += setting_line(words, fit.setting, command);
    }
    return text;
}

std::string model_report(const Options& given, const Model& model, Backend& backend) {
    const int64_t limit = limit_of(given, backend);
    const DType dtype = dtype_of_option(given, backend);
    PlacedFits placed(given, model, backend, limit);
    const std::optional<Options> possible = with_what_fits(&placed);
    const Options& options = possible ? *possible : given;
    const WhatFits& what_fits = placed.with(options.offload);
    const WhatFitsLimits limits = {
        limit,         options.seq_len, what_fits.published_length(), what_fits.longest_sequence(),
        options.bytes, output_columns()};
    std::string head = model_line(model);
    head += fmt::format("what fits in {}, {}, sequences of {} {}{}", describe_limit(given, backend, limit),
                        name_of(dtype), format_count(options.seq_len), noun(options.seq_len, "token"),
                        options.offload != "none" ? ", with --offload=" + options.offload : "");
    if (options.seq_len < given.seq_len) head += fmt::format(" ({} do not fit)", format_count(given.seq_len));
    show(options, wrapped(head, limits.width) + "\n");

    const std::vector<WhatFitsRow> rows = find_rows(options, what_fits, limits);
    const std::optional<Setting> best = possible ? fastest_setting(&placed, options.seq_len) : std::optional<Setting>();
    std::string words;
    if (best) {
        const Setting& setting = *best;
        const auto of_command = words_of(options, setting, dtype, limit);
        words = setting_line("fastest", setting, command_of(of_command));
        if (!options.emit_config.empty()) {
            write_output("--emit-config", options.emit_config,
                         config_of(of_command, fmt::format("The fastest that fits {}: {} tokens/s predicted",
                                                           describe_limit(given, backend, limit),
                                                           rate_text(setting.fit.tokens_per_second))));
            words += wrapped(fmt::format("written: {}", options.emit_config), limits.width);
        }
    }
    nlohmann::ordered_json ways = nlohmann::ordered_json::object();
    const std::string others = other_ways(given, model, backend, limit, &ways);
    if (!best && !options.emit_config.empty())
        fail("--emit-config: '{}' is not written, since nothing fits; {}", options.emit_config,
             nothing_fits(options, model, backend, limit));
    if (options.json) return to_json(options, model, limits, dtype, rows, best, ways);
    if (!best) words += wrapped(nothing_fits(options, model, backend, limit), limits.width);
    return what_fits_notes(limits, model.config.name, rows) + words + others;
}

constexpr std::tuple<WayToTrain, const char*, const char*> kWays[] = {{WayToTrain::Full, "full", "in full"},
                                                                      {WayToTrain::Part, "part", "in part"},
                                                                      {WayToTrain::Lora, "lora", "with adapters"},
                                                                      {WayToTrain::QLora, "qlora", "on 4 bits"}};

/// "-r layer -b 11 --offload=all", or why not.
PresetCell cell_of(const WayFit& way, int64_t context) {
    if (!way.fits) return {false, "needs " + format_bytes(way.smallest_bytes), 0};
    const Setting& setting = way.setting;
    std::string text = fmt::format("-r {} -b {}", setting.level, setting.batch_size);
    if (setting.seq_len != context) text += fmt::format(" -t {}", setting.seq_len);
    if (way.options.lora > 0) text += fmt::format(" --lora={}", way.options.lora);
    if (way.options.base_format != "auto") text += " --base-format=" + way.options.base_format;
    if (!way.options.freeze.empty()) text += " --freeze=" + way.options.freeze;
    if (setting.offload != "none") text += " --offload=" + setting.offload;
    return {true, std::move(text), setting.fit.tokens_per_second, setting.seq_len};
}

/// What of the host is counted on, and what else is assumed.
std::string presets_assume(const Options& given) {
    const std::string host = given.host_memory_budget.empty()
                                 ? "as much host memory as it takes (--host-memory-budget says how much there is)"
                                 : fmt::format("with {} of host memory", format_bytes(host_memory_limit(given)));
    return fmt::format(
        "{}; {}", host,
        given.was_given("seq-len")
            ? fmt::format("sequences of {} {}, or the model's context", format_count(given.seq_len),
                          noun(given.seq_len, "token"))
            : fmt::format("sequences of the model's context, halved until they fit, to {} tokens", kShortestContext));
}

std::string presets_report(const Options& given, Backend& backend) {
    const int64_t limit = limit_of(given, backend);
    const int width = output_columns();
    show(given, wrapped(fmt::format("what trains in {}, {}: in full; in part (the upper half of the layers; embeddings "
                                    "and the lower half frozen); with adapters (--lora={}); and with adapters on "
                                    "a base in 4 bits (--base-format=nf4-double)",
                                    describe_limit(given, backend, limit), name_of(dtype_of_option(given, backend)),
                                    options_of(WayToTrain::Lora, given, {}).lora),
                        width) +
                    wrapped(presets_assume(given), width) + "\n");
    nlohmann::ordered_json json = {{"limit_bytes", limit}};
    if (!given.host_memory_budget.empty()) json["host_limit_bytes"] = host_memory_limit(given);
    json["presets"] = nlohmann::ordered_json::array();
    int64_t most_on_host = 0;
    std::string most_of;
    bool has_head = true;
    for (const std::string& name : preset_names()) {
        Options options = given;
        options.model = name;
        const ModelConfig named = preset(name);
        if (!options.was_given("seq-len") && named.maxT > 0) options.seq_len = named.maxT;
        if (named.maxT > 0 && named.maxT < options.seq_len) options.seq_len = named.maxT;
        const ModelConfig config = resolve_model(options, 0, 0);
        PresetRow row = {name, make_model(config).parameter_count(), options.seq_len, {}, {}, {}, {}};
        nlohmann::ordered_json entry = {{"model", name}, {"parameters", row.parameters}};
        PresetCell* const cells[] = {&row.full, &row.part, &row.lora, &row.qlora};
        for (const auto& [way, key, words] : kWays) {
            const WayFit fit = fit_of(way, options, config, backend, limit);
            if (way == WayToTrain::Full) entry["seq_len"] = row.seq_len = fit.options.seq_len;
            PresetCell& cell = *cells[static_cast<int>(way)] = cell_of(fit, row.seq_len);
            const std::string is = key;
            entry[is] = cell.fits;
            entry[is + "_setting"] = cell.setting;
            entry[is + "_seq_len"] = fit.options.seq_len;
            entry[is + "_tokens_per_second"] = cell.tokens_per_second;
            entry[is + "_host_bytes"] = fit.setting.fit.host_bytes;
            if (fit.setting.fit.host_bytes > most_on_host) {
                most_on_host = fit.setting.fit.host_bytes;
                most_of = fmt::format("{} {}", name, words);
            }
            if (cell.fits) entry[is + "_command"] = command_of_way(fit, backend, limit);
        }
        show(given, presets_table({row}, width, has_head) + contexts_line(row, width));
        has_head = false;
        json["presets"].push_back(std::move(entry));
    }
    if (given.json) return json_report(json);
    const std::string host = most_on_host > 0
                                 ? fmt::format("at most {} of host memory: {}\n", format_bytes(most_on_host), most_of)
                                 : "no host memory\n";
    return wrapped(host +
                       "the fastest of every level, auto and every --offload, one micro-batch per update; "
                       "--model=NAME --what-fits has a line for each",
                   width);
}

}  // namespace

std::string what_fits_report(const Options& options, const Model& model, Backend& backend) {
    keep_freed_memory();
    return model_report(options, model, backend);
}

std::string all_presets_report(const Options& options, Backend& backend) {
    keep_freed_memory();
    return presets_report(options, backend);
}

}  // namespace llmc
