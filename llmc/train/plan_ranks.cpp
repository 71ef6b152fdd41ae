#include "llmc/train/plan_ranks.h"

#include "llmc/draw/text_table.h"

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

std::string communication_table(const std::vector<ChosenPlan>& plans, int64_t zero, const ReportUnits& units,
                                int width) {
    const Plan& first = plans.front().memory.plan;
    std::vector<Communication> all;
    std::vector<TextColumn> columns = {
        {.header = fmt::format("{} ranks, ZeRO {}", first.parallel.ranks, zero), .left = true}};
    for (const ChosenPlan& chosen : plans) {
        all.push_back(communication_of(chosen));
        columns.push_back({.header = chosen.memory.plan.policy});
    }
    TextTable table(std::move(columns));
    const auto row = [&](const std::string& name, const std::function<std::string(const Communication&)>& cell) {
        std::vector<std::string> cells = {name};
        for (const Communication& of_plan : all) cells.push_back(cell(of_plan));
        table.add_row(cells);
    };
    row(units.of_bytes("sent per update,"), [&](const Communication& c) { return units.bytes(c.bytes); });
    row(units.of_seconds("not hidden,"), [&](const Communication& c) { return units.seconds(c.exposed_seconds); });
    row("hidden to 2 % from", [](const Communication& c) { return gigabytes_per_second(c.bandwidth_to_hide); });
    return "\n" + table.blocks(width) +
           fmt::format("links: {} each way per rank, assumed\n", gigabytes_per_second(all.front().link_bandwidth));
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
