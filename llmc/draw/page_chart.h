// A chart of several runs for a page: SVG in the page's colours (light or dark). Every curve has coordinates of its
// own, steps and parts of its height, and one transform moves it to its place: so the page's script can hide curves,
// rescale what is left, and read values. It knows a curve's first and last step, and its lowest and highest value or,
// on a logarithmic axis, their logarithms.
#pragma once

#include "llmc/draw/series.h"

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct PageCurve {
    size_t run = 0;     ///< Decides the colour, and what hides it.
    std::string words;  ///< What its values are: "training loss".
    Series series;
    bool has_dots = false;   ///< Few points, each of which counts.
    bool is_dashed = false;  ///< Predicted rather than measured.
    bool is_noisy = false;   ///< Drawn as a band with a line of means where it has more points than there is room for.
};

struct PageChart {
    std::string title;
    std::string unit;         ///< "" for a number without one.
    bool may_be_log = false;  ///< Drawn over a logarithmic axis where the values span more than a factor of 20.
    std::vector<PageCurve> curves;
};

constexpr int kCurveHeight = 9999;  ///< Parts of a curve's height.

/// A <figure>; "" where there is nothing to draw.
std::string page_chart(const PageChart& chart);

/// With &, <, >, " and ' as entities, and what is no UTF-8 escaped.
std::string html_text(std::string_view text);

}  // namespace llmc
