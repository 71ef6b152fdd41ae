// Memory from left to right, time upwards, the fastest plans as stairs, since between two
// of them the cheaper one is what is known to fit.
#include "llmc/draw/frontier_plot.h"

#include "llmc/base/units.h"
#include "llmc/draw/chart.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

constexpr double kWidth = 960, kHeight = 600;
constexpr SvgBox kFrame = {80, 112, 850, 390};

const SvgStyle kCurve = {.stroke = "#1f4e9c", .width = 2.2, .dashes = "", .fill = "none"};
const SvgStyle kCurveDots = {.stroke = "none", .width = 1, .dashes = "", .fill = "#1f4e9c"};
const SvgStyle kPolicy = {.stroke = "none", .width = 1, .dashes = "", .fill = "#111"};
const SvgStyle kHostPolicy = {.stroke = "#111", .width = 1.5, .dashes = "", .fill = "#fff"};
const SvgStyle kLimit = {.stroke = "#b3261e", .width = 1.6, .dashes = "6 4", .fill = "none"};
const SvgStyle kDrop = {.stroke = "#111", .width = 1, .dashes = "2 3", .fill = "none"};

/// The tallest policy and some room for its label. The curve may rise far above it on the left; a low one is all there.
double top_percent(const Frontier& frontier) {
    double top = std::clamp(frontier.percent(frontier.points.front().seconds), 1.0, 30.0);
    for (const FrontierComparison& row : frontier.comparisons) {
        top = std::max(top, frontier.percent(row.policy_seconds));
    }
    return 1.35 * top;
}

Chart make_chart(const Frontier& frontier, const ByteUnit& unit) {
    Axis x;
    x.label = fmt::format("activation arena, {} (logarithmic)", unit.name);
    x.logarithmic = true;
    x.low = static_cast<double>(frontier.points.front().arena_bytes) / unit.bytes / 1.15;
    x.high = static_cast<double>(frontier.comparisons.back().arena_bytes) / unit.bytes;
    x.high *= 1.1 * std::pow(x.high / x.low, 0.2);  // Room for the label of the last point.
    x.ticks = log_ticks(x.low, x.high, 12);
    Axis y;
    y.label = "predicted time of an update, % over level 0";
    y.high = top_percent(frontier);
    y.low = -0.05 * y.high;
    y.ticks = linear_ticks(0, y.high, 10);
    return Chart(kFrame, x, y);
}

/// The same ticks once more above the frame, with what else the run needs.
void draw_totals(SvgCanvas* canvas, const Chart& chart, const ByteUnit& unit, int64_t state_bytes) {
    const ByteUnit total_unit = byte_unit(state_bytes);
    for (const double tick : chart.x_ticks()) {
        const double total = (tick * unit.bytes + static_cast<double>(state_bytes)) / total_unit.bytes;
        canvas->line({chart.x(tick), kFrame.y - 5}, {chart.x(tick), kFrame.y}, {.stroke = "#222"});
        canvas->text({chart.x(tick), kFrame.y - 9}, fmt::format("{:.{}f}", total, total < 100 ? 2 : 1),
                     {.anchor = SvgAnchor::Middle});
    }
    canvas->text({kFrame.x + kFrame.width / 2, kFrame.y - 27},
                 fmt::format("total memory, {} ({} of it for parameters, gradients and optimiser)", total_unit.name,
                             format_bytes(state_bytes)),
                 {.size = 13, .anchor = SvgAnchor::Middle});
}

void draw_curve(SvgCanvas* canvas, const Chart& chart, const Frontier& frontier, const ByteUnit& unit) {
    std::vector<SvgPoint> stairs;
    canvas->begin_clip(kFrame);
    for (const FrontierPoint& point : frontier.points) {
        const SvgPoint at =
            chart.at(static_cast<double>(point.arena_bytes) / unit.bytes, frontier.percent(point.seconds));
        if (!stairs.empty()) stairs.push_back({at.x, stairs.back().y});
        stairs.push_back(at);
        canvas->marker(SvgMarker::Dot, at, 5, kCurveDots);
    }
    stairs.push_back({kFrame.right(), stairs.back().y});
    canvas->polyline(stairs, kCurve);
    canvas->end_clip();
    const FrontierPoint& first = frontier.points.front();
    const double least = frontier.percent(first.seconds), top = top_percent(frontier);
    if (least <= top) return;
    const auto below_the_note = std::find_if(
        frontier.points.begin(), frontier.points.end(),
        [&](const FrontierPoint& point) { return chart.y(frontier.percent(point.seconds)) > kFrame.y + 26; });
    canvas->text({chart.x(static_cast<double>(below_the_note->arena_bytes) / unit.bytes) + 10, kFrame.y + 18},
                 fmt::format("from +{:.0f} % in {}, the smallest plan", least, format_bytes(first.arena_bytes)));
}

