// From options to what a run is made of: data, model, batch shape, planned memory. Nothing here allocates a tensor.
#pragma once

#include "llmc/io/token_source.h"
#include "llmc/io/tokenizer.h"
#include "llmc/run/memory.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/options.h"
#include "llmc/train/sequences.h"

#include <memory>
#include <optional>
#include <string>

namespace llmc {

/// How the options say that data is to be read.
DataReading reading_of(const Options& options);

/// Training and validation data, as one or two sources.
struct Data {
    std::unique_ptr<TokenSource> source;
    std::unique_ptr<TokenSource> val_source;  ///< Null: validation is the end of `source`.
    std::optional<TokenRange> train, validation;
    std::unique_ptr<Tokenizer> tokenizer;

    /// Vocabulary that a new model gets, and the least that it must have: where only ids are known, they decide
    /// (check_data.h).
    int64_t vocab_size() const { return source->vocab_size(); }
    int64_t least_vocab_size() const { return source->tokenizer() == "none" ? 0 : source->vocab_size(); }
};

/// Opens --data and --val-data, and checks that both hold sequences of --seq-len tokens, or are instruction data. Text
/// is read with --tokenizer, else with what comes with the model, a reference for make_tokenizer(); where that is
/// empty, too, as bytes.
Data open_data(const Options& options, const std::string& models_tokenizer);

/// The preset with the options' overrides. The vocabulary is --vocab-size, else that of the data (`data_vocabulary`,
/// 0 if there is no data), else the preset's; --vocab-size must not be less than `least_vocabulary`.
ModelConfig resolve_model(const Options& options, int64_t data_vocabulary, int64_t least_vocabulary);

/// `config`, which came with its weights and allows no overrides, after checks of --seq-len and, where it is not null,
/// the tokenizer.
ModelConfig accept_model(const Options& options, const ModelConfig& config, const Tokenizer* tokenizer);

/// The table of a run's model, with what --freeze and --trainable say of its parameters.
Model model_to_train(const Options& options, const ModelConfig& config);

/// Shortens the default --seq-len to the longest that a model with weights takes.
void settle_seq_len(Options& options, const ModelConfig& config);

/// Refuses --dtype=bf16 where the processor has no bf16 dot products.
void require_dtype(const Backend& backend, DType dtype);

/// Fails unless the run's total stays within --memory-budget and what the device has. The message says what would fit:
/// every level with its bytes and its largest batch size.
void require_memory(const Options& options, const Model& model, const PlannedMemory& memory, const Backend& backend);

/// Peak learning rate and warm-up where they were left open: what suits a model that has been trained, if it has, and
/// a warm-up of at most 5 % of the run. A run that goes on keeps its own.
void settle_schedule(Options& options, bool is_trained);

/// Start-up banner: model and where its weights come from, data, device, ranks, plan in words, memory table. Through
/// the log.
void log_banner(const Options& options, const Model& model, const std::string& weights, const Data& data,
                const Sequences& sequences, const ChosenPlan& chosen, const DeviceInfo& device,
                const std::string& ranks);

}  // namespace llmc
