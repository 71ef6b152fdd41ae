#include "llmc/draw/series.h"

#include "llmc/base/median.h"

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

}  // namespace

Series thinned(const Series& series, size_t buckets) {
    if (series.size() <= 4 * buckets || buckets == 0) return series;
    const double first = series.x.front(), width = (series.x.back() - first) / static_cast<double>(buckets);
    Series kept;
    for (size_t begin = 0; begin < series.size();) {
        const double bucket = width > 0 ? std::floor((series.x[begin] - first) / width) : 0;
        const bool is_last = width <= 0 || bucket + 1 >= static_cast<double>(buckets);
        const double border = is_last ? std::numeric_limits<double>::infinity() : first + (bucket + 1) * width;
        size_t end = begin + 1;
        while (end < series.size() && series.x[end] < border) ++end;
        for (const size_t i : kept_of(series, begin, end)) kept.add(series.x[i], series.y[i]);
        begin = end;
    }
    return kept;
}

double typical_value(const Series& series) {
    std::vector<double> finite;
    std::copy_if(series.y.begin(), series.y.end(), std::back_inserter(finite),
                 [](double y) { return std::isfinite(y); });
    return finite.empty() ? 0 : median(finite);
}

}  // namespace llmc
