#include "llmc/draw/chart.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

const SvgStyle kInk = {.stroke = "#222", .width = 1, .dashes = "", .fill = "none"};
const SvgStyle kGrid = {.stroke = "#ddd", .width = 1, .dashes = "", .fill = "none"};
constexpr double kTickLength = 5;

}  // namespace

double round_step(double value) {
    const double power = std::pow(10, std::floor(std::log10(value)));
    for (const double factor : {1.0, 2.0, 5.0}) {
        if (factor * power >= value * (1 - 1e-9)) return factor * power;
    }
    return 10 * power;
}

std::vector<double> linear_ticks(double low, double high, int most) {
    if (!(high > low) || most < 2) return {low};
    const double step = round_step((high - low) / (most - 1));
    const auto first = static_cast<int64_t>(std::ceil(low / step - 1e-9));
    const auto last = static_cast<int64_t>(std::floor(high / step + 1e-9));
    std::vector<double> ticks;
    for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
    return ticks;
}

std::vector<double> log_ticks(double low, double high, int most) {
    std::vector<double> ticks;
    for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10) {
        for (const double factor : {1.0, 2.0, 5.0}) {
            const double tick = factor * power;
            if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
        }
    }
    if (ticks.size() < 4) return linear_ticks(low, high, most);
    while (static_cast<int>(ticks.size()) > most) {  // Fewer, the outermost included.
        for (size_t i = 1; i < ticks.size(); ++i) ticks.erase(ticks.begin() + static_cast<int64_t>(i));
    }
    return ticks;
}

ByteUnit byte_unit(int64_t bytes) {
    constexpr ByteUnit kUnits[] = {{"TiB", 1099511627776.0}, {"GiB", 1073741824.0}, {"MiB", 1048576.0}, {"KiB", 1024}};
    for (const ByteUnit& unit : kUnits) {
        if (static_cast<double>(bytes) >= unit.bytes) return unit;
    }
    return {"B", 1};
}

double Chart::share(const Axis& axis, double value) {
    if (!axis.logarithmic) return (value - axis.low) / (axis.high - axis.low);
    return std::log(value / axis.low) / std::log(axis.high / axis.low);
}

void Chart::draw_grid(SvgCanvas* canvas) const {
    for (const double tick : x_.ticks) canvas->line({x(tick), frame_.y}, {x(tick), frame_.bottom()}, kGrid);
    for (const double tick : y_.ticks) canvas->line({frame_.x, y(tick)}, {frame_.right(), y(tick)}, kGrid);
}

void Chart::draw_axes(SvgCanvas* canvas) const {
    canvas->rectangle(frame_, kInk);
    double widest = 0;
    for (const double tick : y_.ticks) {
        const std::string words = fmt::format("{:g}", tick);
        widest = std::max(widest, svg_text_width(words, 12));
        canvas->line({frame_.x - kTickLength, y(tick)}, {frame_.x, y(tick)}, kInk);
        canvas->text({frame_.x - kTickLength - 3, y(tick) + 4}, words, {.anchor = SvgAnchor::End});
    }
    for (const double tick : x_.ticks) {
        canvas->line({x(tick), frame_.bottom()}, {x(tick), frame_.bottom() + kTickLength}, kInk);
        canvas->text({x(tick), frame_.bottom() + kTickLength + 13}, fmt::format("{:g}", tick),
                     {.anchor = SvgAnchor::Middle});
    }
    canvas->text({frame_.x + frame_.width / 2, frame_.bottom() + 38}, x_.label,
                 {.size = 13, .anchor = SvgAnchor::Middle});
    canvas->text({frame_.x - kTickLength - widest - 14, frame_.y + frame_.height / 2}, y_.label,
                 {.size = 13, .anchor = SvgAnchor::Middle, .upwards = true});
}

double draw_legend(SvgCanvas* canvas, const SvgBox& box, const std::vector<LegendEntry>& entries) {
    constexpr double kRow = 22, kSwatchWidth = 30, kSwatchHeight = 14, kGap = 8, kBetween = 18, kSize = 12;
    double x = box.x, y = box.y;
    for (const LegendEntry& entry : entries) {
        const double width = kSwatchWidth + kGap + svg_text_width(entry.words, kSize);
        if (x > box.x && x + width > box.right()) x = box.x, y += kRow;
        const SvgPoint middle = {x + kSwatchWidth / 2, y + kSwatchHeight / 2};
        if (entry.has_marker) {
            if (entry.style.stroke != "none") canvas->line({x, middle.y}, {x + kSwatchWidth, middle.y}, entry.style);
            canvas->marker(entry.marker, middle, 8, {.fill = entry.style.fill});
        } else if (entry.style.fill == "none") {
            canvas->line({x, middle.y}, {x + kSwatchWidth, middle.y}, entry.style);
        } else {
            canvas->rectangle({x, y, kSwatchWidth, kSwatchHeight}, entry.style);
        }
        canvas->text({x + kSwatchWidth + kGap, y + kSwatchHeight - 3}, entry.words, {.size = kSize});
        x += width + kBetween;
    }
    return y + kRow - box.y;
}

}  // namespace llmc
