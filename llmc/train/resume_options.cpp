#include "llmc/train/resume_options.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/initial_weights.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace llmc {
namespace {

/// "layers is 3, not 2; heads is 4, not 2": where a model differs from the one asked for.
std::string differences(const ModelConfig& is, const ModelConfig& asked) {
    const nlohmann::json values = nlohmann::json::parse(to_json(is)), others = nlohmann::json::parse(to_json(asked));
    std::vector<std::string> parts;
    for (const auto& [field, value] : values.items()) {
        if (field == "name" || value == others.at(field)) continue;
        if (field != "features") {
            parts.push_back(fmt::format("{} is {}, not {}", field, value.dump(), others.at(field).dump()));
        } else if (is.family == asked.family) {  // Another family has others.
            parts.push_back(difference(is.features, asked.features));
        }
    }
    return fmt::format("{}", fmt::join(parts, "; "));
}

/// An option's value as the model's description has it.
nlohmann::json value_of(const Options& options, const OptionRow& row) {
    return std::visit(
        [&](auto member) -> nlohmann::json {
            const auto& value = options.*member;
            using Value = std::remove_cvref_t<decltype(value)>;
            if constexpr (std::is_same_v<Value, std::string>) return value == "true";
            return value;
        },
        row.field);
}

/// The model's options, which the description has by the same names, with underscores.
void require_kept_model(const Options& options, const ModelConfig& config) {
    const nlohmann::json model = nlohmann::json::parse(to_json(config));
    for (const OptionRow& row : option_table()) {
        const std::string name = row.name();
        std::string field = name;
        std::replace(field.begin(), field.end(), '-', '_');
        if (!options.was_typed(name) || (row.commands & kTrain) == 0 || !model.contains(field)) continue;
        const nlohmann::json asked = value_of(options, row);
        if (asked == model[field]) continue;
        fail_usage("--{}={}: the run's model ({}) has {}, and cannot have another; leave --{} out", name, asked.dump(),
                   describe(config), model[field].dump(), name);
    }
    const std::optional<ModelConfig> preset = find_preset(options.model);
    if (!options.was_typed("model") || !preset || preset->name == config.name) return;
    fail_usage("--model={}: the run's model is {}, and cannot be another; leave --model out", options.model,
               config.name);
}

/// The adapters of a run are those it began with.
void require_kept_adapters(const Options& options, const Progress& progress, const ModelConfig& config) {
    const std::optional<PeftConfig> asked = adapter_config(options, make_model(config));
    if (asked.has_value() != !progress.adapter.empty()) {
        fail_usage("--lora={}: the run {}; leave --lora out, or begin a new run with its weights: --model={} --lora={}",
                   options.lora, asked ? "trains the weights, not adapters" : "trains adapters", options.resume,
                   options.lora);
    }
    if (!asked) return;
    const PeftConfig kept = peft_config_from_json(progress.adapter, options.resume);
    const auto require = [&](const char* name, bool same, const std::string& is) {
        if (!same) fail_usage("--{}: the run's adapters have {}; leave --{} out", name, is, name);
    };
    require("lora", asked->rank == kept.rank, fmt::format("rank {}", kept.rank));
    require("lora-alpha", asked->alpha == kept.alpha, fmt::format("alpha {:g}", kept.alpha));
    require("rslora", asked->rslora == kept.rslora, kept.rslora ? "it" : "it not");
    require("lora-bias", asked->bias == kept.bias, kept.bias);
    require("lora-targets", asked->target_modules == kept.target_modules,
            fmt::format("{}", fmt::join(kept.target_modules, ",")));
}

/// Moments are those of what trained so far. Other patterns for the same parameters are no other run.
void require_kept_trainable(const Options& options, const Progress& progress, const ModelConfig& config) {
    Options before = options;
    before.freeze = progress.freeze;
    const Model kept = model_to_train(before, config), asked = model_to_train(options, config);
    for (size_t i = 0; i < kept.parameters.size(); ++i) {
        if (kept.parameters[i].trainable == asked.parameters[i].trainable) continue;
        fail_usage(
            "--freeze={}: in the run {} was {} ({}), and a run goes on with what it trains; leave --freeze and "
            "--trainable out, or begin a new run with its weights: --model={} --freeze={}",
            options.freeze, kept.parameters[i].name, kept.parameters[i].trainable ? "trained" : "frozen",
            progress.freeze.empty() ? "without --freeze" : "--freeze=" + progress.freeze, options.resume,
            options.freeze);
    }
}

}  // namespace

