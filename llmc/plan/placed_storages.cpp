#include "llmc/plan/placed_storages.h"

#include <algorithm>
#include <array>
#include <cstring>
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
