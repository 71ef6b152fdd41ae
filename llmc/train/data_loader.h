// Batches for training and validation. What a batch holds is a pure function of its number, so a resumed run needs to
// know only how many sequences it has read, and another micro-batch size reads the same sequences in the same order.
#pragma once

#include "llmc/io/token_source.h"

#include <cstdint>
#include <functional>
#include <future>
#include <vector>

namespace llmc {

/// Position of a sequence's first token in its range of data, for sequences 0, 1, 2, ... without end.
using SequenceOrder = std::function<int64_t(int64_t sequence)>;

/// For training on `size` tokens. An epoch cuts them into sequences of T tokens that do not overlap, from a random
/// first position, and visits them in a random order; both differ from epoch to epoch and depend on `seed` alone. It
/// has one sequence less than would fit, so that the first position has room to move. size > T.
SequenceOrder shuffled_order(int64_t size, int64_t T, uint64_t seed);

/// Sequences in one epoch of shuffled_order.
int64_t sequences_per_epoch(int64_t size, int64_t T);

/// For validation: `sequences` sequences spread evenly over all `size` tokens, the same ones every time; they overlap
/// only if there are too few tokens. After the last the first comes again. size > T.
SequenceOrder spread_order(int64_t size, int64_t T, int64_t sequences);

/// Row b holds sequence first_sequence + b. Targets are the tokens shifted by one.
struct Batch {
    int64_t first_sequence = 0;
    std::vector<int32_t> tokens;   ///< (B, T)
    std::vector<int32_t> targets;  ///< (B, T)
};

/// Which of every `ranks` batches are read: number `rank`, `rank + ranks`, ... All ranks together read every sequence
/// once, in an order of batches that does not depend on how many ranks there are.
struct Stripe {
    int rank = 0, ranks = 1;
};

/// Reads batches of B sequences, the next one in the background while the caller works on the last.
class DataLoader {
  public:
    /// Every token must be below `vocab_size`. The source behind `range` must outlive the loader; range.size() > T.
    DataLoader(const TokenRange& range, int64_t B, int64_t T, int32_t vocab_size, SequenceOrder order,
               const Stripe& stripe = {});

    /// The next round of batches, one for every rank, starts with this sequence.
    void seek(int64_t first_sequence);
    /// First sequence of the round that next() will take its batch from.
    int64_t position() const { return position_; }
    /// This rank's batch of the round, valid until the next call; position() moves on by a round. A token outside the
    /// vocabulary is an Error that names its file; the position then stays.
    const Batch& next();

  private:
    void fill(Batch& batch, int64_t first_sequence) const;
    void prefetch();

    TokenRange range_;
    int64_t B_;
    int64_t T_;
    int32_t vocab_size_;
    SequenceOrder order_;
    Stripe stripe_;
    int64_t position_ = 0;
    Batch current_;
    Batch coming_;
    std::future<void> pending_;  ///< Fills coming_. Last member: destroyed, and so waited for, first.
};

}  // namespace llmc
