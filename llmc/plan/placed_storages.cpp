#include "llmc/plan/placed_storages.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace llmc {

void PlaceColumns::insert(const Place& place) {
    if (first_.empty()) first_.resize(kWidth), last_.resize(kWidth);
    const auto at = std::upper_bound(begin_.begin(), begin_.end(), place.begin) - begin_.begin();
    first_.insert(first_.begin() + at, place.life.first);
    last_.insert(last_.begin() + at, place.life.last);
    begin_.insert(begin_.begin() + at, place.begin);
    end_.insert(end_.begin() + at, place.end);
}

/// From behind, so that everything is moved once, in runs between the new ones.
void PlaceColumns::merge(std::vector<Place> places) {
    if (places.empty()) return;
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.begin < b.begin; });
    size_t old = size();
    const size_t all = old + places.size();
    begin_.resize(all), end_.resize(all);
    first_.resize(all + kWidth), last_.resize(all + kWidth);
    for (size_t left = places.size(); left > 0; --left) {
        const Place& place = places[left - 1];
        const auto end = begin_.begin() + static_cast<ptrdiff_t>(old);
        const auto at = static_cast<size_t>(std::upper_bound(begin_.begin(), end, place.begin) - begin_.begin());
        const auto move = [&](auto& column, auto value) {
            std::memmove(column.data() + at + left, column.data() + at, (old - at) * sizeof(value));
            column[at + left - 1] = value;
        };
        move(begin_, place.begin), move(end_, place.end);
        move(first_, int32_t{place.life.first}), move(last_, int32_t{place.life.last});
        old = at;
    }
}

/// A bit for each of the kWidth from `block` on whose life overlaps this one.
uint32_t PlaceColumns::overlapping(size_t block, const Lifetime& life) const {
    const int32_t *first = &first_[block], *last = &last_[block];
    uint32_t bits = 0;
#pragma omp simd reduction(| : bits)
    for (size_t k = 0; k < kWidth; ++k) {
        bits |= static_cast<uint32_t>((first[k] <= life.last) & (life.first <= last[k])) << k;
    }
    return size() - block >= kWidth ? bits : bits & ((1u << (size() - block)) - 1);
}

void PlaceColumns::Cursor::find() {
    for (; block_ < columns_->size(); block_ += kWidth) {
        overlaps_ = columns_->overlapping(block_, life_);
        if (overlaps_ == 0) continue;
        at_ = block_ + static_cast<size_t>(__builtin_ctz(overlaps_));
        return;
    }
    at_ = columns_->size();
}

void PlaceColumns::Cursor::next() {
    overlaps_ &= overlaps_ - 1;
    if (overlaps_ != 0) {
        at_ = block_ + static_cast<size_t>(__builtin_ctz(overlaps_));
        return;
    }
    block_ += kWidth;
    find();
}

void ByteRanges::add(Range range) {
    const auto first = std::lower_bound(ranges_.begin(), ranges_.end(), range.begin,
                                        [](const Range& other, int64_t begin) { return other.end < begin; });
    auto last = first;
    for (; last != ranges_.end() && last->begin <= range.end; ++last) {
        range.begin = std::min(range.begin, last->begin), range.end = std::max(range.end, last->end);
    }
    if (first == last) {
        ranges_.insert(first, range);
        return;
    }
    *first = range;
    ranges_.erase(first + 1, last);
}

namespace {

/// Goes through ranges as PlaceColumns::Cursor through places.
class RangeCursor {
  public:
    explicit RangeCursor(const ByteRanges& ranges) : at_(ranges.ranges().data()), end_(at_ + ranges.ranges().size()) {}
    bool is_done() const { return at_ == end_; }
    int64_t begin() const { return at_->begin; }
    int64_t end() const { return at_->end; }
    void next() { ++at_; }

  private:
    const ByteRanges::Range *at_, *end_;
};

/// The first gap that is large enough between what several cursors go through.
class Gap {
  public:
    explicit Gap(int64_t bytes) : bytes_(bytes) {}

    template <typename... Cursors>
    int64_t find(Cursors... cursors) {
        for (bool moves = true; moves;) {
            moves = false;
            (void(moves = pass(cursors) || moves), ...);
        }
        return offset_;
    }

  private:
    /// Passes what begins before the gap's end; whether there was any.
    template <typename Cursor>
    bool pass(Cursor& cursor) {
        const int64_t before = offset_;
        for (; !cursor.is_done() && cursor.begin() < offset_ + bytes_; cursor.next()) {
            offset_ = std::max(offset_, cursor.end());
        }
        return offset_ != before;
    }

    const int64_t bytes_;
    int64_t offset_ = 0;
};

}  // namespace

PlacedStorages::PlacedStorages(size_t steps) : stretches_(steps / kSteps + 1) {}

int64_t PlacedStorages::lowest_free(const Lifetime& life, int64_t bytes) {
    using Cursor = PlaceColumns::Cursor;
    Gap gap(bytes);
    const size_t first = stretch_of(life.first), last = stretch_of(life.last);
    if (last > first + 1) {
        everything_.merge(std::exchange(not_yet_, {}));
        return gap.find(Cursor(everything_, life));
    }
    const Stretch &a = stretches_[first], &b = stretches_[last];
    if (first == last) return gap.find(RangeCursor(a.all), Cursor(a.some, life));
    return gap.find(RangeCursor(a.all), RangeCursor(b.all), Cursor(a.some, life), Cursor(b.some, life));
}

void PlacedStorages::insert(const Lifetime& life, int64_t begin, int64_t end) {
    const PlaceColumns::Place place = {life, begin, end};
    not_yet_.push_back(place);
    const size_t last = stretch_of(life.last);
    for (size_t i = stretch_of(life.first); i <= last; ++i) {
        const auto steps = static_cast<int>(i) * kSteps;
        const bool is_throughout = life.first <= steps && steps + kSteps - 1 <= life.last;
        if (is_throughout) {
            stretches_[i].all.add({begin, end});
        } else {
            stretches_[i].some.insert(place);
        }
    }
}

}  // namespace llmc