void require_kept_options(const Options& options, const Checkpoint& checkpoint) {
    const Progress progress = progress_of(checkpoint);
    require_kept_model(options, model_of(checkpoint));
    if (progress.train_tokens == 0) {
        if (options.lora > 0) {
            fail_usage(
                "--lora={}: the import has no adapters to go on with; begin a new run with its weights: "
                "--model={} --lora={}",
                options.lora, options.resume, options.lora);
        }
        return require_whole_updates(options);
    }
    if (progress.optimizer != options.optimizer) {
        fail_usage("--optimizer={}: the run began with {}, whose moments are others; leave --optimizer out",
                   options.optimizer, progress.optimizer);
    }
    require_kept_adapters(options, progress, model_of(checkpoint));
    require_kept_trainable(options, progress, model_of(checkpoint));
    if (progress.seed != options.seed) {
        fail_usage("--seed={}: the run began with seed {}, which its data order depends on; leave --seed out",
                   options.seed, progress.seed);
    }
    if (progress.seq_len != options.seq_len) {
        fail_usage(
            "--seq-len={}: the run began with sequences of {} tokens, which its data order depends on; leave it out",
            options.seq_len, progress.seq_len);
    }
    if (options.was_typed("pack") && options.pack != "auto" && progress.pack != options.pack) {
        fail_usage("--pack={}: the run began with --pack={}, which its data order depends on; leave --pack out",
                   options.pack, progress.pack);
    }
    require_whole_updates(options);
}

void require_same_run(const Options& options, const ModelConfig& config, const Checkpoint& checkpoint) {
    const ModelConfig kept = model_of(checkpoint);
    const std::string other = differences(kept, config);
    if (other.empty()) return;
    if (kept.V != config.V && options.was_typed("data")) {
        fail_usage("--data={}: has a vocabulary of {}, the run's model one of {}; give data of the same tokenizer",
                   options.data, config.V, kept.V);
    }
    const bool is_asked_for = options.was_typed("model") || !given_architecture_option(options, /*typed=*/true).empty();
    fail_usage("--resume={}: the checkpoint holds another model than {}: {}; {}", options.resume,
               is_asked_for ? "asked for" : "the run's config.toml says", other,
               is_asked_for ? "leave the model options out" : "put back a copy of that file");
}

void keep_packing(Options& options, const Checkpoint& checkpoint) {
    const Progress progress = progress_of(checkpoint);
    if (options.was_typed("pack") && options.pack == "auto" && progress.train_tokens != 0) options.pack = progress.pack;
}

void keep_total_batch(Options& options, const Checkpoint& checkpoint) {
    const Progress progress = progress_of(checkpoint);
    if (options.total_batch_size > 0 || progress.train_tokens == 0) return;
    options.total_batch_size = progress.total_batch_size;
    const int64_t at_once = std::max<int64_t>(1, options.batch_size) * options.seq_len * options.ranks;
    if (options.total_batch_size % at_once == 0) return;
    fail_usage(
        "--resume={}: the run has {} tokens per update, which {} rank{} of {} x {} tokens do not divide; choose "
        "another --batch-size, or another --total-batch-size for other updates",
        options.resume, progress.total_batch_size, options.ranks, options.ranks == 1 ? "" : "s", options.batch_size,
        options.seq_len);
}

}  // namespace llmc
