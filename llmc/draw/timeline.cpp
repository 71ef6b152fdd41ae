#include "llmc/draw/timeline.h"

#include "llmc/base/units.h"
#include "llmc/draw/chart.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {
namespace {

constexpr double kWidth = 960, kHeight = 580;
constexpr SvgBox kFrame = {80, 112, 850, 360};
constexpr double kStripTop = 92, kStripHeight = 12;  ///< The phases, a strip above the frame.

/// How a consumer looks: by hatching and by shade, so that colour is not needed.
struct Look {
    SvgHatch hatch;
    const char* paper;
    const char* ink;
};
Look look_of(Consumer consumer) {
    switch (consumer) {
        case Consumer::Inputs: return {SvgHatch::None, "#111", "#111"};
        case Consumer::Boundaries: return {SvgHatch::None, "#3b6ea5", "#111"};
        case Consumer::LayerInternals: return {SvgHatch::Rising, "#d3e3f3", "#7d9fc2"};
        case Consumer::HeadActivations: return {SvgHatch::Dots, "#f6e7a8", "#6e5a00"};
        case Consumer::Gradients: return {SvgHatch::Falling, "#f2a65a", "#6b3300"};
        case Consumer::Logits: return {SvgHatch::Crossed, "#ffffff", "#333"};
        case Consumer::Workspace: return {SvgHatch::Level, "#d9d9d9", "#444"};
        case Consumer::KeyValueCache: return {SvgHatch::None, "#8c8c8c", "#111"};
        case Consumer::GatheredParameters: return {SvgHatch::Rising, "#cfe8cb", "#2f6b2b"};
        case Consumer::BucketGradients: return {SvgHatch::Crossed, "#f6cfcb", "#a03a30"};
        case Consumer::Communication: return {SvgHatch::Dots, "#dccbee", "#4d2a7d"};
        case Consumer::UpdateSlots: return {SvgHatch::Falling, "#e9dcc4", "#7a5c1e"};
        case Consumer::UnpackedWeights: return {SvgHatch::Level, "#cfe3e6", "#1f5f6b"};
    }
    return {SvgHatch::None, "#fff", "#111"};
}

const char* colour_of(Phase phase) {
    switch (phase) {
        case Phase::Forward: return "#e4e4e4";
        case Phase::Head: return "#111";
        case Phase::Recompute: return "#c0392b";
        case Phase::Backward: return "#aaa";
        case Phase::Update: return "#2f6b2b";
    }
    return "none";
}

/// One consumer's area: along its upper edge and back along its lower one.
std::vector<SvgPoint> area(const Chart& chart, const std::vector<double>& lower, const std::vector<double>& upper) {
    std::vector<SvgPoint> outline;
    const size_t steps = upper.size();
    for (size_t i = 0; i < steps; ++i) {
        outline.push_back(chart.at(static_cast<double>(i), upper[i]));
        outline.push_back(chart.at(static_cast<double>(i + 1), upper[i]));
    }
    for (size_t i = steps; i-- > 0;) {
        outline.push_back(chart.at(static_cast<double>(i + 1), lower[i]));
        outline.push_back(chart.at(static_cast<double>(i), lower[i]));
    }
    return outline;
}

/// The stack of areas; their legend.
std::vector<LegendEntry> draw_stack(SvgCanvas* canvas, const Chart& chart, const Plan& plan, const ByteUnit& unit) {
    const std::vector<BytesByConsumer> live = live_by_consumer(plan);
    std::vector<LegendEntry> legend;
    std::vector<double> lower(live.size(), 0), upper;
    for (size_t consumer = 0; consumer < kNumConsumers; ++consumer) {
        upper = lower;
        int64_t most = 0;
        for (size_t i = 0; i < live.size(); ++i) {
            upper[i] += static_cast<double>(live[i][consumer]) / unit.bytes;
            most = std::max(most, live[i][consumer]);
        }
        if (most == 0) continue;
        const Look look = look_of(static_cast<Consumer>(consumer));
        const SvgStyle style = {"none", 1, "", canvas->hatched(look.hatch, look.paper, look.ink)};
        canvas->polygon(area(chart, lower, upper), style);
        const SvgStyle swatch = {"#222", 0.8, "", style.fill};
        legend.push_back({std::string(name_of(static_cast<Consumer>(consumer))), swatch});
        lower = upper;
    }
    std::vector<SvgPoint> edge = area(chart, lower, lower);
    edge.resize(edge.size() / 2);
    canvas->polyline(edge, {.stroke = "#333", .width = live.size() > 500 ? 0.3 : 0.8});  // Many steps are thin.
    return legend;
}

/// Runs of steps of one phase on the strip; forward, head, backward and update by name, with lines where they meet.
void draw_phases(SvgCanvas* canvas, const Chart& chart, const Plan& plan) {
    const auto count = static_cast<int>(plan.steps.size());
    // A pending update stands in the forward, and is drawn as what it stands beside.
    std::vector<Phase> phases;
    for (const Step& step : plan.steps) {
        const bool is_pending = step.when == When::Pending;
        phases.push_back(!is_pending ? step.phase : phases.empty() ? Phase::Forward : phases.back());
    }
    const auto phase_at = [&](int i) { return phases[static_cast<size_t>(i)]; };
    for (int i = 0, end = 0; i < count; i = end) {
        while (end < count && phase_at(end) == phase_at(i)) ++end;
        canvas->rectangle({chart.x(i), kStripTop, chart.x(end) - chart.x(i), kStripHeight},
                          {.fill = colour_of(phase_at(i))});
    }
    int head = 0;
    while (head < count && phase_at(head) != Phase::Head) ++head;
    int backward = head;
    while (backward < count && phase_at(backward) == Phase::Head) ++backward;
    int update = backward;
    while (update < count && phase_at(update) != Phase::Update) ++update;
    const SvgStyle border = {"#222", 1, "5 4", "none"};
    const auto name = [&](int from, int to, const char* words) {
        canvas->text({(chart.x(from) + chart.x(to)) / 2, kStripTop - 6}, words,
                     {.size = 13, .anchor = SvgAnchor::Middle});
        if (from > 0) canvas->line({chart.x(from), kStripTop}, {chart.x(from), kFrame.bottom()}, border);
    };
    name(0, head, "forward");
    name(head, backward, "head");
    name(backward, update, "backward");
    if (update < count) name(update, count, "update");
}

/// Its words stand in a box of their own, above the arena's line where they would lie on it: no line strikes them
/// through.
void draw_peak(SvgCanvas* canvas, const Chart& chart, const Model& model, const Plan& plan, const ByteUnit& unit,
               double arena) {
    const Simulation simulation = simulate(model, plan);
    const int step = simulation.peak_step;
    const SvgPoint at = chart.at(step + 0.5, static_cast<double>(simulation.peak_bytes) / unit.bytes);
    canvas->marker(SvgMarker::Pointer, {at.x, at.y - 2}, 10, {.fill = "#111"});
    const std::string words = fmt::format("peak {} at step {}: {}", format_bytes(simulation.peak_bytes), step,
                                          describe_step(model, plan.steps[static_cast<size_t>(step)]));
    constexpr double kAbove = 13, kBelow = 5;  // Of the words' baseline.
    const double half = svg_text_width(words, 13) / 2, line = chart.y(arena);
    const double middle = std::clamp(at.x, kFrame.x + half + 6, kFrame.right() - half - 6);
    const bool is_on_line = at.y - 18 - kAbove < line && line < at.y - 18 + kBelow;
    const double baseline = is_on_line ? line - kBelow - 1 : at.y - 18;
    canvas->rectangle({middle - half, baseline - kAbove, 2 * half, kAbove + kBelow}, {.fill = "white"});
    canvas->text({middle, baseline}, words, {.size = 13, .anchor = SvgAnchor::Middle, .bold = true});
}

}  // namespace

