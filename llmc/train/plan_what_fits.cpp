#include "llmc/train/plan_what_fits.h"

#include "llmc/base/output.h"
#include "llmc/base/terminal.h"
#include "llmc/base/units.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/text_table.h"
#include "llmc/io/json_text.h"
#include "llmc/train/output_file.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/profile_file.h"
#include "llmc/train/remedy.h"
#include "llmc/train/setup.h"
#include "llmc/train/what_fits.h"

#include <nlohmann/json.hpp>

#include <algorithm>

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

/// What a run with a row's fastest batch is called with.
struct Setting {
    std::string recompute, offload;
    int64_t batch_size = 0, seq_len = 0;
    Fit fit;
};

Setting setting_of(const WhatFits& what_fits, const WhatFitsRow& row) {
    return {row.policy, what_fits.options().offload, row.fastest.size, what_fits.options().seq_len, row.fastest.plan};
}

/// The options of a setting, in the order of --help: what of them the command line of a run needs.
std::vector<std::pair<std::string, std::string>> words_of(const Options& options, const Setting& setting, DType dtype,
                                                          int64_t limit) {
    std::vector<std::pair<std::string, std::string>> words = {{"model", options.model}};
    for (const char* name : {"layers", "channels", "heads", "kv-heads", "head-size", "ffn-size", "vocab-size"}) {
        for (const OptionRow& row : option_table()) {
            if (row.name() != name || !options.was_given(name)) continue;
            words.emplace_back(name, std::to_string(options.*std::get<int64_t Options::*>(row.field)));
        }
    }
    words.emplace_back("batch-size", std::to_string(setting.batch_size));
    words.emplace_back("seq-len", std::to_string(setting.seq_len));
    for (const auto& [name, value] : {std::pair("optimizer", options.optimizer), std::pair("moments", options.moments),
                                      std::pair("masters", options.masters), std::pair("gradients", options.gradients),
                                      std::pair("freeze", options.freeze)}) {
        if (options.was_given(name) || (name == std::string("freeze") && !value.empty()))
            words.emplace_back(name, value);
    }
    words.emplace_back("recompute", setting.recompute);
    if (setting.offload != "none") words.emplace_back("offload", setting.offload);
    // What auto found was found within this; another budget is another plan.
    if (setting.recompute == "auto") words.emplace_back("memory-budget", std::to_string(limit));
    if (options.logits_chunk > 0) words.emplace_back("logits-chunk", std::to_string(options.logits_chunk));
    if (options.zero > 0) words.emplace_back("zero", std::to_string(options.zero));
    words.emplace_back("dtype", std::string(name_of(dtype)));
    return words;
}

std::string command_of(const std::vector<std::pair<std::string, std::string>>& words) {
    std::string text = "train_gpt";
    for (const auto& [name, value] : words) text += fmt::format(" --{}={}", name, value);
    return text;
}

/// The words as a file for --config.
std::string config_of(const std::vector<std::pair<std::string, std::string>>& words, const std::string& remark) {
    std::string text = fmt::format("# {}\n", remark);
    for (const auto& [name, value] : words) {
        const bool is_number = value.find_first_not_of("0123456789") == std::string::npos;
        text += is_number ? fmt::format("{} = {}\n", name, value) : fmt::format("{} = \"{}\"\n", name, value);
    }
    return text;
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
    return {{"recompute", setting.recompute},
            {"offload", setting.offload},
            {"batch_size", setting.batch_size},
            {"seq_len", setting.seq_len},
            {"total_bytes", setting.fit.total_bytes},
            {"host_bytes", setting.fit.host_bytes},
            {"predicted_tokens_per_second", setting.fit.tokens_per_second}};
}

std::string to_json(const Model& model, const WhatFits& what_fits, int64_t limit, DType dtype,
                    const std::vector<WhatFitsRow>& rows, const WhatFitsRow* best) {
    constexpr int64_t kAnyLength = 100'000'000;
    nlohmann::ordered_json json = {{"model", model.config.name},
                                   {"parameters", model.parameter_count()},
                                   {"limit_bytes", limit},
                                   {"dtype", name_of(dtype)},
                                   {"seq_len", what_fits.options().seq_len},
                                   {"offload", what_fits.options().offload}};
    if (what_fits.published_length() < kAnyLength) json["max_seq_len"] = what_fits.published_length();
    if (model.has_frozen()) json["trainable_parameters"] = model.trainable_count();
    json["fits"] = nlohmann::ordered_json::array();
    for (const WhatFitsRow& row : rows) {
        nlohmann::ordered_json entry = {{"recompute", row.policy},
                                        {"batch_size", largest_json(row.batch)},
                                        {"seq_len", largest_json(row.sequence)}};
        if (row.fastest.size > 0) entry["fastest"] = setting_json(setting_of(what_fits, row));
        json["fits"].push_back(entry);
    }
    if (best != nullptr) json["fastest"] = setting_json(setting_of(what_fits, *best));
    return json_report(json);
}

