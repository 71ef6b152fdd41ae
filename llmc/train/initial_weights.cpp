#include "llmc/train/initial_weights.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/nearest_word.h"
#include "llmc/base/printable.h"
#include "llmc/base/program_name.h"
#include "llmc/io/checkpoint_folder.h"
#include "llmc/io/hf_model.h"
#include "llmc/io/llmc_model.h"
#include "llmc/io/models_tokenizer.h"
#include "llmc/io/peft/peft_folder.h"
#include "llmc/train/checkpointing.h"
#include "llmc/train/lora_options.h"
#include "llmc/train/run_folder.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <utility>

namespace llmc {
namespace {

/// Published weights of a preset's architecture.
struct PublishedModel {
    const char* preset;
    const char* repository;  ///< On huggingface.co.
};
constexpr std::array kPublished = {
    PublishedModel{"gpt2", "openai-community/gpt2"},
    PublishedModel{"gpt2-medium", "openai-community/gpt2-medium"},
    PublishedModel{"gpt2-large", "openai-community/gpt2-large"},
    PublishedModel{"gpt2-xl", "openai-community/gpt2-xl"},
    PublishedModel{"smollm2-135m", "HuggingFaceTB/SmolLM2-135M"},
    PublishedModel{"smollm2-360m", "HuggingFaceTB/SmolLM2-360M"},
    PublishedModel{"smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B"},
    PublishedModel{"tinyllama-1.1b", "TinyLlama/TinyLlama_v1.1"},
    PublishedModel{"llama3.2-1b", "meta-llama/Llama-3.2-1B"},
    PublishedModel{"llama3.2-3b", "meta-llama/Llama-3.2-3B"},
    PublishedModel{"llama2-7b", "meta-llama/Llama-2-7b-hf"},
    PublishedModel{"mistral-7b", "mistralai/Mistral-7B-v0.3"},
    PublishedModel{"llama3-8b", "meta-llama/Meta-Llama-3-8B"},
    PublishedModel{"llama3.1-8b", "meta-llama/Llama-3.1-8B"},
    PublishedModel{"llama3-70b", "meta-llama/Llama-3.1-70B"},
};

std::string without_slash(std::string path) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    return path;
}

bool is_run_or_checkpoint(const std::string& folder) {
    return path_exists(folder + "/" + kManifestName) || path_exists(checkpoints_folder(folder)) ||
           path_exists(folder + "/config.toml") || step_from_name(folder.substr(folder.rfind('/') + 1)).has_value();
}

[[noreturn]] void refuse(const std::string& path, const std::string& option) {
    if (option != "--model" && find_preset(path)) {
        fail_usage("{}={}: that is an architecture without weights; give a folder or file that has them", option, path);
    }
    const std::string place = without_slash(path), folder = std::filesystem::path(place).parent_path().string();
    if (!path_exists(place)) {
        if (option != "--model") fail_usage("{}={}: not there; check the name and the current folder", option, path);
        std::string small = path;
        std::transform(small.begin(), small.end(), small.begin(), [](unsigned char c) { return std::tolower(c); });
        const std::string question = likely_as_question(small, preset_names());
        fail_usage("--model={}: neither a preset nor a file or folder that is there{}", path,
                   question.empty() ? fmt::format("; {} explain presets lists the presets", program_name()) : question);
    }
    if (is_peft_folder(place)) {
        fail_usage(
            "{}={}: an adapter, not a whole model; name the model that it was trained on, and the adapter beside it: "
            "{} --adapter={}",
            option, path, option == "--from" ? "export --run=BASE" : option + "=BASE", shell_word(path));
    }
    if (is_directory(place)) {
        fail_usage(
            "{}={}: of no known kind: the folder has no config.json, as Hugging Face's have, and neither the "
            "config.toml nor the checkpoints of a run",
            option, path);
    }
    if (place.ends_with(".gguf")) {
        fail_usage("{}={}: GGUF files are written here, not read; give the Hugging Face folder that it was made from",
                   option, path);
    }
    const bool is_part = is_hf_folder(folder.empty() ? "." : folder);
    fail_usage("{}={}: of no known kind: {}", option, path,
               is_part ? fmt::format("a file of a Hugging Face folder; give the folder: {}={}", option,
                                     shell_word(folder.empty() ? "." : folder))
                       : "neither a folder of a model nor an llm.c model file (.bin)");
}

}  // namespace

