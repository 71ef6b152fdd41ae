// Batches for training and validation: which sequences a rank reads (sequences.h), and how a batch of them gets to the
// device.
#pragma once

#include "llmc/run/executor.h"
#include "llmc/train/sequences.h"

#include <cstdint>
#include <future>
#include <vector>

namespace llmc {

/// Row b holds sequence first_sequence + b.
struct Batch {
    int64_t first_sequence = 0;
    std::vector<int32_t> tokens;     ///< (B, T)
    std::vector<int32_t> targets;    ///< (B, T); -1 where they do not count.
    std::vector<int32_t> documents;  ///< (B, T) the slot where a slot's document begins; empty if not packed.
    std::vector<int32_t> numbers;    ///< (B, T) as SequenceSlots has them.
};

/// A batch of the shape of `sequences`, of nothing that counts.
Batch empty_batch(int64_t B, const Sequences& sequences);

/// Copies a batch to what the executor's plan reads. Returns RunArguments::scored for it.
int64_t put_batch(const Executor& executor, Backend& backend, const Batch& batch);

/// Which of every `ranks` batches are read: number `rank`, `rank + ranks`, ... All ranks together read every sequence
/// once, in an order of batches that does not depend on how many ranks there are.
struct Stripe {
    int rank = 0, ranks = 1;
};

/// Reads batches of B sequences, the next one in the background while the caller works on the last.
class DataLoader {
  public:
    /// `sequences` must outlive the loader.
    DataLoader(const Sequences& sequences, int64_t B, const Stripe& stripe = {});

    const Sequences& sequences() const { return sequences_; }
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

    const Sequences& sequences_;
    int64_t B_;
    Stripe stripe_;
    int64_t position_ = 0;
    Batch current_;
    Batch coming_;
    std::future<void> pending_;  ///< Fills coming_. Last member: destroyed, and so waited for, first.
};

/// Targets that count in sequences [first, first + count).
int64_t scored_in(const Sequences& sequences, int64_t first, int64_t count);

}  // namespace llmc
