// What follows the micro-batches of a step: the gradient norm over all ranks, AdamW on what this rank keeps, and the
// gather of the parameters that other ranks have updated.
#pragma once

#include "llmc/comm/comm.h"
#include "llmc/run/state.h"

namespace llmc {

/// State::grad_norm() = the 2-norm of the reduced gradients, the same bits on every rank, for any number of ranks and
/// any ZeRO stage.
void compute_grad_norm(State& state, Comm& comm);

/// One AdamW update by State::grad_norm(); where the optimiser is sharded but parameters are not, they are gathered.
void update_parameters(State& state, Comm& comm, const AdamWSettings& settings);

/// Makes parameters whole after every rank has changed its own piece: ZeRO 1 and 2. Nothing to do otherwise.
void gather_parameters(State& state, Comm& comm);

/// Adds up the micro-batches of a step in a binary tree over their numbers, so that the order does not depend on how
/// many ranks share them: a rank's micro-batch k is a subtree of `ranks` leaves, which the reduction has added up.
class MicroBatchTree {
  public:
    explicit MicroBatchTree(State& state) : state_(state) {}

    /// Takes State::all_gradients() of micro-batch `micro`, counted from 0; after the last one they hold the sum of
    /// all.
    void push(int64_t micro, bool is_last);

  private:
    State& state_;
    int64_t held_ = 0;  ///< Bit l: partial_sum(l) holds 2^l micro-batches.
};

}  // namespace llmc
