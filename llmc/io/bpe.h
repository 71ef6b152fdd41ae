// Byte-pair encoding: which neighbouring tokens of a word become one, and in which order (Sennrich et al. 2016).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace llmc {

/// The merges of a vocabulary: (left, right) -> rank and merged token. A flat hash table.
class BpeMerges {
  public:
    /// A lower rank merges first. Ids and ranks are not negative.
    struct Merge {
        int32_t rank;
        int32_t token;
    };
    static constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();

    BpeMerges() { reserve(0); }
    /// Room for so many merges without growing.
    void reserve(size_t count);
    /// Adds a merge; a second one of the same pair replaces the first.
    void set(int32_t left, int32_t right, Merge merge);
    /// The merge of a pair; rank kNoRank if there is none.
    Merge find(int32_t left, int32_t right) const {
        const uint64_t key = key_of(left, right);
        for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
            if (slots_[i].key == key) return slots_[i].merge;
            if (slots_[i].key == kEmpty) return {kNoRank, -1};
        }
    }
    size_t size() const { return count_; }
    struct Entry {
        int32_t left, right, rank, token;
    };
    /// All of them, the first to merge first.
    std::vector<Entry> by_rank() const;

  private:
    struct Slot {
        uint64_t key;
        Merge merge;
    };
    static constexpr uint64_t kEmpty = ~uint64_t{0};
    static uint64_t key_of(int32_t left, int32_t right) {
        return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    }
    size_t slot_of(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u >> 32) & mask_; }

    std::vector<Slot> slots_;
    size_t mask_ = 0;
    size_t count_ = 0;
};

/// Merges words. Keeps its memory between calls; one per thread.
class WordMerger {
  public:
    /// Merges `tokens` in place: again and again the pair of lowest rank, the first of several, until no pair merges.
    /// Quick for words; O(n log n) for long ones.
    void merge(const BpeMerges& merges, std::vector<int32_t>* tokens);

  private:
    void merge_short(const BpeMerges& merges, std::vector<int32_t>* tokens);
    void merge_long(const BpeMerges& merges, std::vector<int32_t>* tokens);

    struct Node {
        int32_t token;
        int32_t rank;  ///< Of the merge with the next node; kNoRank if none, and for nodes merged away.
        uint32_t previous, next;
    };
    std::vector<BpeMerges::Merge> pairs_;
    std::vector<Node> nodes_;
    std::vector<uint64_t> heap_;  ///< rank << 32 | node; entries that no longer hold are skipped.
};

}  // namespace llmc