/// A square per policy and its name, to the right and above, where the curve never is; raised until it is free.
void draw_policies(SvgCanvas* canvas, const Chart& chart, const Frontier& frontier, const ByteUnit& unit) {
    constexpr double kSize = 12, kLine = 15;
    std::vector<SvgBox> taken;
    for (const FrontierComparison& row : frontier.comparisons) {
        if (!row.up_to.empty()) continue;
        const double memory = static_cast<double>(row.arena_bytes) / unit.bytes;
        const double own = frontier.percent(row.policy_seconds), found = frontier.percent(row.found.seconds);
        const SvgPoint at = chart.at(memory, own);
        taken.push_back({at.x - 6, at.y - 6, 12, 12});
        canvas->line(at, chart.at(memory, found), kDrop);
        canvas->marker(SvgMarker::Square, at, 9, kPolicy);
    }
    for (const FrontierComparison& row : frontier.comparisons) {
        if (!row.up_to.empty()) continue;
        const double own = frontier.percent(row.policy_seconds), found = frontier.percent(row.found.seconds);
        const std::string level = find_policy(row.policy).level;
        std::string words = fmt::format("{}{}{} +{:.1f} %", level, level.empty() ? "" : " ", row.policy, own);
        if (own - found >= 0.05) words += fmt::format(" (auto: +{:.1f} %)", std::max(0.0, found));
        const SvgPoint at = chart.at(static_cast<double>(row.arena_bytes) / unit.bytes, own);
        SvgBox box = {at.x + 9, at.y - 8 - kSize, svg_text_width(words, kSize), kLine};
        const auto is_taken = [&](const SvgBox& other) { return other.overlaps(box); };
        while (std::any_of(taken.begin(), taken.end(), is_taken)) box.y -= kLine / 2;
        taken.push_back(box);
        if (box.y < at.y - 40) canvas->line(at, {box.x, box.bottom()}, {.stroke = "#888"});
        canvas->text({box.x, box.y + kSize}, words, {.size = kSize, .bold = true});
    }
}

/// Policies with something in host memory: hollow, with a name below.
void draw_host_policies(SvgCanvas* canvas, const Chart& chart, const Frontier& frontier, const ByteUnit& unit) {
    for (const HostPolicyPoint& row : frontier.host_policies) {
        const double own = frontier.percent(row.seconds);
        const SvgPoint at = chart.at(static_cast<double>(row.arena_bytes) / unit.bytes, own);
        if (at.x < kFrame.x || at.x > kFrame.right() || at.y < kFrame.y) continue;
        canvas->marker(SvgMarker::Square, at, 9, kHostPolicy);
        const std::string words =
            fmt::format("{} +{:.1f} %, {} of host memory", row.policy, own, format_bytes(row.host_bytes));
        canvas->text({at.x + 9, std::min(at.y + 18, kFrame.bottom() - 4)}, words, {.size = 12});
    }
}

/// What a device leaves to activations, as a line from top to bottom.
void draw_limit(SvgCanvas* canvas, const Chart& chart, const ByteUnit& unit, int64_t state_bytes, int64_t limit_bytes) {
    if (limit_bytes <= 0) return;
    if (limit_bytes <= state_bytes) {
        canvas->text({kFrame.x + 10, kFrame.bottom() - 12},
                     fmt::format("nothing fits {}: parameters, gradients and optimiser alone take {}",
                                 format_bytes(limit_bytes), format_bytes(state_bytes)),
                     {.size = 13, .bold = true});
        return;
    }
    const double x = chart.x(static_cast<double>(limit_bytes - state_bytes) / unit.bytes);
    if (x < kFrame.x || x > kFrame.right()) return;
    canvas->line({x, kFrame.y}, {x, kFrame.bottom()}, kLimit);
    canvas->text({x - 6, kFrame.y + 34}, fmt::format("fits {} in all", format_bytes(limit_bytes)),
                 {.size = 12, .anchor = SvgAnchor::End});
}

}  // namespace

std::string draw_frontier(const Frontier& frontier, const std::string& title, const std::string& subtitle,
                          int64_t state_bytes, int64_t limit_bytes) {
    const ByteUnit unit = byte_unit(frontier.comparisons.back().arena_bytes / 4);
    const Chart chart = make_chart(frontier, unit);
    SvgCanvas canvas(kWidth, kHeight, title);
    canvas.text({kFrame.x, 28}, title, {.size = 17, .bold = true});
    canvas.text({kFrame.x, 49}, subtitle, {.size = 12});
    chart.draw_grid(&canvas);
    draw_curve(&canvas, chart, frontier, unit);
    chart.draw_axes(&canvas);
    draw_totals(&canvas, chart, unit, state_bytes);
    draw_policies(&canvas, chart, frontier, unit);
    draw_host_policies(&canvas, chart, frontier, unit);
    draw_limit(&canvas, chart, unit, state_bytes, limit_bytes);
    SvgStyle curve = kCurve;
    curve.fill = kCurveDots.fill;
    draw_legend(&canvas, {kFrame.x, kHeight - 38, kFrame.width, 0},
                {{"auto: the fastest plan found in that memory", curve, true, SvgMarker::Dot},
                 {"fixed policy", kPolicy, true, SvgMarker::Square},
                 {"with host memory", kHostPolicy, true, SvgMarker::Square},
                 {"what auto gains in its memory", kDrop}});
    return canvas.finish();
}

}  // namespace llmc
