#include "llmc/train/lora_options.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/printable.h"
#include "llmc/base/program_name.h"
#include "llmc/base/units.h"
#include "llmc/io/peft/adapters.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/load_weights.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

namespace llmc {
namespace {

constexpr double kAdapterLearningRate = 2e-4;
constexpr const char* kBesideLora[] = {"lora-alpha", "lora-targets", "lora-bias", "lora-dropout", "rslora"};

bool is_transposed(const Model& base) {
    const std::vector<HfPart> parts = hf_parts(base);
    return std::any_of(parts.begin(), parts.end(), [](const HfPart& part) { return part.transposed; });
}

/// A model with no names of its own in files: an architecture without weights.
std::string base_name(const Options& options) { return find_preset(options.model) ? "" : options.model; }

/// Adapters are thin: what has as many parameters as the matrices it is for saves nothing.
void require_thin(const Options& options, const Model& model) {
    int64_t adapters = 0, adapted = 0, sides = 0;
    for (const OpRow& row : model.block) {
        if (row.kind != OpKind::AdapterDown) continue;
        const AdapterShape& shape = model.adapters[static_cast<size_t>(row.adapter)];
        const int64_t in = model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))].cols;
        sides += in * static_cast<int64_t>(shape.groups.size()) + shape.b_rows();
        adapted += in * shape.b_rows();
    }
    adapters = sides * options.lora;
    if (adapters < adapted) return;
    fail_usage(
        "--lora={}: adapters of that rank have {} parameters in a layer, the matrices they adapt {}; take a rank of at "
        "most {}, or leave --lora out and train the matrices",
        options.lora, format_count(adapters), format_count(adapted), std::max<int64_t>(1, (adapted - 1) / sides));
}

[[noreturn]] void refuse_other(const Options& options, const std::string& name, const std::string& is) {
    fail_usage("--{}: the adapter '{}' has {}; leave --{} out", name, options.adapter, is, name);
}

}  // namespace

std::optional<PeftConfig> adapter_config(const Options& options, const Model& base) {
    if (options.lora == 0) return std::nullopt;
    PeftConfig config;
    config.rank = options.lora;
    config.alpha = options.lora_alpha > 0 ? options.lora_alpha : 2 * static_cast<double>(options.lora);
    config.bias = options.lora_bias;
    config.rslora = options.rslora;
    config.dropout = options.lora_dropout;
    config.fan_in_fan_out = is_transposed(base);
    config.base_model = base_name(options);
    config.target_modules = named_modules(base, "--lora-targets", options.lora_targets);
    return config;
}

Model with_adapters(const Options& options, Model base) {
    const std::optional<PeftConfig> config = adapter_config(options, base);
    if (!config) return base;
    const Model model = with_adapters(std::move(base), *config);
    if (options.adapter.empty()) require_thin(options, model);
    const auto is_bias = [&](const ParameterRow& row) { return row.trainable && row.name.ends_with("_bias"); };
    if (config->bias != "none" && std::none_of(model.parameters.begin(), model.parameters.end(), is_bias)) {
        fail_usage("--lora-bias={}: the model has no such biases; leave it out", options.lora_bias);
    }
    return model;
}

void require_adapter_folder(const Options& options) {
    if (options.adapter.empty() || is_peft_folder(options.adapter)) return;
    if (!path_exists(options.adapter)) {
        fail_usage("--adapter={}: is not there; give a folder with adapter_config.json and adapter_model.safetensors",
                   options.adapter);
    }
    const bool is_run =
        path_exists(options.adapter + "/config.toml") || path_exists(options.adapter + "/manifest.json");
    fail_usage("--adapter={}: {}", options.adapter,
               is_run ? fmt::format("is a run, not an adapter's folder; make one of it: {} export --run={} "
                                    "--format=peft --out=FOLDER",
                                    program_name(), shell_word(options.adapter))
                      : "has no adapter_config.json, as PEFT writes it beside adapter_model.safetensors");
}

