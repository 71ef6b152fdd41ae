// A diagram on an SvgCanvas: a frame with two axes whose ticks are round numbers, and a legend.
#pragma once

#include "llmc/draw/svg.h"

#include <string>
#include <vector>

namespace llmc {

/// The next of 1, 2, 5, 10, 20, ... times a power of ten that is at least `value`.
double round_step(double value);

/// The round numbers from `low` to `high`, at most `most` of them: 1, 2 or 5 times a power of ten apart.
std::vector<double> linear_ticks(double low, double high, int most);

/// The same for a logarithmic axis: 1, 2 and 5 times the powers of ten, or on a short axis linear ones.
std::vector<double> log_ticks(double low, double high, int most);

/// The unit in which sizes up to `bytes` are small numbers.
struct ByteUnit {
    const char* name;  ///< "GiB".
    double bytes;      ///< In one of them.
};
ByteUnit byte_unit(int64_t bytes);

struct Axis {
    std::string label;
    double low = 0, high = 1;
    std::vector<double> ticks;
    bool logarithmic = false;
};

/// Where the values are on the canvas.
class Chart {
  public:
    Chart(const SvgBox& frame, Axis x, Axis y) : frame_(frame), x_(std::move(x)), y_(std::move(y)) {}

    const SvgBox& frame() const { return frame_; }
    const std::vector<double>& x_ticks() const { return x_.ticks; }
    double x(double value) const { return frame_.x + frame_.width * share(x_, value); }
    double y(double value) const { return frame_.bottom() - frame_.height * share(y_, value); }
    SvgPoint at(double x_value, double y_value) const { return {x(x_value), y(y_value)}; }

    void draw_grid(SvgCanvas* canvas) const;
    /// The frame, the ticks with their numbers, and the labels.
    void draw_axes(SvgCanvas* canvas) const;

  private:
    static double share(const Axis& axis, double value);

    SvgBox frame_;
    Axis x_, y_;
};

/// An entry of the legend: a filled swatch, or a line, with a marker where `has_marker`.
struct LegendEntry {
    std::string words;
    SvgStyle style;
    bool has_marker = false;
    SvgMarker marker = SvgMarker::Dot;
};

/// Draws the entries in rows from `box`'s upper left corner, no wider than it; returns the height of all rows.
double draw_legend(SvgCanvas* canvas, const SvgBox& box, const std::vector<LegendEntry>& entries);

}  // namespace llmc
