#include "llmc/train/plan_files.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/shallow_json.h"
#include "llmc/io/json_text.h"
#include "llmc/train/placement.h"
#include "llmc/train/plan_json.h"
#include "llmc/train/plan_output.h"

#include <nlohmann/json.hpp>

namespace llmc {
namespace {

/// The plan's rows "name": bytes.
std::vector<std::pair<std::string, int64_t>> rows_in(const nlohmann::ordered_json& plan, const char* name) {
    std::vector<std::pair<std::string, int64_t>> rows;
    if (!plan.contains(name)) return rows;
    for (const auto& [consumer, bytes] : plan.at(name).items()) {
        if (bytes.get<int64_t>() > 0) rows.emplace_back(consumer, bytes.get<int64_t>());
    }
    return rows;
}

}  // namespace

void write_plan_files(const RunDescription& run, const std::string& run_folder) {
    const PlannedMemory& memory = run.memory();
    const bool fits = fits_both(run.options, *run.backend, memory.total_bytes(), memory.host_bytes());
    try {
        write_text_atomically(run_folder + "/" + kPlanFile, json_report(plan_json(run.model, run.chosen, fits)));
        write_text_atomically(run_folder + "/" + kTimelineFile, timeline_picture(run.model, memory));
    } catch (const Error& error) {
        spdlog::warn("{} and {} are not written: {}", kPlanFile, kTimelineFile, error.what());
    }
}

void read_plan_files(const std::string& run_folder, PageRun* page) {
    const std::string timeline = run_folder + "/" + kTimelineFile, path = run_folder + "/" + kPlanFile;
    if (!path_exists(path)) return;
    PageRun read = *page;
    try {
        const auto plan = nlohmann::ordered_json::parse(shallow_json(read_text(path)));
        read.predicted_ms = plan.at("predicted_step_ms");
        read.plan_words =
            fmt::format("--recompute={}: {}; {:+.1f} % FLOPs; activations peak at {}",
                        plan.at("recompute").get<std::string>(), plan.at("in_words").get<std::string>(),
                        100 * plan.at("extra_flops_ratio").get<double>(), plan.at("peak_position").get<std::string>());
        read.memory = rows_in(plan, "by_consumer");
        read.host_memory = rows_in(plan, "host_by_consumer");
        for (const auto& row : plan.at("layers")) {
            read.layers.push_back({row.at("first"), row.at("last"), row.at("keeps"), row.at("kept_bytes_each"),
                                   row.at("host_bytes_each"), row.at("repeated_ms_each")});
        }
    } catch (const nlohmann::json::exception&) {
        page->notes.push_back(fmt::format("{} is damaged", kPlanFile));
        return;
    }
    *page = std::move(read);
    if (path_exists(timeline)) page->timeline = read_text(timeline);
}

}  // namespace llmc