std::unique_ptr<WeightSource> open_weights(const std::string& path, const std::string& option) {
    const std::string place = without_slash(path);
    if (is_directory(place)) {
        if (is_hf_folder(place)) return std::make_unique<HfModel>(place);
        if (is_run_or_checkpoint(place)) return std::make_unique<CheckpointWeights>(open_checkpoint(place, option));
    } else if (path_exists(place)) {
        std::error_code none;
        const std::filesystem::path name = std::filesystem::canonical(place, none).filename();
        if (name == kLatestName || name == kBestName) {
            return std::make_unique<CheckpointWeights>(open_checkpoint(place, option));
        }
        if (place.ends_with(".safetensors")) {
            fail_usage(
                "{}={}: the file alone does not say what model it is; give the folder it is in, with config.json",
                option, path);
        }
        if (place.ends_with(".bin")) return std::make_unique<LlmcModel>(place);
    }
    refuse(path, option);
}

namespace {

/// Looks at every value on its way through.
class FiniteWeights final : public WeightSource {
  public:
    explicit FiniteWeights(std::unique_ptr<WeightSource> weights)
        : WeightSource(weights->model()), weights_(std::move(weights)) {}

    void read(int parameter, std::span<float> out) const override {
        weights_->read(parameter, out);
        float zero = 0;  // Infinity times 0 is no number either. At the speed of memory.
#pragma omp simd reduction(+ : zero)
        for (size_t i = 0; i < out.size(); ++i) zero += out[i] * 0;
        if (zero == 0) return;
        const auto bad = std::find_if(out.begin(), out.end(), [](float value) { return !std::isfinite(value); });
        const ParameterRow& row = model().parameters[static_cast<size_t>(parameter)];
        const int64_t place = bad - out.begin();
        fail(
            "{}: the tensor '{}' has the value {} in row {}, column {}; the model is damaged, or its training "
            "diverged: take an earlier checkpoint",
            weights_->describe(), row.name, *bad, place / row.cols, place % row.cols);
    }
    std::optional<WeightFormat> nf4_format() const override { return weights_->nf4_format(); }
    std::optional<Nf4Tensor> nf4_part(int parameter, int64_t first_row) const override {
        std::optional<Nf4Tensor> part = weights_->nf4_part(parameter, first_row);
        if (!part) return part;
        const std::vector<float> largest =
            part->absmax.empty() ? nf4_absmax(part->absmax_codes, part->nested_absmax, part->offset) : part->absmax;
        const auto bad = std::find_if(largest.begin(), largest.end(), [](float x) { return !std::isfinite(x); });
        if (bad == largest.end()) return part;
        fail(
            "{}: the tensor '{}' has a block of 4-bit weights whose largest magnitude is {}; the model is damaged: "
            "quantize it again",
            weights_->describe(), model().parameters[static_cast<size_t>(parameter)].name, *bad);
    }
    std::string describe() const override { return weights_->describe(); }
    std::string tokenizer() const override { return weights_->tokenizer(); }
    std::string tokenizer_folder() const override { return weights_->tokenizer_folder(); }
    DType dtype() const override { return weights_->dtype(); }
    int64_t seq_len() const override { return weights_->seq_len(); }
    int64_t padded_vocab_size() const override { return weights_->padded_vocab_size(); }

  private:
    std::unique_ptr<WeightSource> weights_;
};

}  // namespace

std::unique_ptr<WeightSource> require_finite(std::unique_ptr<WeightSource> weights) {
    return std::make_unique<FiniteWeights>(std::move(weights));
}

bool names_weights(const std::string& model) { return !find_preset(model); }

std::unique_ptr<WeightSource> adapted_weights(const Options& options, const std::string& path,
                                              const std::string& option) {
    std::unique_ptr<WeightSource> weights = open_weights(path, option);
    if (options.adapter.empty()) return weights;
    const auto* const checkpoint = dynamic_cast<const CheckpointWeights*>(weights.get());
    if (checkpoint != nullptr && !checkpoint->adapter().empty()) {
        fail_usage("--adapter={}: the run {}={} has adapters of its own; leave --adapter out", options.adapter, option,
                   path);
    }
    require_adapter_folder(options);
    return merged(std::move(weights), options.adapter);
}

