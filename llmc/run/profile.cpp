#include "llmc/run/profile.h"

#include "llmc/base/check.h"
#include "llmc/plan/simulate.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>

namespace llmc {
namespace {

/// The step's kind: what describe_step() says without the layer.
std::string kind_of(const Model& model, const Step& step) {
    Step anywhere = step;
    anywhere.layer = anywhere.bucket = -1;
    return describe_step(model, anywhere);
}

}  // namespace

std::vector<ProfileRow> profile_rows(const Model& model, const Plan& plan, const std::vector<double>& seconds,
                                     int attention_backward_products) {
    CHECK(seconds.size() == plan.steps.size(), seconds.size(), plan.steps.size());
    std::map<std::string, ProfileRow> by_name;
    for (size_t i = 0; i < seconds.size(); ++i) {
        const Step& step = plan.steps[i];
        ProfileRow& row = by_name[kind_of(model, step)];
        const OpCost cost = step_cost(model, plan, step, attention_backward_products);
        ++row.count;
        row.seconds += seconds[i];
        row.flops += cost.flops;
        row.bytes += cost.bytes;
    }
    std::vector<ProfileRow> rows;
    for (auto& [name, row] : by_name) {
        row.name = name;
        rows.push_back(row);
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
    return rows;
}

std::string profile_table(const std::vector<ProfileRow>& rows, const DeviceInfo& device, DType dtype) {
    const double peak = dtype == DType::BF16 ? device.peak_flops_bf16 : device.peak_flops_fp32;
    double total = 0;
    for (const ProfileRow& row : rows) total += row.seconds;
    std::string text = fmt::format("{:<40} {:>6} {:>10} {:>7} {:>9} {:>9} {:>9}\n", "operation", "calls", "ms", "share",
                                   "GB/s", "TFLOP/s", "roofline");
    for (const ProfileRow& row : rows) {
        const double least =
            std::max(peak > 0 ? row.flops / peak : 0, device.bandwidth > 0 ? row.bytes / device.bandwidth : 0);
        // Without a bandwidth, only what computes much more than it moves can be judged.
        const bool known = peak > 0 && (device.bandwidth > 0 || row.flops > 20 * row.bytes);
        text += fmt::format("{:<40} {:>6} {:>10.3f} {:>6.1f}% {:>9.1f} {:>9.3f} {:>9}\n", row.name, row.count,
                            row.seconds * 1e3, 100 * row.seconds / total, row.bytes / row.seconds * 1e-9,
                            row.flops / row.seconds * 1e-12,
                            known ? fmt::format("{:.0f}%", 100 * least / row.seconds) : "n/a");
    }
    return text + fmt::format("{:<40} {:>6} {:>10.3f}\n", "all", "", total * 1e3);
}

std::string chrome_trace(const Model& model, const Plan& plan, const std::vector<double>& seconds) {
    CHECK(seconds.size() == plan.steps.size(), seconds.size(), plan.steps.size());
    nlohmann::ordered_json events = nlohmann::ordered_json::array();
    double start = 0;
    for (size_t i = 0; i < seconds.size(); ++i) {
        const Step& step = plan.steps[i];
        events.push_back({{"name", describe_step(model, step)},
                          {"cat", name_of(step.phase)},
                          {"ph", "X"},
                          {"ts", start * 1e6},
                          {"dur", seconds[i] * 1e6},
                          {"pid", 0},
                          {"tid", 0},
                          {"args", {{"step", i}, {"layer", step.layer}}}});
        start += seconds[i];
    }
    return nlohmann::ordered_json{{"displayTimeUnit", "ms"}, {"traceEvents", events}}.dump(1) + "\n";
}

}  // namespace llmc
