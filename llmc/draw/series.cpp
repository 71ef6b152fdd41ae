#include "llmc/draw/series.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llmc {
namespace {

/// Indices of what is kept of [begin, end), ascending.
std::vector<size_t> kept_of(const Series& series, size_t begin, size_t end) {
    size_t low = end, high = end;
    size_t gap = end;
    for (size_t i = begin; i < end; ++i) {
        if (!std::isfinite(series.y[i])) {
            gap = i;
            continue;
        }
        if (low == end || series.y[i] < series.y[low]) low = i;
        if (high == end || series.y[i] > series.y[high]) high = i;
    }
    std::vector<size_t> kept = {begin, end - 1};
    for (const size_t i : {low, high, gap}) {
        if (i != end) kept.push_back(i);
    }
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    return kept;
}

/// Calls `use(begin, end)` with the indices of every bucket of x that has any.
template <typename Use>
void for_each_bucket(const Series& series, size_t buckets, Use use) {
    if (series.size() == 0) return;
    const double first = series.x.front(), width = (series.x.back() - first) / static_cast<double>(buckets);
    for (size_t begin = 0; begin < series.size();) {
        const double bucket = width > 0 ? std::floor((series.x[begin] - first) / width) : 0;
        const bool is_last = width <= 0 || bucket + 1 >= static_cast<double>(buckets);
        const double border = is_last ? std::numeric_limits<double>::infinity() : first + (bucket + 1) * width;
        size_t end = begin + 1;
        while (end < series.size() && series.x[end] < border) ++end;
        use(begin, end);
        begin = end;
    }
}

}  // namespace

Series thinned(const Series& series, size_t buckets) {
    if (series.size() <= 4 * buckets || buckets == 0) return series;
    Series kept;
    for_each_bucket(series, buckets, [&](size_t begin, size_t end) {
        for (const size_t i : kept_of(series, begin, end)) kept.add(series.x[i], series.y[i]);
    });
    return kept;
}

Series bucket_means(const Series& series, size_t buckets) {
    Series means;
    for_each_bucket(series, buckets, [&](size_t begin, size_t end) {
        double x = 0, y = 0;
        size_t finite = 0;
        for (size_t i = begin; i < end; ++i) {
            x += series.x[i];
            if (std::isfinite(series.y[i])) y += series.y[i], ++finite;
        }
        const double mean = finite > 0 ? y / static_cast<double>(finite) : std::numeric_limits<double>::quiet_NaN();
        means.add(x / static_cast<double>(end - begin), mean);
    });
    return means;
}

}  // namespace llmc
