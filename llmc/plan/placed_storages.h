// Where storages lie so far, while a layout is made: the lowest offset at which another one's bytes are free during its
// life. Most tensors of a plan live for a few steps, and meet only their neighbours in time and what lives long. So the
// steps are cut into stretches: a search of a brief tensor goes through what begins or ends in its stretch, and through
// the ranges of bytes that are taken throughout it, of which there are few.
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

/// Disjoint ranges of bytes, ascending; those that touch are one.
class ByteRanges {
  public:
    struct Range {
        int64_t begin = 0, end = 0;
    };
    void add(Range range);
    const std::vector<Range>& ranges() const { return ranges_; }

  private:
    std::vector<Range> ranges_;
};

class PlacedStorages {
  public:
    /// Of a plan with so many steps.
    explicit PlacedStorages(size_t steps);

    /// The lowest offset at which `bytes` are free all that time.
    int64_t lowest_free(const Lifetime& life, int64_t bytes);
    void insert(const Lifetime& life, int64_t begin, int64_t end);

  private:
    /// Steps of a stretch. What lives no longer is brief, and meets two stretches at most.
    static constexpr int kSteps = 64;
    struct Stretch {
        PlaceColumns some;  ///< What lives in some of its steps ...
        ByteRanges all;     ///< ... and the places of what lives in all of them.
    };
    static size_t stretch_of(int step) { return static_cast<size_t>(step / kSteps); }

    std::vector<Stretch> stretches_;
    // For what lives long: everything, brought up to date when it is asked for.
    PlaceColumns everything_;
    std::vector<PlaceColumns::Place> not_yet_;
};

}  // namespace llmc
