#include "llmc/train/plan_frontier.h"

#include "llmc/base/counted.h"
#include "llmc/base/terminal.h"
#include "llmc/base/units.h"
#include "llmc/draw/frontier_plot.h"
#include "llmc/draw/frontier_table.h"
#include "llmc/draw/labels.h"
#include "llmc/draw/text_table.h"
#include "llmc/io/json_text.h"
#include "llmc/plan/frontier.h"
#include "llmc/train/choose_plan.h"
#include "llmc/train/output_file.h"
#include "llmc/train/remedy.h"
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
    const int64_t limit_bytes;  ///< Of the device, or --memory-budget.
    const std::string times_source;
    const Frontier frontier;
    int64_t total_bytes(int64_t arena_bytes) const { return state_bytes + arena_bytes; }
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
        entry["gained_points"] = report.frontier.gained_points(row);
        json["comparisons"].push_back(entry);
    }
    json["host_policies"] = nlohmann::ordered_json::array();
    for (const HostPolicyPoint& row : report.frontier.host_policies) {
        json["host_policies"].push_back({{"recompute", row.policy},
                                         {"arena_bytes", row.arena_bytes},
                                         {"total_bytes", report.total_bytes(row.arena_bytes)},
                                         {"host_bytes", row.host_bytes},
                                         {"predicted_step_ms", row.seconds * 1e3},
                                         {"extra_time_ratio", report.frontier.over_level0(row.seconds)}});
    }
    json["limit_bytes"] = report.limit_bytes;
    return json_report(json);
}

void draw(const Options& options, const Report& report) {
    const std::string title = fmt::format("{}: memory against time", report.model.config.name);
    const std::string subtitle = fmt::format("training, micro-batch {} x {} tokens, {}; times: {}", report.shape.B,
                                             report.shape.T, name_of(report.dtype), report.times_source);
    write_output("--plot", options.plot,
                 draw_frontier(report.frontier, title, subtitle, report.state_bytes, report.limit_bytes));
}

}  // namespace

std::string frontier_report(const Options& options, const Model& model, Backend& backend) {
    if (!options.plot.empty()) require_output("--plot", options.plot);
    const BatchShape shape = {options.batch_size, options.seq_len};
    const DType dtype = dtype_of_option(options, backend);
    const PlanRequest request = request_for(options, model, shape, backend);
    const OpTimes times = operation_times(options, model, request, backend);
    const int64_t state = state_bytes(model, request.places, shape.T, request.parallel, true).total();
    const OpTimes choosing = times_to_choose_by(options, model, request, times, backend);
    const int64_t limit = memory_limit(options, backend.info());
    const Report report = {
        model, shape, dtype, state, limit, times.source, find_frontier(model, request, times, kRungs, &choosing)};
    if (!options.plot.empty()) draw(options, report);
    if (options.json) return to_json(report);
    const int width = output_columns();
    const ReportUnits units(options.bytes, report.total_bytes(report.frontier.comparisons.back().arena_bytes));
    std::string text = wrapped(model_line(model), width);
    text += wrapped(fmt::format("micro-batch {} x {} {}, {}; step times: {}", shape.B, shape.T,
                                noun(shape.N(), "token"), name_of(dtype), times.source),
                    width);
    const std::string bound = memory_bound(options, backend.info());
    text += wrapped(
        fmt::format("fits: within {}{}", format_bytes(limit), bound.empty() ? "" : fmt::format(" ({})", bound)), width);
    const std::string floor = floor_words(options, model, shape, backend);
    if (!floor.empty()) text += wrapped("nothing fits: " + floor, width);
    text += "\n" + frontier_tables(report.frontier, state, limit, units, width);
    if (!options.plot.empty()) text += fmt::format("picture: {}\n", options.plot);
    return text;
}

}  // namespace llmc
