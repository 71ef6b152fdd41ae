// What a run folder tells of the run's validations: whether one is missing, and which checkpoint is the best. It is
// asked of metrics.jsonl, and of checkpoints themselves where that is lost; the file `best` is written after its
// checkpoint, and a process may be killed between the two.
#pragma once

#include "llmc/train/options.h"

#include <cstdint>
#include <limits>
#include <string>

namespace llmc {

/// Whether a run that validates has not done so at this step, where it should have: it was cut short, or has failed.
bool lacks_validation(const Options& options, const std::string& run_folder, int64_t step);

/// The checkpoint with the lowest validation loss; one that `best` names and whose loss nobody knows is below any.
struct BestCheckpoint {
    int64_t step = 0;  ///< 0: none has one.
    double loss = std::numeric_limits<double>::infinity();
    bool is_named = true;  ///< `best` names it, or one as good.
    bool is_unknown() const { return loss == -std::numeric_limits<double>::infinity(); }
};

/// Of those up to `last_step`.
BestCheckpoint best_checkpoint(const std::string& run_folder, int64_t last_step);

/// Whether a run that has done all its steps still lacks the validation after the last or, with --keep-best, the name
/// of its best checkpoint.
bool lacks_its_end(const Options& options, const std::string& run_folder);

}  // namespace llmc