void settle_adapter(Options& options, const Model& base) {
    if (options.adapter.empty()) return;
    require_adapter_folder(options);
    const PeftFolder adapter(options.adapter, base);
    const PeftConfig& config = adapter.config();
    const LoraSpec spec = adapter.spec();
    std::string targets;
    for (const LoraTarget& target : spec.targets) {
        const std::string leaf = target.module.substr(target.module.rfind('.') + 1);
        const std::vector<std::string> known = named_modules(base, "--adapter", targets.empty() ? "all" : targets);
        const bool is_known = !targets.empty() && std::find(known.begin(), known.end(), leaf) != known.end();
        if (!is_known) targets += (targets.empty() ? "" : ",") + leaf;
    }
    const double alpha = spec.targets.empty() ? config.alpha
                         : config.rslora      ? spec.targets.front().scale * std::sqrt(static_cast<double>(spec.rank))
                                              : spec.targets.front().scale * static_cast<double>(spec.rank);
    if (options.was_given("lora") && options.lora != spec.rank) {
        refuse_other(options, "lora", fmt::format("rank {}", spec.rank));
    }
    if (options.was_given("lora-alpha") && options.lora_alpha != alpha) {
        refuse_other(options, "lora-alpha", fmt::format("alpha {:g}", alpha));
    }
    if (options.was_given("lora-targets") &&
        named_modules(base, "--lora-targets", options.lora_targets) != named_modules(base, "--adapter", targets)) {
        refuse_other(options, "lora-targets", "adapters of " + targets);
    }
    if (options.was_given("rslora") && options.rslora != config.rslora) {
        refuse_other(options, "rslora", config.rslora ? "it" : "it not");
    }
    if (options.was_given("lora-bias") && options.lora_bias != config.bias) {
        refuse_other(options, "lora-bias", config.bias);
    }
    if (spec.rank == 0) {
        fail(
            "--adapter={}: it has no adapters, only parameters that were trained whole; go on with those by merging "
            "it first: {} export --adapter",
            options.adapter, program_name());
    }
    options.lora = spec.rank, options.lora_alpha = alpha, options.lora_targets = targets;
    options.rslora = config.rslora, options.lora_bias = config.bias;
    if (!options.was_given("lora-dropout")) options.lora_dropout = config.dropout;  // No part of what it computes.
    const bool freezes = !options.freeze.empty();
    for (const int row : adapter.replaced()) {  // What the folder has anew goes on training, and into the next folder.
        const std::string& name = base.parameters[static_cast<size_t>(row)].name;
        if (freezes || !name.ends_with("_bias")) options.freeze += (options.freeze.empty() ? "!" : ",!") + name;
    }
}

void load_weights(const Options& options, const WeightSource& weights, State& state) {
    if (!state.model().lora) return load_weights(weights, state);
    std::optional<PeftFolder> adapter;
    if (!options.adapter.empty()) adapter.emplace(options.adapter, weights.model());
    load_adapted(weights, adapter ? &*adapter : nullptr, static_cast<uint64_t>(options.seed), state);
}

std::string describe_adapters(const Options& options, const Model& model) {
    const PeftConfig config = *adapter_config(options, make_model(model.config));
    return fmt::format("adapters of rank {}, alpha {:g}{}, on {}; kept in fp32{}{}", config.rank, config.alpha,
                       config.rslora ? " over the rank's root" : "", fmt::join(config.target_modules, ", "),
                       config.bias == "none" ? "" : "; biases train: " + config.bias,
                       config.dropout > 0 ? fmt::format("; dropout {:g}", config.dropout) : "");
}

namespace {

bool has_frozen_matrices(const Model& model) {
    for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
        if (!model.trains(row) && model.is_layer_matrix(row) && !is_adapter(model, row)) return true;
    }
    return false;
}

}  // namespace

void settle_base_format(Options& options, const WeightSource& weights, const Model& model) {
    const std::optional<WeightFormat> format = weights.nf4_format();
    if (options.base_format == "auto" && format && has_frozen_matrices(model)) options.base_format = name_of(*format);
}

void require_base(const Options& options, const Model& model) {
    if (options.base_format == "auto" || has_frozen_matrices(model)) return;
    fail_usage(
        "--base-format={}: is about frozen matrices of layers, and all of them train; add --lora=RANK, or leave "
        "--base-format out",
        options.base_format);
}

std::string describe_base(const Model& model, const Places& places) {
    if (places.base() == plain_format(places.activations())) return "";
    int64_t bytes = 0, elements = 0;
    for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
        if (model.trains(row) || !model.is_layer_matrix(row) || is_adapter(model, row)) continue;
        const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
        bytes += stored_bytes(parameter, places.base());
        elements += parameter.count();
    }
    if (elements == 0) return "";
    return fmt::format("{} of the layers' frozen parameters as {}, {:.2f} bits each", format_count(elements),
                       name_of(places.base()), 8 * static_cast<double>(bytes) / static_cast<double>(elements));
}

void settle_adapter_schedule(Options& options) {
    if (options.lora == 0 || !options.resume.empty()) return;
    if (!options.was_given("learning-rate")) options.learning_rate = kAdapterLearningRate;
    if (!options.was_given("weight-decay")) options.weight_decay = 0;
}

std::string remark_on_lora(const Options& options) {
    const bool trains = options.command == Command::Train && options.resume.empty();
    if (!trains || options.lora == 0 || !find_preset(options.model)) return "";
    return fmt::format(
        "--lora={}: --model={} is an architecture, whose weights are random and stay so; name a folder that has "
        "weights",
        options.lora, options.model);
}

void validate_lora(const Options& options) {
    const bool has_adapters = options.lora > 0 || !options.adapter.empty();
    for (const char* name : kBesideLora) {
        if (!has_adapters && options.was_typed(name)) {
            fail_usage("--{}: is about adapters, of which there are none; add --lora=RANK, or leave it out", name);
        }
    }
    if (options.merge && options.format == "peft") {
        fail_usage(
            "--merge: --format=peft writes the adapters by themselves; choose another --format, or leave it out");
    }
    if (!options.adapter.empty() && options.was_typed("adapter") && !options.resume.empty()) {
        fail_usage("--adapter={}: a run goes on with its own adapters; leave --adapter out", options.adapter);
    }
}

}  // namespace llmc
