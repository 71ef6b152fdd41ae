#include "llmc/plan/placed_storages.h"

#include <algorithm>
#include <array>
#include <span>
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

void PlaceColumns::merge(std::vector<Place> places) {
    if (places.empty()) return;
    const auto by_begin = [](const Place& a, const Place& b) { return a.begin < b.begin; };
    std::sort(places.begin(), places.end(), by_begin);
    PlaceColumns merged;
    const size_t all = size() + places.size();
    merged.first_.reserve(all + kWidth), merged.last_.reserve(all + kWidth);
    merged.begin_.reserve(all), merged.end_.reserve(all);
    for (size_t i = 0, j = 0; i + j < all;) {
        const bool is_new = i == size() || (j < places.size() && places[j].begin < begin_[i]);
        const Place place = is_new ? places[j] : Place{{first_[i], last_[i]}, begin_[i], end_[i]};
        ++(is_new ? j : i);
        merged.first_.push_back(place.life.first), merged.last_.push_back(place.life.last);
        merged.begin_.push_back(place.begin), merged.end_.push_back(place.end);
    }
    merged.first_.resize(all + kWidth), merged.last_.resize(all + kWidth);
    *this = std::move(merged);
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

namespace {

/// Through several columns, by begins: the first gap that is large enough.
int64_t first_gap(std::span<PlaceColumns::Cursor> cursors, int64_t bytes) {
    int64_t offset = 0;
    while (true) {
        PlaceColumns::Cursor* lowest = nullptr;
        for (PlaceColumns::Cursor& cursor : cursors) {
            if (!cursor.is_done() && (lowest == nullptr || cursor.begin() < lowest->begin())) lowest = &cursor;
        }
        if (lowest == nullptr || lowest->begin() >= offset + bytes) return offset;
        offset = std::max(offset, lowest->end());
        lowest->next();
    }
}

}  // namespace

PlacedStorages::PlacedStorages(size_t steps) : brief_(steps / kStretch + 1) {}

int64_t PlacedStorages::lowest_free(const Lifetime& life, int64_t bytes) {
    using Cursor = PlaceColumns::Cursor;
    if (!is_brief(life)) {
        all_.merge(std::exchange(not_in_all_, {}));
        std::array cursors = {Cursor(all_, life)};
        return first_gap(cursors, bytes);
    }
    const auto stretch = static_cast<size_t>(life.first / kStretch), last = static_cast<size_t>(life.last / kStretch);
    std::array cursors = {Cursor(long_, life), Cursor(brief_[stretch], life), Cursor(brief_[last], life)};
    return first_gap(std::span(cursors).first(stretch == last ? 2 : 3), bytes);
}

void PlacedStorages::insert(const Lifetime& life, int64_t begin, int64_t end) {
    const PlaceColumns::Place place = {life, begin, end};
    not_in_all_.push_back(place);
    if (!is_brief(life)) return long_.insert(place);
    const auto stretch = static_cast<size_t>(life.first / kStretch), last = static_cast<size_t>(life.last / kStretch);
    brief_[stretch].insert(place);
    if (last != stretch) brief_[last].insert(place);
}

}  // namespace llmc
