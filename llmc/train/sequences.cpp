#include "llmc/train/sequences.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/rng.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace llmc {
namespace {

constexpr uint32_t kPhaseItem = 1u << 31;  ///< Draws of the first position; permute() uses the small items.
constexpr int32_t kPadding = 0;            ///< The token of a slot that holds nothing.
constexpr int32_t kIgnored = -1;

/// Tokens from `position` on, all of them in the vocabulary.
void read_tokens(const TokenRange& range, int64_t position, int32_t vocab_size, std::vector<int32_t>* out) {
    range.read(position, *out);
    for (size_t i = 0; i < out->size(); ++i) {
        const auto token = static_cast<uint32_t>((*out)[i]);
        if (token < static_cast<uint32_t>(vocab_size)) continue;
        fail(
            "the training or validation data has token {} in {}, but the model's vocabulary is {}; give data made "
            "for this model's tokenizer, or for a new model --vocab-size={} or more",
            token, range.where(position + static_cast<int64_t>(i)), vocab_size, uint64_t{token} + 1);
    }
}

/// Sequences of `T` tokens, with the target of the last one, that do not overlap.
int64_t sequences_in(int64_t size, int64_t T) { return std::max<int64_t>(1, (size - 1) / T); }

std::shared_ptr<const Packing> packing_of(const TokenRange& range, const SequenceSettings& settings) {
    Documents found = find_documents(range, settings.T);
    if (found.list.empty()) {
        const int64_t count = found.counts.documents;
        fail("{}: {} {}{}, of which nothing counts{}; give other data{}", settings.option, format_count(count),
             range.is_marked() ? "row" : "document", count == 1 ? "" : "s",
             range.is_marked() ? fmt::format(" in the first {} tokens", settings.T + 1) : "",
             found.counts.cut > 0 ? ", or a longer --seq-len" : "");
    }
    const bool packs = settings.pack != "none";
    return std::make_shared<const Packing>(packs ? pack_documents(std::move(found), settings.T)
                                                 : one_by_one(std::move(found)));
}

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

SequenceOrder permuted_order(int64_t count, uint64_t seed) {
    CHECK(count > 0, count);
    return [=](int64_t sequence) {
        const auto epoch = static_cast<uint64_t>(sequence / count), slot = static_cast<uint64_t>(sequence % count);
        return static_cast<int64_t>(permute(slot, static_cast<uint64_t>(count), seed, epoch));
    };
}

StreamSequences::StreamSequences(const TokenRange& range, int64_t T, int32_t vocab_size, SequenceOrder order,
                                 int64_t per_epoch)
    : Sequences(T), range_(range), vocab_size_(vocab_size), order_(std::move(order)), per_epoch_(per_epoch) {
    CHECK(T > 0 && range.size() > T && per_epoch > 0, T, range.size(), per_epoch);
}

void StreamSequences::read(int64_t sequence, const SequenceSlots& out) const {
    std::vector<int32_t> row(static_cast<size_t>(T()) + 1);
    read_tokens(range_, order_(sequence), vocab_size_, &row);
    std::copy_n(row.begin(), T(), out.tokens.begin());
    std::copy_n(row.begin() + 1, T(), out.targets.begin());
    std::ranges::fill(out.numbers, static_cast<int32_t>(static_cast<uint32_t>(sequence)));
}

DocumentSequences::DocumentSequences(const TokenRange& range, int64_t T, int32_t vocab_size,
                                     std::shared_ptr<const Packing> packing, SequenceOrder order, int64_t per_epoch)
    : Sequences(T),
      range_(range),
      vocab_size_(vocab_size),
      packing_(std::move(packing)),
      order_(std::move(order)),
      per_epoch_(per_epoch) {
    CHECK(packing_->sequences() > 0 && per_epoch > 0, packing_->sequences(), per_epoch);
}

/// Returns the slot behind it. A document's number is where it begins, counted on from epoch to epoch.
int64_t DocumentSequences::read_document(const Document& document, int64_t slot, int64_t epoch,
                                         const SequenceSlots& out) const {
    const auto number = static_cast<uint32_t>(static_cast<uint64_t>(epoch * range_.size() + document.first));
    std::vector<int32_t> ids(static_cast<size_t>(document.tokens));
    read_tokens(range_, document.first, vocab_size_, &ids);
    std::vector<uint8_t> marks(ids.size(), kScored);
    if (packing_->marked) range_.read_marks(document.first, marks);
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const size_t at = static_cast<size_t>(slot) + i;
        out.tokens[at] = ids[i];
        out.targets[at] = (marks[i + 1] & kScored) != 0 ? ids[i + 1] : kIgnored;
        if (!out.documents.empty()) out.documents[at] = static_cast<int32_t>(slot);
        if (!out.numbers.empty()) out.numbers[at] = static_cast<int32_t>(number);
    }
    return slot + document.slots();
}

void DocumentSequences::read(int64_t sequence, const SequenceSlots& out) const {
    const auto which = static_cast<size_t>(order_(sequence));
    int64_t slot = 0;
    for (int64_t i = packing_->begins[which]; i < packing_->begins[which + 1]; ++i) {
        slot = read_document(packing_->documents[static_cast<size_t>(i)], slot, sequence / per_epoch_, out);
    }
    const auto rest = [&](std::span<int32_t> slots) { return slots.subspan(static_cast<size_t>(slot)); };
    std::ranges::fill(rest(out.tokens), kPadding);
    std::ranges::fill(rest(out.targets), kIgnored);
    if (!out.numbers.empty()) std::ranges::fill(rest(out.numbers), kIgnored);
    // A document of its own.
    if (!out.documents.empty()) std::ranges::fill(rest(out.documents), static_cast<int32_t>(slot));
}

bool reads_documents(const TokenRange& range, const std::string& pack) {
    return range.is_marked() || pack == "documents";
}

std::unique_ptr<const Sequences> training_sequences(const TokenRange& range, const SequenceSettings& settings) {
    const int64_t T = settings.T;
    if (reads_documents(range, settings.pack)) {
        auto packing = packing_of(range, settings);
        const int64_t count = packing->sequences();
        return std::make_unique<DocumentSequences>(range, T, settings.vocab_size, std::move(packing),
                                                   permuted_order(count, settings.seed), count);
    }
    return std::make_unique<StreamSequences>(range, T, settings.vocab_size,
                                             shuffled_order(range.size(), T, settings.seed),
                                             sequences_per_epoch(range.size(), T));
}

std::unique_ptr<const Sequences> validation_sequences(const TokenRange& range, const SequenceSettings& settings,
                                                      int64_t most) {
    const int64_t T = settings.T;
    if (reads_documents(range, settings.pack)) {
        auto packing = packing_of(range, settings);
        const int64_t count = packing->sequences(), used = std::min(most, count);
        const auto spread = [=](int64_t sequence) { return sequence % used * count / used; };
        return std::make_unique<DocumentSequences>(range, T, settings.vocab_size, std::move(packing), spread, used);
    }
    const int64_t used = std::min(most, sequences_in(range.size(), T));
    return std::make_unique<StreamSequences>(range, T, settings.vocab_size, spread_order(range.size(), T, used), used);
}

}  // namespace llmc