/// The row with the fastest batch; null if nothing fits.
const WhatFitsRow* fastest_row(const std::vector<WhatFitsRow>& rows) {
    const WhatFitsRow* best = nullptr;
    for (const WhatFitsRow& row : rows) {
        if (row.fastest.size == 0) continue;
        const bool is_faster =
            best == nullptr || row.fastest.plan.tokens_per_second > best->fastest.plan.tokens_per_second;
        if (is_faster) best = &row;
    }
    return best;
}

/// Prints now: the next row takes seconds.
void show(const Options& options, const std::string& text) {
    if (options.json) return;
    print_output(text);
    flush_output();
}

/// Every level, and auto, whose batches go through those of the levels: what it finds is no slower than any of them.
std::vector<WhatFitsRow> find_rows(const Options& options, const WhatFits& what_fits, const WhatFitsLimits& limits) {
    std::vector<std::string> wanted = wanted_policies(options);
    if (!options.was_given("recompute")) wanted.push_back("auto");
    std::vector<WhatFitsRow> rows;
    std::vector<int64_t> batches;
    for (const std::string& policy : wanted) {
        if (policy == "auto") continue;
        rows.push_back(what_fits.row(policy, what_fits.options().seq_len));
        for (const Largest& largest : {rows.back().fastest, rows.back().batch}) batches.push_back(largest.size);
    }
    const bool has_fixed = !rows.empty();
    if (has_fixed) show(options, what_fits_table(limits, rows));
    if (std::find(wanted.begin(), wanted.end(), "auto") == wanted.end()) return rows;
    rows.push_back(what_fits.row("auto", what_fits.options().seq_len, batches));
    show(options, what_fits_table(limits, {rows.back()}, !has_fixed));
    return rows;
}

/// What is said where nothing fits: what binds, and what would do.
std::string nothing_fits(const Options& options, const Model& model, Backend& backend, int64_t limit) {
    Options one = options;
    one.batch_size = 1, one.memory_budget = std::to_string(limit);
    one.recompute = "auto";
    one.total_batch_size = 0;
    const BatchShape shape = {1, options.seq_len};
    const std::string floor = floor_words(one, model, shape, backend);
    return fmt::format("{}{}\n", floor.empty() ? "" : floor + "; ", advice(one, model, shape, backend));
}

std::string model_report(const Options& given, const Model& model, Backend& backend) {
    const int64_t limit = limit_of(given, backend);
    const DType dtype = dtype_of_option(given, backend);
    const std::optional<Options> possible = with_what_fits(given, model, backend, limit);
    const Options& options = possible ? *possible : given;
    const WhatFits what_fits(options, model, backend, limit);
    const WhatFitsLimits limits = {
        limit,         options.seq_len, what_fits.published_length(), what_fits.longest_sequence(),
        options.bytes, output_columns()};
    std::string head = model_line(model);
    head += fmt::format("what fits in {}, {}, sequences of {} tokens{}", describe_limit(given, backend, limit),
                        name_of(dtype), format_count(options.seq_len),
                        options.offload != "none" ? ", with --offload=" + options.offload : "");
    if (options.seq_len < given.seq_len) head += fmt::format(" ({} do not fit)", format_count(given.seq_len));
    show(options, wrapped(head, limits.width) + "\n");

    const std::vector<WhatFitsRow> rows = find_rows(options, what_fits, limits);
    const WhatFitsRow* best = fastest_row(rows);
    std::string words;
    if (best != nullptr) {
        const Setting setting = setting_of(what_fits, *best);
        const auto of_command = words_of(options, setting, dtype, limit);
        const std::string host =
            setting.fit.host_bytes > 0 ? fmt::format(", {} of host memory", format_bytes(setting.fit.host_bytes)) : "";
        words = fmt::format("fastest: {} tokens/s predicted, {}{}: {}\n",
                            format_count(static_cast<int64_t>(setting.fit.tokens_per_second)),
                            format_bytes(setting.fit.total_bytes), host, command_of(of_command));
        if (!options.emit_config.empty()) {
            write_output(
                "--emit-config", options.emit_config,
                config_of(of_command, fmt::format("The fastest that fits {}: {} tokens/s predicted",
                                                  describe_limit(given, backend, limit),
                                                  format_count(static_cast<int64_t>(setting.fit.tokens_per_second)))));
            words += fmt::format("written: {}\n", options.emit_config);
        }
    }
    if (options.json) return to_json(model, what_fits, limit, dtype, rows, best);
    std::string notes = what_fits_notes(limits, model.config.name, rows);
    if (best == nullptr) words += nothing_fits(options, model, backend, limit);
    return notes + wrapped(words, limits.width);
}

