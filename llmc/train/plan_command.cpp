#include "llmc/train/plan_command.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/counted.h"
#include "llmc/base/log.h"
#include "llmc/base/terminal.h"
#include "llmc/base/units.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/plan_tables.h"
#include "llmc/draw/text_table.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/json_text.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/plan/formats.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/print.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/gemm_choice.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/offload.h"
#include "llmc/train/options_levels.h"
#include "llmc/train/output_file.h"
#include "llmc/train/placement.h"
#include "llmc/train/plan_frontier.h"
#include "llmc/train/plan_json.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/plan_ranks.h"
#include "llmc/train/plan_what_fits.h"
#include "llmc/train/profile_file.h"
#include "llmc/train/remedy.h"
#include "llmc/train/setup.h"
#include "llmc/train/tile_options.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <optional>

namespace llmc {
namespace {

/// --batch-size=auto may choose another micro-batch for every plan.
std::string chosen_batches(const Options& options, const std::vector<ChosenPlan>& plans) {
    std::string text =
        fmt::format("of {} per update, sequences in a micro-batch:", counted(options.total_batch_size, "token"));
    for (const ChosenPlan& chosen : plans) {
        text += fmt::format(" {} {}", chosen.memory.plan.policy, chosen.memory.plan.shape.B);
    }
    return text;
}

bool fits(const Options& options, const ChosenPlan& chosen, const Backend& backend) {
    return fits_both(options, backend, chosen.memory.total_bytes(), chosen.memory.host_bytes());
}

std::string overview(const Options& options, const Model& model, const std::vector<ChosenPlan>& plans,
                     const Backend& backend, const ReportUnits& units, int width) {
    std::vector<LevelRow> rows;
    for (const ChosenPlan& chosen : plans) {
        const PlannedMemory& memory = chosen.memory;
        rows.push_back({memory.plan.policy, memory.simulation.layer_activation_bytes, memory.layout.arena_bytes,
                        memory.total_bytes(), memory.host_bytes(), memory.simulation.extra_flops_ratio(),
                        chosen.step_seconds, fits(options, chosen, backend), memory_peak(model, memory)});
    }
    std::string text = levels_table(rows, units, width);
    text += wrapped(fmt::format("step times: {}", plans.front().times.source), width);
    for (const ChosenPlan& chosen : plans) {
        const std::string& policy = chosen.memory.plan.policy;
        if (policy == "auto" || policy == "sqrt") text += wrapped(fmt::format("{}: {}", policy, chosen.words), width);
    }
    for (const ChosenPlan& chosen : plans) {
        if (!chosen.placed) continue;
        const Places& places = chosen.memory.plan.places;
        const std::string list = offload_of(places);
        text += wrapped(fmt::format("{}: {} (--offload={})", chosen.memory.plan.policy,
                                    list == "none" ? "nothing on the host" : places.describe(), list),
                        width);
    }
    for (const ChosenPlan& chosen : plans) {
        const std::string tiles = describe_tiles(options, chosen.memory.plan);
        if (!tiles.empty()) text += wrapped(fmt::format("{}: tiles: {}", chosen.memory.plan.policy, tiles), width);
    }
    for (const ChosenPlan& chosen : plans) {
        if (!chosen.delays_update()) continue;
        text += wrapped(fmt::format("{}: update delayed into the next forward; at once, {} {}",
                                    chosen.memory.plan.policy, units.seconds(chosen.now_seconds), units.of_seconds("")),
                        width);
    }
    return text;
}

/// Bytes by consumer, a column per policy: of the device, and of the host where it is used.
std::string breakdown(const std::vector<ChosenPlan>& plans, const ReportUnits& units, int width) {
    std::vector<ConsumerColumn> device, host;
    bool uses_host = false;
    for (const ChosenPlan& chosen : plans) {
        device.push_back({chosen.memory.plan.policy, {}}), host.push_back({chosen.memory.plan.policy, {}});
        for (const MemoryRow& row : chosen.memory.rows()) device.back().bytes.emplace_back(row.name, row.bytes);
        for (const MemoryRow& row : chosen.memory.host_rows()) host.back().bytes.emplace_back(row.name, row.bytes);
        uses_host = uses_host || chosen.memory.host_bytes() > 0;
    }
    std::string text = consumers_table("at the peak,", "total", device, units, width);
    if (uses_host) text += "\n" + consumers_table("host memory,", "host total", host, units, width);
    return text;
}

/// What of the shape nobody gave; "" if all was.
std::string assumed_shape(const Options& options, const Model& model) {
    std::string names;
    for (const char* name : {"batch-size", "seq-len"}) {
        if (!options.was_given(name)) names += fmt::format("{}--{}", names.empty() ? "" : " and ", name);
    }
    if (names.empty()) return "";
    const bool is_open = !options.was_given("seq-len") && model.config.maxT > options.seq_len;
    return fmt::format("{} not given: as train takes; {}--what-fits looks for the fastest", names,
                       is_open ? fmt::format("the model takes {} tokens; ", format_count(model.config.maxT)) : "");
}

/// What each layer keeps: of auto, and of a level that was asked for by its name alone.
std::string decided(const Model& model, const std::vector<ChosenPlan>& plans, const ReportUnits& units, int width) {
    std::string text;
    for (const ChosenPlan& chosen : plans) {
        if (chosen.memory.plan.policy != "auto" && plans.size() > 1) continue;
        text +=
            "\n" + decisions_table(chosen.memory.plan.policy,
                                   layer_decisions(model, chosen.memory.plan, chosen.keep, chosen.times), units, width);
    }
    return text;
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

/// What fits, in words; where nothing does, what binds and what would do.
std::string within_budget(const Options& options, const Model& model, const std::vector<ChosenPlan>& plans,
                          const Backend& backend, int width) {
    const int64_t budget = memory_limit(options, backend.info());
    std::string names;
    for (const ChosenPlan& chosen : plans) {
        if (fits(options, chosen, backend)) names += " " + chosen.memory.plan.policy;
    }
    const std::string bound = memory_bound(options, backend.info());
    const std::string what = options.memory_budget.empty()
                                 ? fmt::format("{}{}", format_bytes(budget), bound.empty() ? "" : " (" + bound + ")")
                                 : fmt::format("--memory-budget={} ({})", options.memory_budget, format_bytes(budget));
    const std::string host =
        options.host_memory_budget.empty()
            ? ""
            : fmt::format(" and {} of host memory (--host-memory-budget)", format_bytes(host_memory_limit(options)));
    std::string text = fmt::format("\nwithin {}{}:{}", what, host, names);
    if (names.empty()) {
        const BatchShape& shape = plans.front().memory.plan.shape;
        Options of_plan = options;
        of_plan.recompute = plans.front().memory.plan.policy, of_plan.batch_size = shape.B;
        const std::string floor = floor_words(of_plan, model, shape, backend);
        text += fmt::format(" none; {}{}", floor.empty() ? "" : floor + "; ", advice(of_plan, model, shape, backend));
    }
    return wrapped(text, width);
}

/// As the folder's config.json says how its matrices are stored; its weights need not be there.
void settle_planned_base(Options* options) {
    if (options->base_format != "auto" || !is_hf_folder(options->model)) return;
    const MatrixFormat format = read_matrix_format(options->model);
    const bool freezes = options->lora > 0 || !options->freeze.empty();
    if (!freezes || (format != MatrixFormat::Nf4 && format != MatrixFormat::Nf4Double)) return;
    options->base_format = name_of(format == MatrixFormat::Nf4 ? WeightFormat::Nf4 : WeightFormat::Nf4Double);
}

/// May shorten the sequences to what the model takes.
Model model_of(Options& options) {
    if (names_weights(options.model)) {
        const ModelConfig config = model_config_at(options.model, "--model");
        settle_planned_base(&options);
        if (!options.what_fits.empty() && !options.was_given("seq-len")) options.seq_len = config.maxT;
        settle_seq_len(options, config);
        return model_to_train(options, accept_model(options, config, nullptr));
    }
    const std::optional<ModelConfig> known = find_preset(options.model);
    const int64_t own_context = options.max_seq_len > 0 ? options.max_seq_len : known ? known->maxT : 0;
    const bool is_open = !options.what_fits.empty() && !options.was_given("seq-len");
    if (is_open && own_context > 0) options.seq_len = own_context;
    // Without --data the preset keeps its published vocabulary.
    int64_t vocabulary = 0, least = 0;
    if (!options.tokenizer.empty()) {
        vocabulary = least = make_given_tokenizer(options.tokenizer, "")->vocab_size();
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
    if (!options.timeline.empty())
        write_output("--timeline", options.timeline, timeline_picture(model, plans.front().memory));
    if (options.json) {
        nlohmann::ordered_json json = {{"model", model.config.name}, {"parameters", model.parameter_count()}};
        if (model.has_frozen()) json["trainable_parameters"] = model.trainable_count();
        const StateFormats formats = formats_of(plans.front().memory.plan.places);
        json["formats"] = {{"moments", format_name(formats.moments)},
                           {"masters", formats.masters ? "fp32" : "none"},
                           {"gradients", format_name(formats.gradients)}};
        if (model.has_frozen()) json["formats"]["base"] = name_of(plans.front().memory.plan.places.base());
        if (options.ranks > 1) json["ranks"] = options.ranks, json["zero"] = options.zero;
        const int64_t budget = memory_limit(options, backend.info());
        json["limit_bytes"] = budget;
        if (!options.host_memory_budget.empty()) json["host_limit_bytes"] = host_memory_limit(options);
        json["plans"] = nlohmann::ordered_json::array();
        for (const ChosenPlan& chosen : plans) {
            json["plans"].push_back(plan_json(model, chosen, fits(options, chosen, backend)));
        }
        return json_report(json);
    }
    const Plan& first = plans.front().memory.plan;
    const int width = output_columns();
    int64_t largest = 0;
    for (const ChosenPlan& chosen : plans) largest = std::max(largest, chosen.memory.total_bytes());
    const ReportUnits units(options.bytes, largest);
    std::string text = wrapped(model_line(model), width);
    const std::string formats = describe(formats_of(first.places));
    text += wrapped(fmt::format("micro-batch {} x {} {}, {}, LM head in chunks of {}{}{}", first.shape.B, first.shape.T,
                                noun(first.shape.N(), "token"), name_of(first.dtype),
                                counted(first.logits_chunk_tokens, "token"), formats.empty() ? "" : "; ", formats),
                    width);
    if (const std::string assumed = assumed_shape(options, model); !assumed.empty()) text += wrapped(assumed, width);
    if (const std::string base = describe_base(model, first.places); !base.empty()) {
        text += wrapped(fmt::format("base: {}", base), width);
    }
    text += wrapped(fmt::format("fused: {}", plans.front().fusion), width);
    if (options.batch_size == 0) text += wrapped(chosen_batches(options, plans), width);
    if (options.ranks > 1) text += fmt::format("bytes are those of one rank of {}\n", options.ranks);
    text += "\n" + overview(options, model, plans, backend, units, width) + "\n" + breakdown(plans, units, width);
    text += decided(model, plans, units, width);
    if (options.ranks > 1) text += communication_table(plans, options.zero, units, width);
    if (options.list_steps) text += steps_listed(model, plans);
    const bool fits_none = std::none_of(plans.begin(), plans.end(),
                                        [&](const ChosenPlan& chosen) { return fits(options, chosen, backend); });
    if (!options.memory_budget.empty() || !options.host_memory_budget.empty() || !options.device_profile.empty() ||
        fits_none) {
        text += within_budget(options, model, plans, backend, width);
    }
    if (!options.timeline.empty()) text += fmt::format("\npicture: {}\n", options.timeline);
    return text;
}

}  // namespace

namespace {

/// What the plan is for: --device-profile, in whatever build; and where --device names a GPU and none is here to ask,
/// one that is said.
std::unique_ptr<Backend> planning_backend(Options* options) {
    const bool is_elsewhere = !options->device_profile.empty() && options->device == "auto";
    // Without its backend a GPU's workspaces are guessed: those of a CPU, of as many threads on every machine.
    const bool guesses = is_elsewhere && !has_cuda_backend() && device_profile_of(*options).kind != "cpu";
    auto backend = make_planning_backend(is_elsewhere && has_cuda_backend() ? "cuda" : options->device,
                                         guesses ? 1 : static_cast<int>(options->threads), options->cpu_products);
    if (options->device_profile.empty() && backend->on_gpu() && backend->info().memory_total == 0) {
        options->device_profile = "h100";
        spdlog::warn(
            "--device={}: there is no GPU here to ask, so memory and times are those of an h100; name yours with "
            "--device-profile",
            options->device);
    }
    return backend;
}

}  // namespace

std::string plan_report(const Options& given) {
    Options options = given;
    options.packed = options.partly_scored = options.pack == "documents";
    const std::unique_ptr<Backend> backend = planning_backend(&options);
    assume_arithmetic(options, *backend);
    assume_own_gemms(options, *backend);
    if (options.all_presets) return all_presets_report(options, *backend);
    const Model model = model_of(options);
    require_base(options, model);
    if (options.frontier) return frontier_report(options, model, *backend);
    if (!options.what_fits.empty()) return what_fits_report(options, model, *backend);
    return levels_report(options, model, *backend);
}

}  // namespace llmc
