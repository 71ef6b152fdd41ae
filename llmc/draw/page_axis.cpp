#include "llmc/draw/page_axis.h"

#include "llmc/draw/chart.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace llmc {
namespace {

constexpr int kSpaces = 5, kMostLogTicks = 7;
constexpr double kSlack = 1e-9;

/// The logarithm of the number `index` of 1, 2, 5, 10, 20, 50 ..., where 0 is that of 1.
double round_logarithm(int index) {
    const int decade = static_cast<int>(std::floor(index / 3.0)), rest = index - 3 * decade;
    return decade + (rest == 0 ? 0 : std::log10(rest == 1 ? 2.0 : 5.0));
}

}  // namespace

PageAxis linear_axis(double low, double high) {
    const double size = std::max(std::abs(low), std::abs(high));
    if (high - low <= kSlack * size) {
        const double room = size == 0 ? 1 : 0.1 * size;
        low -= room, high += room;
    }
    const double step = round_step((high - low) / kSpaces);
    const double first = std::floor(low / step + kSlack), last = std::ceil(high / step - kSlack);
    PageAxis axis = {first * step, last * step, {}};
    for (double i = first; i <= last; ++i) axis.ticks.push_back(i * step);
    return axis;
}

PageAxis logarithmic_axis(double low, double high) {
    for (int stride = 1;; stride += stride == 1 ? 2 : 3) {
        int first = stride * static_cast<int>(std::floor(3 * low / stride) - 1);
        while (round_logarithm(first + stride) <= low + kSlack) first += stride;
        int last = first + stride;
        while (round_logarithm(last) < high - kSlack) last += stride;
        if ((last - first) / stride >= kMostLogTicks) continue;
        PageAxis axis = {round_logarithm(first), round_logarithm(last), {}};
        for (int i = first; i <= last; i += stride) axis.ticks.push_back(round_logarithm(i));
        return axis;
    }
}

std::string number_words(double value) {
    const double size = std::abs(value);
    if (size >= 1e3 && size < 1e15) {
        for (const auto& [unit, letter] : {std::pair(1e9, "G"), std::pair(1e6, "M"), std::pair(1e3, "k")}) {
            if (size >= unit) return fmt::format("{:g}{}", value / unit, letter);
        }
    }
    return fmt::format("{:g}", value);
}

}  // namespace llmc
