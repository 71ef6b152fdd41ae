// The largest size that fits, where what fits is whatever is no larger than that.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace llmc {

/// Of the multiples of `unit` up to `cap` (and `cap` itself), the largest that fits; 0 if the smallest does not.
/// Bisects from `guess`, of which nothing is known: the nearer it is, the fewer sizes are tried.
inline int64_t largest_size(int64_t unit, int64_t cap, const std::function<bool(int64_t)>& fits, int64_t guess = 0) {
    const int64_t count = (cap + unit - 1) / unit;
    const auto size = [&](int64_t i) { return std::min(cap, i * unit); };
    if (!fits(size(1))) return 0;
    int64_t low = 1, high = count + 1;  // `low` fits, `high` does not.
    int64_t next = std::max<int64_t>(2, std::min(guess / unit, count)), stride = std::max<int64_t>(1, next / 64);
    bool is_near = guess > 0;  // Steps away from the guess grow, both ways, until one side is found.
    while (low + 1 < high) {
        next = std::clamp(next, low + 1, high - 1);
        const bool fit = fits(size(next));
        (fit ? low : high) = next;
        if (is_near) {
            const bool both = low > 1 && high <= count;
            next = both ? low + (high - low) / 2 : fit ? next + stride : next - stride;
            stride *= 4;
            is_near = !both;
        } else {
            next = high <= count ? low + (high - low) / 2 : 2 * low;
        }
    }
    return size(low);
}

}  // namespace llmc
