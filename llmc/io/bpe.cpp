#include "llmc/io/bpe.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <tuple>

namespace llmc {
namespace {

constexpr size_t kShortWord = 48;  ///< Up to here a scan for every merge beats a heap.
constexpr uint32_t kNobody = std::numeric_limits<uint32_t>::max();

}  // namespace

void BpeMerges::reserve(size_t count) {
    const size_t size = std::bit_ceil(std::max<size_t>(2 * count, 16));
    if (size <= slots_.size()) return;
    const std::vector<Slot> old = std::move(slots_);
    slots_.assign(size, {kEmpty, {kNoRank, -1}});
    mask_ = size - 1;
    count_ = 0;
    for (const Slot& slot : old) {
        if (slot.key == kEmpty) continue;
        set(static_cast<int32_t>(slot.key >> 32), static_cast<int32_t>(slot.key & 0xFFFFFFFFu), slot.merge);
    }
}

void BpeMerges::set(int32_t left, int32_t right, Merge merge) {
    CHECK(left >= 0 && right >= 0 && merge.rank >= 0 && merge.rank < kNoRank, left, right, merge.rank);
    reserve(count_ + 1);
    const uint64_t key = key_of(left, right);
    size_t i = slot_of(key);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
    count_ += slots_[i].key == kEmpty ? 1 : 0;
    slots_[i] = {key, merge};
}

std::vector<BpeMerges::Entry> BpeMerges::by_rank() const {
    std::vector<Entry> entries;
    for (const Slot& slot : slots_) {
        if (slot.key == kEmpty) continue;
        entries.push_back({static_cast<int32_t>(slot.key >> 32), static_cast<int32_t>(slot.key & 0xFFFFFFFFu),
                           slot.merge.rank, slot.merge.token});
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return std::tie(a.rank, a.left, a.right) < std::tie(b.rank, b.left, b.right);
    });
    return entries;
}

void WordMerger::merge(const BpeMerges& merges, std::vector<int32_t>* tokens) {
    if (tokens->size() < 2) return;
    if (tokens->size() <= kShortWord) {
        merge_short(merges, tokens);
    } else {
        merge_long(merges, tokens);
    }
}

void WordMerger::merge_short(const BpeMerges& merges, std::vector<int32_t>* tokens) {
    std::vector<int32_t>& t = *tokens;
    size_t size = t.size();
    pairs_.resize(size);  // pairs_[i] joins t[i] and t[i + 1]
    for (size_t i = 0; i + 1 < size; ++i) pairs_[i] = merges.find(t[i], t[i + 1]);
    for (;;) {
        size_t best = 0;
        int32_t best_rank = BpeMerges::kNoRank;
        for (size_t i = 0; i + 1 < size; ++i) {
            if (pairs_[i].rank < best_rank) best_rank = pairs_[best = i].rank;
        }
        if (best_rank == BpeMerges::kNoRank) break;
        t[best] = pairs_[best].token;
        for (size_t i = best + 1; i + 1 < size; ++i) {
            t[i] = t[i + 1];
            pairs_[i] = pairs_[i + 1];
        }
        --size;
        if (best > 0) pairs_[best - 1] = merges.find(t[best - 1], t[best]);
        if (best + 1 < size) pairs_[best] = merges.find(t[best], t[best + 1]);
    }
    t.resize(size);
}

void WordMerger::merge_long(const BpeMerges& merges, std::vector<int32_t>* tokens) {
    CHECK(tokens->size() < kNobody, tokens->size());
    const auto size = static_cast<uint32_t>(tokens->size());
    nodes_.resize(size);
    heap_.clear();
    for (uint32_t i = 0; i < size; ++i) nodes_[i] = {(*tokens)[i], BpeMerges::kNoRank, i - 1, i + 1};
    nodes_.front().previous = nodes_.back().next = kNobody;
    const auto rank_pair = [&](uint32_t i) {
        Node& node = nodes_[i];
        node.rank = node.next == kNobody ? BpeMerges::kNoRank : merges.find(node.token, nodes_[node.next].token).rank;
        if (node.rank == BpeMerges::kNoRank) return false;
        heap_.push_back(uint64_t{static_cast<uint32_t>(node.rank)} << 32 | i);
        return true;
    };
    for (uint32_t i = 0; i + 1 < size; ++i) rank_pair(i);
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    while (!heap_.empty()) {
        const uint64_t top = heap_.front();
        std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
        heap_.pop_back();
        const auto i = static_cast<uint32_t>(top & kNobody);
        Node& node = nodes_[i];
        if (static_cast<uint64_t>(node.rank) != top >> 32) continue;  // The pair has changed since.
        Node& right = nodes_[node.next];
        node.token = merges.find(node.token, right.token).token;
        right.rank = BpeMerges::kNoRank;
        node.next = right.next;
        if (node.next != kNobody) nodes_[node.next].previous = i;
        if (rank_pair(i)) std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
        if (node.previous != kNobody && rank_pair(node.previous)) {
            std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
        }
    }
    tokens->clear();
    for (uint32_t i = 0; i != kNobody; i = nodes_[i].next) tokens->push_back(nodes_[i].token);
}

}  // namespace llmc
