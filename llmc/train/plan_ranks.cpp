#include "llmc/train/plan_ranks.h"

#include "llmc/base/units.h"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <functional>
#include <limits>

namespace llmc {
namespace {

std::string gigabytes_per_second(double bandwidth) {
    return std::isinf(bandwidth) ? "never" : fmt::format("{:.3g} GB/s", bandwidth / 1e9);
}

}  // namespace

Communication communication_of(const ChosenPlan& chosen) {
    const Plan& plan = chosen.memory.plan;
    Communication result;
    result.bytes = communication_bytes_per_update(plan);
    result.link_bandwidth = chosen.times.link_bandwidth;
    OpTimes free = chosen.times;
    free.link_bandwidth = std::numeric_limits<double>::infinity();
    free.link_latency = 0;
    result.exposed_seconds = update_seconds(chosen.times, plan) - update_seconds(free, plan);
    result.bandwidth_to_hide = bandwidth_to_hide(chosen.times, plan);
    return result;
}

std::string communication_table(const std::vector<ChosenPlan>& plans, int64_t zero) {
    const Plan& first = plans.front().memory.plan;
    std::vector<Communication> all;
    for (const ChosenPlan& chosen : plans) all.push_back(communication_of(chosen));
    std::string text = fmt::format("\n{:<25}", fmt::format("{} ranks, ZeRO {}", first.parallel.ranks, zero));
    for (const ChosenPlan& chosen : plans) text += fmt::format(" {:>18}", chosen.memory.plan.policy);
    const auto row = [&](const char* name, const std::function<std::string(const Communication&)>& cell) {
        text += fmt::format("\n{:<25}", name);
        for (const Communication& of_plan : all) text += fmt::format(" {:>18}", cell(of_plan));
    };
    row("sent per update, B", [](const Communication& c) { return format_count(c.bytes); });
    row("not hidden, ms", [](const Communication& c) { return fmt::format("{:.1f}", 1e3 * c.exposed_seconds); });
    row("hidden to 2 % from", [](const Communication& c) { return gigabytes_per_second(c.bandwidth_to_hide); });
    return text +
           fmt::format("\nlinks: {} each way per rank, assumed\n", gigabytes_per_second(all.front().link_bandwidth));
}

void add_communication(const ChosenPlan& chosen, nlohmann::ordered_json* json) {
    const Communication communication = communication_of(chosen);
    (*json)["communication_bytes_per_update"] = communication.bytes;
    (*json)["link_bytes_per_second"] = communication.link_bandwidth;
    (*json)["exposed_communication_ms"] = 1e3 * communication.exposed_seconds;
    const double hides = communication.bandwidth_to_hide;
    (*json)["hiding_bytes_per_second"] = std::isinf(hides) ? nlohmann::ordered_json() : nlohmann::ordered_json(hides);
}

}  // namespace llmc
