// What a run that goes on keeps: its model, its sequences, the tokens per update. Whoever asks for another is told so
// in words about what they asked for.
#pragma once

#include "llmc/io/checkpoint.h"
#include "llmc/model/config.h"
#include "llmc/train/options.h"

namespace llmc {

/// Refuses options that were given although the run began with others, before anything is made of them: model, seed,
/// sequence length, optimiser. An imported model's run has not begun.
void require_kept_options(const Options& options, const Checkpoint& checkpoint);

/// Refuses to resume with another model than the checkpoint's.
void require_same_run(const Options& options, const ModelConfig& config, const Checkpoint& checkpoint);

/// --pack=auto of a run that goes on: as it began.
void keep_packing(Options& options, const Checkpoint& checkpoint);

/// Takes over the tokens per update of a run that goes on, where none were asked for: whatever ranks and micro-batches
/// they are spread over, the training stays the same.
void keep_total_batch(Options& options, const Checkpoint& checkpoint);

}  // namespace llmc
