#include "llmc/train/plan_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/plan/print.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>
#include <sstream>

namespace llmc {
namespace {

/// Share of the peak FLOP rate that whole steps reach; for the predicted time only.
constexpr double kUsualEfficiency = 0.8;

std::vector<const PolicyRow*> wanted_policies(const Options& options) {
    std::vector<const PolicyRow*> wanted;
    if (!was_given("recompute")) {
        for (const PolicyRow& row : policies()) wanted.push_back(&row);
        return wanted;
    }
    std::istringstream names(options.recompute);
    for (std::string name; std::getline(names, name, ',');) wanted.push_back(&find_policy(name));
    if (wanted.empty()) find_policy(options.recompute);
    return wanted;
}

/// Milliseconds for one micro-batch; 0 where the device's peak is unknown.
double predicted_ms(const PlannedMemory& memory, const DeviceInfo& device) {
    const double peak = memory.plan.dtype == DType::BF16 ? device.peak_flops_bf16 : device.peak_flops_fp32;
    const Simulation& s = memory.simulation;
    return peak > 0 ? (s.forward_flops + s.recompute_flops + s.backward_flops) / (peak * kUsualEfficiency) * 1e3 : 0;
}

std::string peak_position(const Model& model, const PlannedMemory& memory) {
    return describe_step(model, memory.plan.steps[static_cast<size_t>(memory.simulation.peak_step)]);
}

nlohmann::ordered_json plan_json(const Model& model, const PlannedMemory& memory, const DeviceInfo& device) {
    nlohmann::ordered_json by_consumer;
    for (const MemoryRow& row : memory.rows()) by_consumer[row.name] = row.bytes;
    const double ms = predicted_ms(memory, device);
    return {{"recompute", memory.plan.policy},
            {"arena_bytes", memory.layout.arena_bytes},
            {"activation_bytes", memory.simulation.activation_bytes},
            {"layer_activation_bytes", memory.simulation.layer_activation_bytes},
            {"logits_chunk_tokens", memory.plan.logits_chunk_tokens},
            {"peak_position", peak_position(model, memory)},
            {"extra_flops_ratio", memory.simulation.extra_flops_ratio()},
            {"predicted_step_ms", ms > 0 ? nlohmann::ordered_json(ms) : nlohmann::ordered_json(nullptr)},
            {"total_bytes", memory.total_bytes()},
            {"by_consumer", by_consumer}};
}

std::string level_label(const PolicyRow& policy) {
    return *policy.level != '\0' ? fmt::format("{} {}", policy.level, policy.name) : fmt::format("  {}", policy.name);
}

std::string overview(const Model& model, const std::vector<const PolicyRow*>& wanted,
                     const std::vector<PlannedMemory>& plans, const DeviceInfo& device) {
    std::string text = fmt::format("{:<10} {:>20} {:>20} {:>20} {:>8} {:>12}  {}\n", "recompute", "layer activations B",
                                   "arena B", "total B", "FLOPs", "predicted", "peak at");
    for (size_t i = 0; i < plans.size(); ++i) {
        const PlannedMemory& memory = plans[i];
        const double ms = predicted_ms(memory, device);
        text +=
            fmt::format("{:<10} {:>20} {:>20} {:>20} {:>+7.1f}% {:>12}  {}\n", level_label(*wanted[i]),
                        format_count(memory.simulation.layer_activation_bytes), format_count(memory.layout.arena_bytes),
                        format_count(memory.total_bytes()), 100 * memory.simulation.extra_flops_ratio(),
                        ms > 0 ? fmt::format("{:.0f} ms", ms) : "n/a", peak_position(model, memory));
    }
    return text;
}

/// Bytes by consumer, a column per policy.
std::string breakdown(const std::vector<const PolicyRow*>& wanted, const std::vector<PlannedMemory>& plans) {
    std::vector<std::string> names;
    for (const PlannedMemory& memory : plans) {
        for (const MemoryRow& row : memory.rows()) {
            if (std::find(names.begin(), names.end(), row.name) == names.end()) names.push_back(row.name);
        }
    }
    std::string text = fmt::format("{:<21}", "bytes at the peak");
    for (const PolicyRow* policy : wanted) text += fmt::format(" {:>18}", policy->name);
    for (const std::string& name : names) {
        text += fmt::format("\n{:<21}", name);
        for (const PlannedMemory& memory : plans) {
            int64_t bytes = 0;
            for (const MemoryRow& row : memory.rows()) bytes += row.name == name ? row.bytes : 0;
            text += fmt::format(" {:>18}", format_count(bytes));
        }
    }
    text += fmt::format("\n{:<21}", "total");
    for (const PlannedMemory& memory : plans) text += fmt::format(" {:>18}", format_count(memory.total_bytes()));
    return text + "\n";
}

}  // namespace

std::string plan_report(const Options& options) {
    // Without --data the preset keeps its published vocabulary.
    const int64_t data_vocabulary = was_given("data") ? open_token_source(options.data, "--data")->vocab_size() : 0;
    const ModelConfig config = names_weights(options.model)
                                   ? accept_model(options, model_config_at(options.model, "--model"), nullptr)
                                   : resolve_model(options, data_vocabulary);
    const Model model = make_model(config);
    const std::unique_ptr<Backend> backend = make_backend(options.device, static_cast<int>(options.threads));
    const DeviceInfo device = backend->info();
    const BatchShape shape = {options.batch_size, options.seq_len};
    const std::vector<const PolicyRow*> wanted = wanted_policies(options);
    std::vector<PlannedMemory> plans;
    for (const PolicyRow* policy : wanted) {
        plans.push_back(plan_memory(model, shape, dtype_of_option(options), *policy, options.logits_chunk, *backend));
    }
    if (options.json) {
        nlohmann::ordered_json json = {{"model", config.name}, {"parameters", model.parameter_count()}};
        json["plans"] = nlohmann::ordered_json::array();
        for (const PlannedMemory& memory : plans) json["plans"].push_back(plan_json(model, memory, device));
        return json.dump(2) + "\n";
    }
    std::string text =
        fmt::format("{}: {}; {} parameters\nmicro-batch {} x {} tokens, {}, LM head in chunks of {} tokens\n\n",
                    config.name, describe(config), format_count(model.parameter_count()), shape.B, shape.T,
                    options.dtype, plans.front().plan.logits_chunk_tokens);
    text += overview(model, wanted, plans, device) + "\n" + breakdown(wanted, plans);
    for (size_t i = 0; options.list_steps && i < plans.size(); ++i) {
        text += fmt::format("\n{}: {}\n{}", wanted[i]->name, summarise_steps(plans[i].plan),
                            print_steps(model, plans[i].plan, &plans[i].layout));
    }
    if (!options.memory_budget.empty()) {
        const int64_t budget = parse_budget("--memory-budget", options.memory_budget, device.memory_total);
        text += fmt::format("\nwithin --memory-budget={} ({} B):", options.memory_budget, format_count(budget));
        bool any = false;
        for (size_t i = 0; i < plans.size(); ++i) {
            if (plans[i].total_bytes() > budget) continue;
            text += fmt::format(" {}", wanted[i]->name);
            any = true;
        }
        text += any ? "\n" : " none; lower --batch-size or --seq-len\n";
    }
    return text;
}

}  // namespace llmc
