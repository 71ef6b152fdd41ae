#include "llmc/train/plan_frontier.h"

#include "llmc/base/units.h"
#include "llmc/plan/frontier.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/setup.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {
namespace {

constexpr int kRungs = 40;  ///< Budgets searched besides those of the fixed policies.

/// What the tables, the JSON and the picture say about the same numbers.
struct Report {
    const Model& model;
    const BatchShape shape;
    const DType dtype;
    const int64_t state_bytes;
    const std::string times_source;
    const Frontier frontier;
    int64_t total_bytes(int64_t arena_bytes) const { return state_bytes + arena_bytes; }
    double percent(double seconds) const { return 100 * frontier.over_level0(seconds); }
    double gained_points(const FrontierComparison& row) const {
        return percent(row.policy_seconds) - percent(row.found.seconds);
    }
};

nlohmann::ordered_json point_json(const Report& report, const FrontierPoint& point) {
    return {{"arena_bytes", point.arena_bytes},
            {"total_bytes", report.total_bytes(point.arena_bytes)},
            {"predicted_step_ms", point.seconds * 1e3},
            {"extra_time_ratio", report.frontier.over_level0(point.seconds)},
            {"kept", point.kept}};
}

std::string to_json(const Report& report) {
    nlohmann::ordered_json json = {{"model", report.model.config.name}, {"parameters", report.model.parameter_count()},
                                   {"batch_size", report.shape.B},      {"seq_len", report.shape.T},
                                   {"dtype", name_of(report.dtype)},    {"times", report.times_source}};
    json["frontier"] = nlohmann::ordered_json::array();
    for (const FrontierPoint& point : report.frontier.points) json["frontier"].push_back(point_json(report, point));
    json["comparisons"] = nlohmann::ordered_json::array();
    for (const FrontierComparison& row : report.frontier.comparisons) {
        nlohmann::ordered_json entry = {{"recompute", row.policy}};
        if (!row.up_to.empty()) entry["halfway_to"] = row.up_to;
        entry["arena_bytes"] = row.arena_bytes;
        entry["total_bytes"] = report.total_bytes(row.arena_bytes);
        entry["predicted_step_ms"] = row.policy_seconds * 1e3;
        entry["extra_time_ratio"] = report.frontier.over_level0(row.policy_seconds);
        entry["auto"] = point_json(report, row.found);
        entry["gained_points"] = report.gained_points(row);
        json["comparisons"].push_back(entry);
    }
    return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string ladder_table(const Report& report) {
    std::string text = fmt::format("{:>20} {:>20} {:>12} {:>12}  {}\n", "arena B", "total B", "predicted",
                                   "over level 0", "what survives the forward");
    for (const FrontierPoint& point : report.frontier.points) {
        text += fmt::format("{:>20} {:>20} {:>9.0f} ms {:>+11.1f}%  {}\n", format_count(point.arena_bytes),
                            format_count(report.total_bytes(point.arena_bytes)), point.seconds * 1e3,
                            report.percent(point.seconds), point.kept);
    }
    return text;
}

std::string comparison_table(const Report& report) {
    std::string text = fmt::format("{:<24} {:>20} {:>20} {:>10} {:>10} {:>12}\n", "in the memory of", "arena B",
                                   "total B", "its time", "auto", "auto gains");
    for (const FrontierComparison& row : report.frontier.comparisons) {
        const std::string name =
            row.up_to.empty() ? level_label(row.policy) : fmt::format("  halfway {} - {}", row.policy, row.up_to);
        text += fmt::format("{:<24} {:>20} {:>20} {:>+9.1f}% {:>+9.1f}% {:>5.1f} points\n", name,
                            format_count(row.arena_bytes), format_count(report.total_bytes(row.arena_bytes)),
                            report.percent(row.policy_seconds), report.percent(row.found.seconds),
                            report.gained_points(row));
    }
    return text + "(times over level 0; halfway, the fixed policy is the smaller one: the larger does not fit)\n";
}

void draw(const Options& options, const Report& report) {
    const std::string title = fmt::format("{}: memory against time", report.model.config.name);
    const std::string subtitle = fmt::format("training, micro-batch {} x {} tokens, {}; times: {}", report.shape.B,
                                             report.shape.T, name_of(report.dtype), report.times_source);
    write_picture("--plot", options.plot, draw_frontier(report.frontier, title, subtitle, report.state_bytes));
}

}  // namespace

std::string frontier_report(const Options& options, const Model& model, Backend& backend) {
    const BatchShape shape = {options.batch_size, options.seq_len};
    const DType dtype = dtype_of_option(options, backend);
    const PlanRequest request = request_for(options, model, shape, backend);
    const OpTimes times = operation_times(options, model, request, backend);
    const int64_t state = state_bytes(model, request.places, shape.T, request.parallel, true).total();
    const Report report = {model, shape, dtype, state, times.source, find_frontier(model, request, times, kRungs)};
    if (!options.plot.empty()) draw(options, report);
    if (options.json) return to_json(report);
    std::string text = model_line(model) + fmt::format("micro-batch {} x {} tokens, {}; step times: {}\n\n", shape.B,
                                                       shape.T, name_of(dtype), times.source);
    text += "the fastest plan within each budget\n" + ladder_table(report) + "\n" + comparison_table(report);
    if (!options.plot.empty()) text += fmt::format("picture: {}\n", options.plot);
    return text;
}

}  // namespace llmc
