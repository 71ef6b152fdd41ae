// What a training checkpoint holds: fp32 weights, AdamW's moments, and a few numbers that say where the run stands.
// Everything else is a function of those (rng.h), so a resumed run continues bit for bit. The folder format is
// io/checkpoint.h.
#pragma once

#include "llmc/io/checkpoint.h"
#include "llmc/run/state.h"

#include <string>

namespace llmc {

/// Where a run stands after `step` updates.
struct Progress {
    int64_t step = 0;            ///< Steps done, skipped ones included.
    int64_t updates = 0;         ///< Updates applied: AdamW's counter.
    int64_t next_sequence = 0;   ///< First training sequence not yet seen.
    std::string tokenizer;       ///< Reference for make_tokenizer().
    std::string dtype;           ///< Of parameters and activations: "fp32", "bf16".
    int64_t seq_len = 0;
    int64_t total_batch_size = 0;
    int64_t seed = 0;
    int64_t train_tokens = 0;    ///< Size of the training data, on which the order of sequences depends.
};

/// Writes root/checkpoints/step-N.
void save_checkpoint(const std::string& root, const State& state, const Progress& progress);

Progress progress_of(const Checkpoint& checkpoint);
ModelConfig model_of(const Checkpoint& checkpoint);

/// Fills parameters (and master weights), and the moments if `training`. A missing tensor or another shape is an Error
/// naming it.
void load_checkpoint(const Checkpoint& checkpoint, State& state, bool training);

}  // namespace llmc
