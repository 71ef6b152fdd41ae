// What the steps of an update do beyond one call of the backend.
#pragma once

#include "llmc/comm/comm.h"
#include "llmc/run/state.h"

#include <vector>

namespace llmc {

/// This rank's piece of a bucket of parameters with those of all others, in the arena, which no plan uses meanwhile.
Tensor gathered_in_arena(State& state, int bucket, Buffer which, Comm& comm);

/// Makes parameters whole after every rank has filled its own piece, as after loading them; an update does it by steps
/// of its plan. Nothing to do where they are kept in pieces, or where every rank has filled all of them.
void gather_parameters(State& state, Comm& comm);

/// Adds up the micro-batches of a step in a binary tree over their numbers, so that the order does not depend on how
/// many ranks share them: a rank's micro-batch k is a subtree of `ranks` leaves, which the reduction has added up.
class MicroBatchTree {
  public:
    explicit MicroBatchTree(State& state) : state_(state) {}

    /// Takes State::all_gradients() of the next micro-batch; after the last one of an update they hold the sum of all.
    void push(Turn turn);
    /// The same of one bucket, whose sums are kept in host memory and come to `staging`; `sum` is on the device.
    void push(Turn turn, int bucket, Tensor sum, Tensor staging);

  private:
    template <typename Add, typename Keep>
    void push_to(int64_t* held, Turn turn, Add add, Keep keep);

    State& state_;
    int64_t held_ = 0;                     ///< Bit l: partial_sum(l) holds 2^l micro-batches.
    std::vector<int64_t> held_of_bucket_;  ///< The same by bucket.
};

}  // namespace llmc