std::unique_ptr<WeightSource> trained_weights(const Options& options) {
    if (!options.run.empty()) return require_finite(adapted_weights(options, options.run, "--run"));
    if (!names_weights(options.model)) {
        fail_usage(
            "--model={}: that is an architecture without weights; give a Hugging Face folder, an llm.c file, or "
            "--run=RUN_FOLDER",
            options.model);
    }
    return require_finite(adapted_weights(options, options.model, "--model"));
}

std::unique_ptr<Tokenizer> tokenizer_for(const Options& options, const WeightSource& weights) {
    const TokenizerChoices choices = {options.document_token, options.tokenizer_pattern};
    auto tokenizer = options.tokenizer.empty() ? make_models_tokenizer(weights.tokenizer(), choices)
                                               : make_given_tokenizer(options.tokenizer, weights.tokenizer(), choices);
    require_vocabulary(*tokenizer, weights.model().config.V);
    return tokenizer;
}

DType inference_dtype(const WeightSource& weights, const Backend& backend) {
    return weights.dtype() == DType::BF16 && backend.info().supports_bf16 ? DType::BF16 : DType::F32;
}

ModelConfig model_config_at(const std::string& path, const std::string& option) {
    const std::string place = without_slash(path);
    if (is_directory(place) && is_hf_folder(place)) return read_hf_config(place);
    return open_weights(place, option)->model().config;
}

std::string given_architecture_option(const Options& options, bool typed) {
    for (const OptionRow& row : option_table()) {
        const std::string name = row.name();
        const bool is_given = typed ? options.was_typed(name) : options.was_given(name);
        if (std::string(row.group) == "Model" && name != "model" && is_given) return "--" + name;
    }
    return "";
}

std::optional<ModelConfig> Origin::config(const Options& options) const {
    if (weights != nullptr) return weights->model().config;
    if (checkpoint && names_weights(options.model)) return model_of(*checkpoint);
    return std::nullopt;
}

std::string Origin::tokenizer() const {
    if (weights != nullptr) return weights->tokenizer();
    return checkpoint ? tokenizer_of(*checkpoint) : "";
}

std::string Origin::tokenizer_folder() const {
    if (weights != nullptr) return weights->tokenizer_folder();
    return checkpoint ? tokenizer_folder_of(*checkpoint) : "";
}

std::string Origin::describe(const Options& options) const {
    if (weights != nullptr) return "weights of " + weights->describe();
    if (checkpoint) return fmt::format("weights of the checkpoint '{}'", checkpoint->path);
    const auto published = std::find_if(kPublished.begin(), kPublished.end(),
                                        [&](const PublishedModel& row) { return row.preset == options.model; });
    if (published == kPublished.end() || !given_architecture_option(options).empty()) return "random initial weights";
    return fmt::format(
        "random initial weights; for the published ones download huggingface.co/{} (config.json, "
        "*.safetensors, tokenizer files) and name the folder: --model=FOLDER",
        published->repository);
}

Origin open_origin(const Options& options, int rank, int ranks) {
    Origin origin;
    if (options.resume.empty()) {
        if (names_weights(options.model)) origin.weights = require_finite(open_weights(options.model, "--model"));
        return origin;
    }
    if (options.was_typed("model") && names_weights(options.model)) {
        fail_usage("--model={}: has no effect with --resume, which takes the run's own weights; leave one of them out",
                   options.model);
    }
    origin.checkpoint = open_checkpoint(options.resume, "--resume", rank, ranks);
    if (progress_of(*origin.checkpoint).train_tokens == 0 && !options.was_typed("data")) {
        fail_usage(
            "--resume={}: an imported model, which has not been trained here; begin a run with it: --model={} "
            "--data=FILE",
            options.resume, shell_word(options.resume));
    }
    require_own_checkpoint(origin.checkpoint->path, find_run_folder(options.resume, "--resume"), options.resume);
    return origin;
}

}  // namespace llmc
