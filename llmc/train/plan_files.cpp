#include "llmc/train/plan_files.h"

#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/shallow_json.h"
#include "llmc/io/json_text.h"
#include "llmc/train/placement.h"
#include "llmc/train/plan_json.h"
#include "llmc/train/plan_output.h"
#include "llmc/train/run_folder.h"

#include <nlohmann/json.hpp>

#include <set>

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

/// The options that were given, of a run that goes on from its beginning. Null where that is not known any more.
nlohmann::ordered_json given_options(const Options& options) {
    std::set<std::string> given;
    for (const auto& [name, is_typed] : options.given) {
        if (options.resume.empty() || is_typed) given.insert(name);
    }
    if (options.resume.empty()) return given;
    const std::string before = find_run_folder(options.resume, "--resume") + "/" + kPlanFile;
    if (!path_exists(before)) return given;  // An import, of which nothing was given.
    const auto plan = nlohmann::ordered_json::parse(read_text(before), nullptr, /*allow_exceptions=*/false);
    if (!plan.is_object() || !plan.contains("run") || !plan["run"].contains("given")) return nullptr;
    for (const auto& name : plan["run"]["given"]) {
        if (name.is_string()) given.insert(name.get<std::string>());
    }
    return given;
}

void read_start(const nlohmann::ordered_json& run, PageRun* page) {
    page->first_step = run.at("first_step");
    page->loss_unit = run.at("loss_unit");
    if (run.at("given").is_null()) return;
    const std::set<std::string> given = run.at("given");
    for (PageOption& option : page->options) option.is_given = given.contains(option.name);
}

}  // namespace

std::string loss_unit(const RunDescription& run) {
    return run.data.tokenizer->name() == "bytes" ? "nats per byte" : "nats per token";
}

void write_plan_files(const RunDescription& run, int64_t first_step, const std::string& run_folder) {
    const PlannedMemory& memory = run.memory();
    const bool fits = fits_both(run.options, *run.backend, memory.total_bytes(), memory.host_bytes());
    try {
        nlohmann::ordered_json plan = plan_json(run.model, run.chosen, fits);
        plan["run"] = {
            {"first_step", first_step}, {"loss_unit", loss_unit(run)}, {"given", given_options(run.options)}};
        write_text_atomically(run_folder + "/" + kPlanFile, json_report(plan));
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
        if (plan.contains("run")) read_start(plan["run"], &read);
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
