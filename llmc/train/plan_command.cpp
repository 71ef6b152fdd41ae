#include "llmc/train/plan_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/plan/print.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <sstream>

namespace llmc {
namespace {

/// The names given to --recompute; without it, every fixed policy.
std::vector<std::string> wanted_policies(const Options& options) {
    std::vector<std::string> wanted;
    if (!was_given("recompute")) {
        for (const PolicyRow& row : policies()) wanted.push_back(row.name);
        return wanted;
    }
    std::istringstream names(options.recompute);
    for (std::string name; std::getline(names, name, ',');) {
        wanted.push_back(name == "auto" ? name : find_policy(name).name);
    }
    if (wanted.empty()) find_policy(options.recompute);
    return wanted;
}

std::string peak_position(const Model& model, const PlannedMemory& memory) {
    return describe_step(model, memory.plan.steps[static_cast<size_t>(memory.simulation.peak_step)]);
}

nlohmann::ordered_json plan_json(const Model& model, const ChosenPlan& chosen) {
    const PlannedMemory& memory = chosen.memory;
    nlohmann::ordered_json by_consumer;
    for (const MemoryRow& row : memory.rows()) by_consumer[row.name] = row.bytes;
    return {{"recompute", memory.plan.policy},
            {"arena_bytes", memory.layout.arena_bytes},
            {"activation_bytes", memory.simulation.activation_bytes},
            {"layer_activation_bytes", memory.simulation.layer_activation_bytes},
            {"logits_chunk_tokens", memory.plan.logits_chunk_tokens},
            {"peak_position", peak_position(model, memory)},
            {"extra_flops_ratio", memory.simulation.extra_flops_ratio()},
            {"predicted_step_ms", chosen.step_seconds * 1e3},
            {"total_bytes", memory.total_bytes()},
            {"by_consumer", by_consumer}};
}

std::string level_label(const std::string& policy) {
    const std::string level = policy == "auto" ? "" : find_policy(policy).level;
    return fmt::format("{:1} {}", level, policy);
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
    std::string text = fmt::format("{:<21}", "bytes at the peak");
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", chosen.memory.plan.policy);
    for (const std::string& name : names) {
        text += fmt::format("\n{:<21}", name);
        for (const ChosenPlan& chosen : plans) {
            int64_t bytes = 0;
            for (const MemoryRow& row : chosen.memory.rows()) bytes += row.name == name ? row.bytes : 0;
            text += fmt::format(" {:>18}", format_count(bytes));
        }
    }
    text += fmt::format("\n{:<21}", "total");
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", format_count(chosen.memory.total_bytes()));
    return text + "\n";
}

}  // namespace

std::string plan_report(const Options& options) {
    // Without --data the preset keeps its published vocabulary.
    const int64_t data_vocabulary = !options.tokenizer.empty() ? make_tokenizer(options.tokenizer)->vocab_size()
                                    : was_given("data")        ? open_token_source(options.data, "--data")->vocab_size()
                                                               : 0;
    const ModelConfig config = names_weights(options.model)
                                   ? accept_model(options, model_config_at(options.model, "--model"), nullptr)
                                   : resolve_model(options, data_vocabulary);
    const Model model = make_model(config);
    const std::unique_ptr<Backend> backend = make_backend(options.device, static_cast<int>(options.threads));
    std::vector<ChosenPlan> plans;
    for (const std::string& policy : wanted_policies(options)) {
        plans.push_back(choose_plan(options, policy, model, *backend));
    }
    if (options.json) {
        nlohmann::ordered_json json = {{"model", config.name}, {"parameters", model.parameter_count()}};
        json["plans"] = nlohmann::ordered_json::array();
        for (const ChosenPlan& chosen : plans) json["plans"].push_back(plan_json(model, chosen));
        return json.dump(2) + "\n";
    }
    const Plan& first = plans.front().memory.plan;
    std::string text =
        fmt::format("{}: {}; {} parameters\nmicro-batch {} x {} tokens, {}, LM head in chunks of {} tokens\n\n",
                    config.name, describe(config), format_count(model.parameter_count()), first.shape.B, first.shape.T,
                    options.dtype, first.logits_chunk_tokens);
    text += overview(model, plans) + "\n" + breakdown(plans);
    for (size_t i = 0; options.list_steps && i < plans.size(); ++i) {
        const PlannedMemory& memory = plans[i].memory;
        text += fmt::format("\n{}: {}\n{}", memory.plan.policy, summarise_steps(memory.plan),
                            print_steps(model, memory.plan, &memory.layout));
    }
    if (!options.memory_budget.empty()) {
        const int64_t budget = memory_limit(options, backend->info());
        text += fmt::format("\nwithin --memory-budget={} ({} B):", options.memory_budget, format_count(budget));
        bool any = false;
        for (const ChosenPlan& chosen : plans) {
            if (chosen.memory.total_bytes() > budget) continue;
            text += " " + chosen.memory.plan.policy;
            any = true;
        }
        text += any ? "\n" : " none; lower --batch-size or --seq-len\n";
    }
    return text;
}

}  // namespace llmc
