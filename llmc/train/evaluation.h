// Validation loss: a forward-only plan over batches of held-out data, in the trainer's arena.
#pragma once

#include "llmc/run/executor.h"
#include "llmc/train/data_loader.h"

#include <functional>
#include <optional>

namespace llmc {

class Evaluator {
  public:
    /// Plans the evaluation at the training shape and chunk; its arena is never larger than the training plan's.
    Evaluator(State& state, const PlannedMemory& memory, Comm& comm);

    /// Mean cross-entropy in nats per token that counts over the first `sequences` sequences of `loader`, which every
    /// rank reads its stripe of. The same bits on any number of ranks. Nothing where it was cut short: on some rank
    /// `stops` said so, or the data failed, which is an Error on that rank; all ranks leave together.
    std::optional<double> loss(DataLoader& loader, int64_t sequences, const std::function<bool()>& stops);

    int64_t arena_bytes() const { return layout_.arena_bytes; }

  private:
    double batch_loss(Batch batch, int64_t counted);

    State& state_;
    Comm& comm_;
    Plan plan_;
    Layout layout_;
    Executor executor_;
};

/// The evaluation plan for the same shape, type and logits chunk as a training plan.
Plan plan_evaluation(const Model& model, const Plan& training, const Backend& backend);

}  // namespace llmc
