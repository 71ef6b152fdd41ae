// The tables of `plan`: a line for every level with its memory and its time, bytes by what they are for, and what a
// level decides for every layer.
#pragma once

#include "llmc/draw/report_units.h"
#include "llmc/plan/decisions.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace llmc {

/// One level.
struct LevelRow {
    std::string policy;
    int64_t layer_activation_bytes = 0, arena_bytes = 0, total_bytes = 0, host_bytes = 0;
    double extra_flops_ratio = 0;
    double step_seconds = 0;
    bool fits = true;
    std::string peak;  ///< The step that needs the most.
};

/// Host memory has a column where a level takes some.
std::string levels_table(const std::vector<LevelRow>& rows, const ReportUnits& units, int width);

/// Bytes by what they are for, a column for every level, with their sum.
struct ConsumerColumn {
    std::string policy;
    std::vector<std::pair<std::string, int64_t>> bytes;
};
std::string consumers_table(const char* title, const char* total, const std::vector<ConsumerColumn>& columns,
                            const ReportUnits& units, int width);

/// What a level decides, and below it what the names mean.
std::string decisions_table(const std::string& policy, const std::vector<LayerDecision>& decisions,
                            const ReportUnits& units, int width);

}  // namespace llmc