/// The fastest fixed level of a model, its placement and context found first.
PresetCell preset_cell(const Options& given, const Model& model, Backend& backend, int64_t limit, int64_t* seq_len) {
    const std::optional<Options> possible = with_what_fits(given, model, backend, limit);
    PresetCell cell;
    const Options& options = possible ? *possible : given;
    *seq_len = options.seq_len;
    const WhatFits what_fits(options, model, backend, limit);
    if (!possible) {
        cell.setting = "needs " + format_bytes(what_fits.measure("sqrt", {1, options.seq_len}).total_bytes);
        return cell;
    }
    for (const PolicyRow& policy : policies()) {
        if (policy.host_memory && options.offload != "none") continue;
        const Largest batch = what_fits.batch(policy.name, options.seq_len);
        if (batch.size == 0) continue;
        const Largest fastest = what_fits.fastest(policy.name, options.seq_len, batch);
        if (fastest.plan.tokens_per_second <= cell.tokens_per_second) continue;
        cell.fits = true, cell.tokens_per_second = fastest.plan.tokens_per_second;
        cell.setting = fmt::format("-r {} -b {}{}", policy.name, fastest.size,
                                   options.offload != "none" ? " --offload=" + options.offload : "");
    }
    if (!cell.fits) cell.setting = "with auto alone";
    return cell;
}

/// The lower half of the layers and the embeddings stay as they are.
std::string lower_half(const ModelConfig& config) {
    std::string text = "wte";
    if (!config.is_rotary()) text += ",wpe";
    return text + (config.L > 1 ? fmt::format(",layers.0-{}.*", config.L / 2 - 1) : "");
}

std::string presets_report(const Options& given, Backend& backend) {
    const int64_t limit = limit_of(given, backend);
    const int width = output_columns();
    show(given, wrapped(fmt::format("what trains in {}, {}: in full, and in part (the upper half of the layers; "
                                    "embeddings and the lower half frozen)",
                                    describe_limit(given, backend, limit), name_of(dtype_of_option(given, backend))),
                        width) +
                    "\n");
    nlohmann::ordered_json json = {{"limit_bytes", limit}, {"presets", nlohmann::ordered_json::array()}};
    bool has_head = true;
    for (const std::string& name : preset_names()) {
        Options options = given;
        options.model = name;
        const ModelConfig config = preset(name);
        if (!options.was_given("seq-len") && config.maxT > 0) options.seq_len = config.maxT;
        if (config.maxT > 0 && config.maxT < options.seq_len) options.seq_len = config.maxT;
        const Model model = make_model(resolve_model(options, 0, 0));
        PresetRow row = {name, model.parameter_count(), options.seq_len, {}, {}};
        int64_t of_part = 0;
        row.full = preset_cell(options, model, backend, limit, &row.seq_len);
        options.freeze = lower_half(model.config);
        row.part = preset_cell(options, model_to_train(options, model.config), backend, limit, &of_part);
        show(given, presets_table({row}, width, has_head));
        has_head = false;
        json["presets"].push_back({{"model", name},
                                   {"parameters", row.parameters},
                                   {"seq_len", row.seq_len},
                                   {"full", row.full.fits},
                                   {"full_setting", row.full.setting},
                                   {"full_tokens_per_second", row.full.tokens_per_second},
                                   {"part", row.part.fits},
                                   {"part_setting", row.part.setting},
                                   {"part_seq_len", of_part},
                                   {"part_tokens_per_second", row.part.tokens_per_second}});
    }
    if (given.json) return json_report(json);
    return wrapped("fixed levels, one micro-batch per update; --model=NAME --what-fits has auto, too", width);
}

}  // namespace

std::string what_fits_report(const Options& options, const Model& model, Backend& backend) {
    return model_report(options, model, backend);
}

std::string all_presets_report(const Options& options, Backend& backend) { return presets_report(options, backend); }

}  // namespace llmc
