// What a run folder keeps of the plan that its process runs: plan.json and timeline.svg, for `report` and for people.
#pragma once

#include "llmc/draw/run_page.h"
#include "llmc/train/run_description.h"

#include <cstdint>
#include <string>

namespace llmc {

constexpr const char* kPlanFile = "plan.json";
constexpr const char* kTimelineFile = "timeline.svg";

/// "nats per byte" or "nats per token": of the losses of a run.
std::string loss_unit(const RunDescription& run);

/// Writes both, for a process that began after `first_step` steps of the run. plan.json then has an object "run" more
/// than `plan --json`: that step, the unit of losses, and the options that were given, in this process or, where it
/// goes on with a run, in those before it. What cannot be written is a warning: nothing depends on them.
void write_plan_files(const RunDescription& run, int64_t first_step, const std::string& run_folder);

/// Reads them into what a page shows of a run, whose options are there already; without them, or where they are
/// damaged, that stays empty.
void read_plan_files(const std::string& run_folder, PageRun* page);

}  // namespace llmc
