// What `plan --ranks` says of communication: how much a rank sends per update, what of it the work does not hide, and
// the bandwidth between ranks that would hide it.
#pragma once

#include "llmc/draw/report_units.h"
#include "llmc/train/choose_plan.h"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace llmc {

struct Communication {
    int64_t bytes = 0;             ///< A rank sends per update (and receives as many).
    double link_bandwidth = 0;     ///< Bytes per second, assumed.
    double exposed_seconds = 0;    ///< Per update: what it takes longer than without communication.
    double bandwidth_to_hide = 0;  ///< See plan/cost.h.
};

Communication communication_of(const ChosenPlan& chosen);

/// A column per plan; `zero` as --zero says.
std::string communication_table(const std::vector<ChosenPlan>& plans, int64_t zero, const ReportUnits& units,
                                int width);

/// Fields of a plan's JSON object.
void add_communication(const ChosenPlan& chosen, nlohmann::ordered_json* json);

}  // namespace llmc
