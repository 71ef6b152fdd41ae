#include "llmc/train/plan_ranks.h"

#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <functional>
#include <limits>

namespace llmc {
namespace {

/// Bytes of the gather of parameters after an update.
int64_t update_gather_bytes(const Plan& plan) {
    const Parallel& parallel = plan.parallel;
    if (parallel.zero == 0 || parallel.zero == 3) return 0;
    return (parallel.ranks - 1) * plan.partition.shard_elements * size_of(plan.dtype);
}

std::string gigabytes_per_second(double bandwidth) {
    return std::isinf(bandwidth) ? "never" : fmt::format("{:.3g} GB/s", bandwidth / 1e9);
}

}  // namespace

Communication communication_of(const ChosenPlan& chosen) {
    const Plan& plan = chosen.memory.plan;
    Communication result;
    const int64_t others = plan.parallel.micro_batches - 1;
    result.bytes = others * communication_bytes(plan, plan.parallel.reduces_every_micro_batch()) +
                   communication_bytes(plan) + update_gather_bytes(plan);
    result.link_bandwidth = chosen.times.link_bandwidth;
    OpTimes free = chosen.times;
    free.link_bandwidth = std::numeric_limits<double>::infinity();
    free.link_latency = 0;
    const auto seconds = [&](const OpTimes& times) {
        return static_cast<double>(others) * plan_seconds(times, plan, plan.parallel.reduces_every_micro_batch()) +
               plan_seconds(times, plan) + update_gather_seconds(times, plan);
    };
    result.exposed_seconds = seconds(chosen.times) - seconds(free);
    result.bandwidth_to_hide = bandwidth_to_hide(chosen.times, plan);
    return result;
}

std::string communication_table(const std::vector<ChosenPlan>& plans) {
    const Parallel& parallel = plans.front().memory.plan.parallel;
    std::vector<Communication> all;
    for (const ChosenPlan& chosen : plans) all.push_back(communication_of(chosen));
    std::string text = fmt::format("\n{:<25}", fmt::format("{} ranks, ZeRO {}", parallel.ranks, parallel.zero));
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
