// Where a model's weights come from, as --model, --run and --from name it.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/tokenizer.h"
#include "llmc/io/weights.h"
#include "llmc/train/options.h"

#include <memory>
#include <optional>
#include <string>

namespace llmc {

/// Opens what `path` names: a Hugging Face folder, a run folder or checkpoint, or an llm.c model file. A path that is
/// none of them is an Error (exit code 2) that starts with `option`, e.g. "--run".
std::unique_ptr<WeightSource> open_weights(const std::string& path, const std::string& option);

/// The same with the adapter of --adapter, if there is one, merged into them.
std::unique_ptr<WeightSource> adapted_weights(const Options& options, const std::string& path,
                                              const std::string& option);

/// Whether --model names a place with weights, rather than a preset, whose weights are drawn at random.
bool names_weights(const std::string& model);

/// The same weights. A value that is no number, or infinite, is an Error that names its tensor when it is read.
std::unique_ptr<WeightSource> require_finite(std::unique_ptr<WeightSource> weights);

/// The weights that generate and evaluate use: --run, or --model. They are finite.
std::unique_ptr<WeightSource> trained_weights(const Options& options);

/// The tokenizer for the model: --tokenizer, or the one that came with it, which may be one that this program cannot
/// read (models_tokenizer.h). An Error if it has more tokens than the model.
std::unique_ptr<Tokenizer> tokenizer_for(const Options& options, const WeightSource& weights);

/// bf16 for a model trained in it where the device can, else fp32; the weights are there in fp32 either way.
DType inference_dtype(const WeightSource& weights, const Backend& backend);

/// The architecture at `path`; a Hugging Face folder needs to have nothing but config.json.
ModelConfig model_config_at(const std::string& path, const std::string& option);

/// What a training run begins with: a checkpoint to go on from, the weights of a model to fine-tune, or neither, and
/// then they are drawn at random.
struct Origin {
    std::optional<Checkpoint> checkpoint;   ///< --resume.
    std::unique_ptr<WeightSource> weights;  ///< --model, where it names weights.

    /// The architecture that comes with it; nothing where the options make it from a preset.
    std::optional<ModelConfig> config(const Options& options) const;
    /// The tokenizer that comes with it; empty where the data decides.
    std::string tokenizer() const;
    /// The folder with that tokenizer's files; empty if it has none.
    std::string tokenizer_folder() const;
    /// What the start-up banner says of the weights, and for random ones how to get the real ones.
    std::string describe(const Options& options) const;
};
Origin open_origin(const Options& options, int rank = 0, int ranks = 1);

/// The first option given, or typed, that changes an architecture (--layers, --vocab-size, ...); empty if there is
/// none.
std::string given_architecture_option(const Options& options, bool typed = false);

}  // namespace llmc
