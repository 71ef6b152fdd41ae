#include "llmc/train/data_loader.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/rng.h"

#include <algorithm>
#include <span>
#include <system_error>
#include <utility>

namespace llmc {
namespace {

constexpr uint32_t kPhaseItem = 1u << 31;  ///< Draws of the first position; permute() uses the small items.

}  // namespace

int64_t sequences_per_epoch(int64_t size, int64_t T) {
    CHECK(T > 0 && size > T, size, T);
    return std::max<int64_t>(1, (size - 1) / T - 1);
}

SequenceOrder shuffled_order(int64_t size, int64_t T, uint64_t seed) {
    const int64_t per_epoch = sequences_per_epoch(size, T);
    const int64_t phases = size - per_epoch * T;  // The last sequence still has a target after its last token.
    return [=](int64_t sequence) {
        const auto epoch = static_cast<uint64_t>(sequence / per_epoch);
        const auto slot = static_cast<uint64_t>(sequence % per_epoch);
        const double draw = uniform(seed, RngStream::Shuffle, kPhaseItem, epoch);
        const auto phase = static_cast<int64_t>(draw * static_cast<double>(phases));
        return phase + T * static_cast<int64_t>(permute(slot, static_cast<uint64_t>(per_epoch), seed, epoch));
    };
}

SequenceOrder spread_order(int64_t size, int64_t T, int64_t sequences) {
    CHECK(T > 0 && size > T && sequences > 0, size, T, sequences);
    const int64_t last_start = size - 1 - T;
    const int64_t gaps = std::max<int64_t>(1, sequences - 1);
    return [=](int64_t sequence) {
        const int64_t slot = sequence % sequences;
        return last_start / gaps * slot + last_start % gaps * slot / gaps;  // last_start * slot / gaps, no overflow
    };
}

DataLoader::DataLoader(const TokenRange& range, int64_t B, int64_t T, int32_t vocab_size, SequenceOrder order,
                       const Stripe& stripe)
    : range_(range), B_(B), T_(T), vocab_size_(vocab_size), order_(std::move(order)), stripe_(stripe) {
    CHECK(stripe.rank >= 0 && stripe.rank < stripe.ranks, stripe.rank, stripe.ranks);
    CHECK(B > 0 && T > 0 && range.size() > T, B, T, range.size());
    for (Batch* batch : {&current_, &coming_}) {
        batch->tokens.resize(static_cast<size_t>(B * T));
        batch->targets.resize(static_cast<size_t>(B * T));
    }
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
    batch.first_sequence = first_sequence;
    std::vector<int32_t> row(static_cast<size_t>(T_) + 1);
    for (int64_t b = 0; b < B_; ++b) {
        const int64_t start = order_(first_sequence + b);
        range_.read(start, row);
        for (size_t t = 0; t < row.size(); ++t) {
            const auto token = static_cast<uint32_t>(row[t]);
            if (token < static_cast<uint32_t>(vocab_size_)) continue;
            fail(
                "the training or validation data has token {} in {}, but the model's vocabulary is {}; give data made "
                "for this model's tokenizer, or for a new model --vocab-size={} or more",
                token, range_.where(start + static_cast<int64_t>(t)), vocab_size_, uint64_t{token} + 1);
        }
        std::copy_n(row.begin(), T_, batch.tokens.begin() + b * T_);
        std::copy_n(row.begin() + 1, T_, batch.targets.begin() + b * T_);
    }
}

}  // namespace llmc
