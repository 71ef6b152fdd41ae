#include "llmc/train/plan_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/units.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/timeline.h"
#include "llmc/io/json_text.h"
#include "llmc/plan/formats.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/print.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/output_file.h"
#include "llmc/train/plan_frontier.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/plan_ranks.h"
#include "llmc/train/plan_what_fits.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {
namespace {

std::string peak_position(const Model& model, const PlannedMemory& memory) {
    return describe_step(model, memory.plan.steps[static_cast<size_t>(memory.simulation.peak_step)]);
}

nlohmann::ordered_json plan_json(const Model& model, const ChosenPlan& chosen) {
    const PlannedMemory& memory = chosen.memory;
    nlohmann::ordered_json by_consumer;
    for (const MemoryRow& row : memory.rows()) by_consumer[row.name] = row.bytes;
    nlohmann::ordered_json json = {{"recompute", memory.plan.policy},
                                   {"batch_size", memory.plan.shape.B},
                                   {"arena_bytes", memory.layout.arena_bytes},
                                   {"activation_bytes", memory.simulation.activation_bytes},
                                   {"layer_activation_bytes", memory.simulation.layer_activation_bytes},
                                   {"logits_chunk_tokens", memory.plan.logits_chunk_tokens},
                                   {"fused", fused_names(model, memory.plan)},
                                   {"peak_position", peak_position(model, memory)},
                                   {"extra_flops_ratio", memory.simulation.extra_flops_ratio()},
                                   {"predicted_step_ms", chosen.step_seconds * 1e3},
                                   {"update", chosen.delays_update() ? "delayed" : "now"},
                                   {"total_bytes", memory.total_bytes()},
                                   {"host_bytes", memory.host_bytes()},
                                   {"by_consumer", by_consumer}};
    if (memory.host_bytes() > 0) {
        for (const MemoryRow& row : memory.host_rows()) json["host_by_consumer"][row.name] = row.bytes;
        const HostTraffic traffic = host_traffic_per_update(memory.plan);
        json["host_bytes_in_per_update"] = traffic.in, json["host_bytes_out_per_update"] = traffic.out;
    }
    if (chosen.delays_update()) json["predicted_step_ms_with_update_now"] = chosen.now_seconds * 1e3;
    if (memory.plan.parallel.ranks > 1) add_communication(chosen, &json);
    return json;
}

/// --batch-size=auto may choose another micro-batch for every plan.
std::string chosen_batches(const Options& options, const std::vector<ChosenPlan>& plans) {
    std::string text = fmt::format("of {} tokens per update, sequences in a micro-batch:", options.total_batch_size);
    for (const ChosenPlan& chosen : plans) {
        text += fmt::format(" {} {}", chosen.memory.plan.policy, chosen.memory.plan.shape.B);
    }
    return text + "\n";
}

std::string overview(const Model& model, const std::vector<ChosenPlan>& plans) {
    std::string text = fmt::format("{:<10} {:>20} {:>20} {:>20} {:>8} {:>12}  {}\n", "recompute", "layer activations B",
                                   "arena B", "total B", "FLOPs", "predicted", "peak at");
    for (const ChosenPlan& chosen : plans) {
        const PlannedMemory& memory = chosen.memory;
        text +=
            fmt::format("{:<10} {:>20} {:>20} {:>20} {:>+7.1f}% {:>9.0f} ms  {}\n", level_label(memory.plan.policy),
                        format_count(memory.simulation.layer_activation_bytes), format_count(memory.layout.arena_bytes),
                        format_count(memory.total_bytes()), 100 * memory.simulation.extra_flops_ratio(),
                        chosen.step_seconds * 1e3, peak_position(model, memory));
    }
    text += fmt::format("step times: {}\n", plans.front().times.source);
    for (const ChosenPlan& chosen : plans) {
        if (chosen.memory.plan.policy == "auto") text += fmt::format("auto: {}\n", chosen.words);
    }
    for (const ChosenPlan& chosen : plans) {
        if (!chosen.delays_update()) continue;
        text += fmt::format("{}: update delayed into the next forward; at once, {:.0f} ms\n", chosen.memory.plan.policy,
                            chosen.now_seconds * 1e3);
    }
    return text;
}

/// Bytes of host memory by consumer, a column per policy.
std::string host_breakdown(const std::vector<ChosenPlan>& plans) {
    std::vector<std::string> names;
    for (const ChosenPlan& chosen : plans) {
        for (const MemoryRow& row : chosen.memory.host_rows()) {
            if (std::find(names.begin(), names.end(), row.name) == names.end()) names.push_back(row.name);
        }
    }
    std::string text = fmt::format("{:<25}", "bytes of host memory");
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", chosen.memory.plan.policy);
    for (const std::string& name : names) {
        text += fmt::format("\n{:<25}", name);
        for (const ChosenPlan& chosen : plans) {
            int64_t bytes = 0;
            for (const MemoryRow& row : chosen.memory.host_rows()) bytes += row.name == name ? row.bytes : 0;
            text += fmt::format(" {:>18}", format_count(bytes));
        }
    }
    text += fmt::format("\n{:<25}", "host total");
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", format_count(chosen.memory.host_bytes()));
    return text;
}

/// Bytes by consumer, a column per policy.
std::string breakdown(const std::vector<ChosenPlan>& plans) {
    std::vector<std::string> names;
    for (const ChosenPlan& chosen : plans) {
        for (const MemoryRow& row : chosen.memory.rows()) {
            if (std::find(names.begin(), names.end(), row.name) == names.end()) names.push_back(row.name);
        }
    }
    std::string text = fmt::format("{:<25}", "bytes at the peak");
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", chosen.memory.plan.policy);
    for (const std::string& name : names) {
        text += fmt::format("\n{:<25}", name);
        for (const ChosenPlan& chosen : plans) {
            int64_t bytes = 0;
            for (const MemoryRow& row : chosen.memory.rows()) bytes += row.name == name ? row.bytes : 0;
            text += fmt::format(" {:>18}", format_count(bytes));
        }
    }
    text += fmt::format("\n{:<25}", "total");
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", format_count(chosen.memory.total_bytes()));
    const auto uses_host = [](const ChosenPlan& chosen) { return chosen.memory.host_bytes() > 0; };
    if (std::any_of(plans.begin(), plans.end(), uses_host)) {
        text += "\n\n" + host_breakdown(plans);
    }
    return text + "\n";
}

std::string steps_listed(const Model& model, const std::vector<ChosenPlan>& plans) {
    std::string text;
    for (const ChosenPlan& chosen : plans) {
        const PlannedMemory& memory = chosen.memory;
        text += fmt::format("\n{}: {}\n{}", memory.plan.policy, summarise_steps(memory.plan),
                            print_steps(model, memory.plan, &memory.layout));
    }
    return text;
}

std::string within_budget(const Options& options, const std::vector<ChosenPlan>& plans, const DeviceInfo& device) {
    const int64_t budget = memory_limit(options, device);
    std::string names;
    for (const ChosenPlan& chosen : plans) {
        if (chosen.memory.total_bytes() <= budget) names += " " + chosen.memory.plan.policy;
    }
    return fmt::format("\nwithin --memory-budget={} ({} B):{}\n", options.memory_budget, format_count(budget),
                       names.empty() ? " none; lower --batch-size or --seq-len" : names);
}

void draw_timeline_of(const Options& options, const Model& model, const PlannedMemory& memory) {
    const Plan& plan = memory.plan;
    const std::string title =
        fmt::format("{}, --recompute={}: memory over one micro-batch", model.config.name, plan.policy);
    const std::string subtitle =
        fmt::format("{} x {} tokens, {}; parameters, gradients and optimiser take {} besides, all the time",
                    plan.shape.B, plan.shape.T, name_of(plan.dtype), format_bytes(memory.state.total()));
    write_output("--timeline", options.timeline, draw_timeline(model, plan, memory.layout, title, subtitle));
}

/// May shorten the sequences to what the model takes.
Model model_of(Options& options) {
    if (names_weights(options.model)) {
        const ModelConfig config = model_config_at(options.model, "--model");
        settle_seq_len(options, config);
        return model_to_train(options, accept_model(options, config, nullptr));
    }
    // Without --data the preset keeps its published vocabulary.
    int64_t vocabulary = 0, least = 0;
    if (!options.tokenizer.empty()) {
        vocabulary = least = make_tokenizer(options.tokenizer)->vocab_size();
    } else if (options.was_given("data")) {
        const auto source =
            open_token_source(options.data, "--data", nullptr, reading_of(options), FolderUse::Training);
        vocabulary = source->vocab_size();
        if (source->tokenizer() != "none") least = vocabulary;
    }
    return model_to_train(options, resolve_model(options, vocabulary, least));
}

/// The tables, or the JSON object, of the plans asked for.
std::string levels_report(const Options& options, const Model& model, Backend& backend) {
    std::vector<ChosenPlan> plans;
    for (const std::string& policy : wanted_policies(options)) {
        plans.push_back(choose_plan(options, policy, model, backend));
    }
    if (!options.timeline.empty()) draw_timeline_of(options, model, plans.front().memory);
    if (options.json) {
        nlohmann::ordered_json json = {{"model", model.config.name}, {"parameters", model.parameter_count()}};
        if (model.has_frozen()) json["trainable_parameters"] = model.trainable_count();
        const StateFormats formats = formats_of(plans.front().memory.plan.places);
        json["formats"] = {{"moments", format_name(formats.moments)},
                           {"masters", formats.masters ? "fp32" : "none"},
                           {"gradients", format_name(formats.gradients)}};
        if (options.ranks > 1) json["ranks"] = options.ranks, json["zero"] = options.zero;
        json["plans"] = nlohmann::ordered_json::array();
        for (const ChosenPlan& chosen : plans) json["plans"].push_back(plan_json(model, chosen));
        return json_report(json);
    }
    const Plan& first = plans.front().memory.plan;
    std::string text = model_line(model);
    const std::string formats = describe(formats_of(first.places));
    text += fmt::format("micro-batch {} x {} tokens, {}, LM head in chunks of {} tokens{}{}\n", first.shape.B,
                        first.shape.T, name_of(first.dtype), first.logits_chunk_tokens, formats.empty() ? "" : "; ",
                        formats);
    text += fmt::format("fused: {}\n", plans.front().fusion);
    if (options.batch_size == 0) text += chosen_batches(options, plans);
    if (options.ranks > 1) text += fmt::format("bytes are those of one rank of {}\n", options.ranks);
    text += "\n";
    text += overview(model, plans) + "\n" + breakdown(plans);
    if (options.ranks > 1) text += communication_table(plans, options.zero);
    if (options.list_steps) text += steps_listed(model, plans);
    if (!options.memory_budget.empty()) text += within_budget(options, plans, backend.info());
    if (!options.timeline.empty()) text += fmt::format("\npicture: {}\n", options.timeline);
    return text;
}

}  // namespace

std::string plan_report(const Options& given) {
    Options options = given;
    options.packed = options.partly_scored = options.pack == "documents";
    const Model model = model_of(options);
    const std::unique_ptr<Backend> backend = make_planning_backend(options.device, static_cast<int>(options.threads));
    if (options.frontier) return frontier_report(options, model, *backend);
    if (!options.what_fits.empty()) return what_fits_report(options, model, *backend);
    return levels_report(options, model, *backend);
}

}  // namespace llmc
