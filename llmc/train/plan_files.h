// What a run folder keeps of the plan that its process runs: plan.json and timeline.svg, for `report` and for people.
#pragma once

#include "llmc/draw/run_page.h"
#include "llmc/train/run_description.h"

#include <string>

namespace llmc {

constexpr const char* kPlanFile = "plan.json";
constexpr const char* kTimelineFile = "timeline.svg";

/// Writes both. What cannot be written is a warning: nothing depends on them.
void write_plan_files(const RunDescription& run, const std::string& run_folder);

/// Reads them into what a page shows of a run; without them, or where they are damaged, that stays empty.
void read_plan_files(const std::string& run_folder, PageRun* page);

}  // namespace llmc
