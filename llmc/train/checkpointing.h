// What a training checkpoint holds: weights and the optimiser's moments, in the formats they were kept in, and a few
// numbers that say where the run stands. Everything else is a function of those (rng.h), so a resumed run continues bit
// for bit; one that keeps other formats converts them. The checkpoint of an imported model has step 0 and no moments.
// The folder format is io/checkpoint.h.
#pragma once

#include "llmc/base/arithmetic.h"
#include "llmc/base/gemm_algorithms.h"
#include "llmc/comm/comm.h"
#include "llmc/io/checkpoint.h"
#include "llmc/io/checkpoint_parts.h"
#include "llmc/io/constant_file.h"
#include "llmc/io/weights.h"
#include "llmc/run/state.h"

#include <optional>
#include <string>

namespace llmc {

/// Where a run stands after `step` updates.
struct Progress {
    int64_t step = 0;           ///< Steps done, skipped ones included.
    int64_t updates = 0;        ///< Updates applied: AdamW's counter.
    int64_t next_sequence = 0;  ///< First training sequence not yet seen.
    std::string tokenizer;      ///< Reference for make_tokenizer().
    std::string dtype;          ///< Of parameters and activations: "fp32", "bf16".
    std::string places;         ///< What was kept where, in words; empty if not known.
    std::string freeze;         ///< What did not train, as Options::freeze; empty: everything trained.
    std::string adapter;        ///< What adapters trained, as adapter_config.json has it; empty: none.
    std::string optimizer;      ///< Whose moments these are, as --optimizer names it.
    StateFormats formats;       ///< How they, weights and gradients were kept.
    std::string base;  ///< How frozen matrices of layers were stored, as --base-format says; empty: as `dtype`.
    int64_t seq_len = 0;
    Arithmetic arithmetic;  ///< What it was computed with.
    GemmAlgorithms gemms;   ///< Of its matrix products, where a library has several for each.
    std::string pack;       ///< What its sequences are made of, as --pack says.
    int64_t total_batch_size = 0;
    int64_t seed = 0;
    int64_t train_tokens =
        0;  ///< Size of the training data, on which the order of sequences depends; 0 before the first step.
    int64_t padded_vocab_size = 0;   ///< WeightSource::padded_vocab_size() of where the run began.
    std::optional<double> val_loss;  ///< Of the validation after this step, where that is done; nats per token.
};

/// What became of a checkpoint, on all ranks alike.
struct SaveResult {
    int failed_rank = -1;  ///< None: it was written.
    std::string cause;     ///< In that rank's words.
    bool ok() const { return failed_rank < 0; }
};

/// Writes root/checkpoints/step-N, every rank the files of its pieces. A rank's failure (a full disk) is every rank's,
/// and leaves what was there as it was. Frozen rows are in files of their own, which checkpoints of a run share;
/// `frozen` is this rank's, the same for all checkpoints of a state.
SaveResult save_checkpoint(const std::string& root, const State& state, const Progress& progress, Comm& comm,
                           ConstantFile& frozen);
/// The same with nothing known of earlier checkpoints.
SaveResult save_checkpoint(const std::string& root, const State& state, const Progress& progress, Comm& comm);

/// What checkpoints take on the disk, all ranks' files together, but for headers.
struct CheckpointBytes {
    int64_t each = 0;  ///< Every one.
    int64_t once = 0;  ///< What they share: frozen rows.
    int64_t alone() const { return each + once; }
};
CheckpointBytes checkpoint_bytes(const State& state);

/// Whether the newest checkpoint in a run folder has files of frozen rows as this state's ranks write them.
bool has_frozen_files(const std::string& root, const State& state);

/// Writes root/checkpoints/step-00000000 with these weights and no moments, one parameter at a time. `tokenizer` is the
/// reference for it.
void save_imported(const std::string& root, const WeightSource& weights, const std::string& tokenizer);

Progress progress_of(const Checkpoint& checkpoint);
/// Progress::val_loss of the checkpoint in this step folder, by its manifest alone; nothing where that cannot be read.
std::optional<double> validation_loss_of(const std::string& step_folder);
ModelConfig model_of(const Checkpoint& checkpoint);

/// The model with the adapters that trained in it, and with what else did.
Model trained_model_of(const Checkpoint& checkpoint);

/// The checkpoint's tokenizer, as make_tokenizer() takes it: the files in its run folder, else what it was trained
/// with.
std::string tokenizer_of(const Checkpoint& checkpoint);
/// The tokenizer folder of the checkpoint's run; empty if it has none.
std::string tokenizer_folder_of(const Checkpoint& checkpoint);

/// The weights of a checkpoint, without its moments; adapters are merged into them.
class CheckpointWeights final : public WeightSource {
  public:
    explicit CheckpointWeights(Checkpoint checkpoint);

    void read(int parameter, std::span<float> out) const override;
    std::string describe() const override;
    std::string tokenizer() const override { return tokenizer_of(checkpoint_); }
    std::string tokenizer_folder() const override;
    DType dtype() const override;
    int64_t seq_len() const override { return progress_.seq_len; }
    int64_t padded_vocab_size() const override { return progress_.padded_vocab_size; }

    /// What trained in it as PEFT would write it; empty where there are no adapters.
    const std::string& adapter() const { return progress_.adapter; }
    /// As trained_model_of() has it.
    const Model& trained_model() const { return trained_; }
    /// The used rows of one of its parameters, as they are.
    std::vector<float> unmerged(const ParameterRow& row) const;

  private:
    void merge(const ParameterRow& row, std::span<float> values) const;

    Checkpoint checkpoint_;
    CheckpointParts parts_;
    Progress progress_;
    Model trained_;
};

/// Fills the weights and moments that this rank keeps, to go on training, whatever ranks have written them. Where other
/// ranks have parameters that this one needs, gather_parameters() is still to follow. A missing tensor or another shape
/// is an Error naming it.
void load_checkpoint(const Checkpoint& checkpoint, State& state);

}  // namespace llmc
