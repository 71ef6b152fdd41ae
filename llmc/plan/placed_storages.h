// Where storages lie so far, while a layout is made: the lowest offset at which another one's bytes are free during its
// life. Most tensors of a plan live for a few steps, and meet only their neighbours in time and what lives long; so
// brief ones are kept by stretches of steps, apart from long ones, and a search goes through what it can meet.
#pragma once

#include "llmc/plan/simulate.h"

#include <cstdint>
#include <vector>

namespace llmc {

/// Lives and places in the order of the places' begins, in columns: a search goes by them a vector of lives at a time.
class PlaceColumns {
  public:
    struct Place {
        Lifetime life;
        int64_t begin = 0, end = 0;
    };

    void insert(const Place& place);
    /// All of `places` at once, in any order.
    void merge(std::vector<Place> places);
    size_t size() const { return begin_.size(); }

    /// Goes through those whose life overlaps one, by their begins.
    class Cursor {
      public:
        Cursor(const PlaceColumns& columns, const Lifetime& life) : columns_(&columns), life_(life) { find(); }
        bool is_done() const { return at_ >= columns_->size(); }
        int64_t begin() const { return columns_->begin_[at_]; }
        int64_t end() const { return columns_->end_[at_]; }
        void next();

      private:
        void find();

        const PlaceColumns* columns_;
        Lifetime life_;
        size_t block_ = 0, at_ = 0;
        uint32_t overlaps_ = 0;  ///< Of the block at hand, a bit for each that is left.
    };

  private:
    static constexpr size_t kWidth = 16;
    uint32_t overlapping(size_t block, const Lifetime& life) const;

    std::vector<int32_t> first_, last_;  ///< With kWidth more than there are, so that whole vectors can be read.
    std::vector<int64_t> begin_, end_;
};

class PlacedStorages {
  public:
    /// Of a plan with so many steps.
    explicit PlacedStorages(size_t steps);

    /// The lowest offset at which `bytes` are free all that time.
    int64_t lowest_free(const Lifetime& life, int64_t bytes);
    void insert(const Lifetime& life, int64_t begin, int64_t end);

  private:
    /// Steps of a stretch. What lives no longer is brief, and lies in two stretches at most.
    static constexpr int kStretch = 128;
    static bool is_brief(const Lifetime& life) { return life.last - life.first < kStretch; }

    PlaceColumns long_;
    std::vector<PlaceColumns> brief_;  ///< By stretch.
    // For what lives long: everything, brought up to date when it is asked for.
    PlaceColumns all_;
    std::vector<PlaceColumns::Place> not_in_all_;
};

}  // namespace llmc
