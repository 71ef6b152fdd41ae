#include "llmc/train/data_loader.h"

#include "llmc/base/check.h"

#include <span>
#include <system_error>
#include <utility>

namespace llmc {
namespace {

constexpr int32_t kIgnored = -1;

/// Row b of (B, T) numbers.
std::span<int32_t> row_of(std::vector<int32_t>& numbers, int64_t b, int64_t T) {
    return numbers.empty() ? std::span<int32_t>()
                           : std::span(numbers).subspan(static_cast<size_t>(b * T), static_cast<size_t>(T));
}

}  // namespace

Batch empty_batch(int64_t B, const Sequences& sequences) {
    const auto slots = static_cast<size_t>(B * sequences.T());
    Batch batch;
    batch.tokens.assign(slots, 0);
    batch.targets.assign(slots, kIgnored);
    batch.numbers.assign(slots, kIgnored);
    if (sequences.packed()) batch.documents.assign(slots, 0);
    return batch;
}

namespace {

/// What masks of every slot are drawn by.
std::vector<int32_t> mask_rows(const Batch& batch, int64_t T) {
    std::vector<int32_t> rows;
    for (size_t n = 0; n < batch.numbers.size(); ++n) {
        const auto slot = static_cast<int32_t>(static_cast<int64_t>(n) % T);
        rows.push_back(batch.numbers[n]);
        rows.push_back(batch.documents.empty() ? slot : slot - batch.documents[n]);
    }
    return rows;
}

}  // namespace

int64_t put_batch(const Executor& executor, Backend& backend, const Batch& batch) {
    backend.copy_to_device(executor.tokens(), batch.tokens.data());
    CHECK(static_cast<bool>(executor.documents()) == !batch.documents.empty(), batch.documents.size());
    if (!batch.documents.empty()) backend.copy_to_device(executor.documents(), batch.documents.data());
    if (executor.mask_rows()) {
        backend.copy_to_device(executor.mask_rows(), mask_rows(batch, executor.shape().T).data());
    }
    if (!executor.scored_rows()) {
        backend.copy_to_device(executor.targets(), batch.targets.data());
        return -1;
    }
    std::vector<int32_t> rows, targets, places(batch.targets.size(), kIgnored);
    for (size_t n = 0; n < batch.targets.size(); ++n) {
        if (batch.targets[n] < 0) continue;
        places[n] = static_cast<int32_t>(rows.size());
        rows.push_back(static_cast<int32_t>(n));
        targets.push_back(batch.targets[n]);
    }
    const auto scored = static_cast<int64_t>(rows.size());
    rows.resize(places.size(), kIgnored);
    targets.resize(places.size(), kIgnored);
    backend.copy_to_device(executor.targets(), targets.data());
    backend.copy_to_device(executor.scored_rows(), rows.data());
    if (executor.scored_places()) backend.copy_to_device(executor.scored_places(), places.data());
    return scored;
}

DataLoader::DataLoader(const Sequences& sequences, int64_t B, const Stripe& stripe)
    : sequences_(sequences),
      B_(B),
      stripe_(stripe),
      current_(empty_batch(B, sequences)),
      coming_(empty_batch(B, sequences)) {
    CHECK(stripe.rank >= 0 && stripe.rank < stripe.ranks, stripe.rank, stripe.ranks);
    CHECK(B > 0, B);
}

void DataLoader::seek(int64_t first_sequence) {
    CHECK(first_sequence >= 0, first_sequence);
    if (pending_.valid()) pending_.wait();
    pending_ = {};
    position_ = first_sequence;
}

const Batch& DataLoader::next() {
    if (!pending_.valid()) prefetch();
    pending_.get();
    std::swap(current_, coming_);
    position_ += B_ * stripe_.ranks;
    prefetch();
    return current_;
}

void DataLoader::prefetch() {
    const auto work = [this, first = position_ + stripe_.rank * B_] { fill(coming_, first); };
    try {
        pending_ = std::async(std::launch::async, work);
    } catch (const std::system_error&) {  // No thread is left: then when it is asked for.
        pending_ = std::async(std::launch::deferred, work);
    }
}

void DataLoader::fill(Batch& batch, int64_t first_sequence) const {
    const int64_t T = sequences_.T();
    batch.first_sequence = first_sequence;
    for (int64_t b = 0; b < B_; ++b) {
        sequences_.read(first_sequence + b, {row_of(batch.tokens, b, T), row_of(batch.targets, b, T),
                                             row_of(batch.documents, b, T), row_of(batch.numbers, b, T)});
    }
}

int64_t scored_in(const Sequences& sequences, int64_t first, int64_t count) {
    if (!sequences.partly_scored()) return count * sequences.T();
    int64_t scored = 0;
    for (int64_t i = 0; i < count; ++i) scored += sequences.scored(first + i);
    return scored;
}

}  // namespace llmc