std::vector<BytesByConsumer> live_by_consumer(const Plan& plan) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    std::vector<BytesByConsumer> live(plan.steps.size());
    for (BytesByConsumer& row : live) row.fill(0);
    for (size_t tensor = 0; tensor < plan.tensors.size(); ++tensor) {
        const auto consumer = static_cast<size_t>(plan.tensors[tensor].consumer);
        for (int step = lives[tensor].first; step <= lives[tensor].last; ++step) {
            live[static_cast<size_t>(step)][consumer] += plan.tensors[tensor].bytes;
        }
    }
    return live;
}

std::string draw_timeline(const Model& model, const Plan& plan, const Layout& layout, const std::string& title,
                          const std::string& subtitle) {
    const ByteUnit unit = byte_unit(layout.arena_bytes);
    const auto steps = static_cast<double>(plan.steps.size());
    const double arena = static_cast<double>(layout.arena_bytes) / unit.bytes;
    Axis x = {"step (one operation; the last ones are the update)", 0, steps, linear_ticks(0, steps, 12)};
    Axis y = {fmt::format("activation arena, {}", unit.name), 0, 1.17 * arena, linear_ticks(0, 1.17 * arena, 9)};
    const Chart chart(kFrame, std::move(x), std::move(y));

    SvgCanvas canvas(kWidth, kHeight, title);
    canvas.text({kFrame.x, 28}, title, {.size = 17, .bold = true});
    canvas.text({kFrame.x, 49}, subtitle, {.size = 12});
    chart.draw_grid(&canvas);
    std::vector<LegendEntry> legend = draw_stack(&canvas, chart, plan, unit);
    const SvgStyle arena_line = {"#111", 1.2, "8 4", "none"};
    canvas.line(chart.at(0, arena), chart.at(steps, arena), arena_line);
    draw_phases(&canvas, chart, plan);
    chart.draw_axes(&canvas);
    draw_peak(&canvas, chart, model, plan, unit, arena);
    legend.push_back({fmt::format("arena: {}", format_bytes(layout.arena_bytes)), arena_line});
    const bool repeats = std::any_of(plan.steps.begin(), plan.steps.end(),
                                     [](const Step& step) { return step.phase == Phase::Recompute; });
    if (repeats) legend.push_back({"operation run again (strip above)", {.fill = colour_of(Phase::Recompute)}});
    draw_legend(&canvas, {kFrame.x, kFrame.bottom() + 56, kFrame.width, 0}, legend);
    return canvas.finish();
}

}  // namespace llmc
