// A chart of several runs for a page: SVG in the page's colours (light or dark), whose curves the page's script shows,
// hides and reads.
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
};

struct PageChart {
    std::string title;
    std::string unit;         ///< "" for a number without one.
    bool may_be_log = false;  ///< Drawn over a logarithmic axis where the values span more than a factor of 20.
    std::vector<PageCurve> curves;
};

/// A <figure>; "" where there is nothing to draw.
std::string page_chart(const PageChart& chart);

/// With &, <, >, " and ' as entities, and what is no UTF-8 escaped.
std::string html_text(std::string_view text);

}  // namespace llmc
