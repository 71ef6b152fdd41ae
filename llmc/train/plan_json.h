// A chosen plan as JSON: what `plan --json` prints of it, and what a run folder's plan.json has.
#pragma once

#include "llmc/train/choose_plan.h"

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace llmc {

/// Bytes by consumer on device and host, decisions by layer, predicted milliseconds per update; and whether it `fits`
/// both memories, as the caller says.
nlohmann::ordered_json plan_json(const Model& model, const ChosenPlan& chosen, bool fits);

/// The step of the plan that needs the most memory, in words.
std::string memory_peak(const Model& model, const PlannedMemory& memory);

}  // namespace llmc
