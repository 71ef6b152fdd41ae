#include "llmc/draw/plan_tables.h"

#include "llmc/draw/labels.h"
#include "llmc/draw/text_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {

std::string levels_table(const std::vector<LevelRow>& rows, const ReportUnits& units, int width) {
    const bool has_host = std::any_of(rows.begin(), rows.end(), [](const LevelRow& row) { return row.host_bytes > 0; });
    std::vector<TextColumn> columns = {{.header = "recompute", .left = true},
                                       {.header = "layers\n" + units.of_bytes(""), .rank = 3},
                                       {.header = "arena\n" + units.of_bytes(""), .rank = 2},
                                       {.header = "total\n" + units.of_bytes("")},
                                       {.header = "fits", .left = true}};
    if (has_host) columns.push_back({.header = "host\n" + units.of_bytes(""), .rank = 1});
    columns.push_back({.header = "FLOPs", .rank = 1});
    columns.push_back({.header = "step\n" + units.of_seconds("")});
    columns.push_back({.header = "peak at", .left = true, .rank = 4, .prose = true});
    TextTable table(std::move(columns));
    for (const LevelRow& row : rows) {
        std::vector<std::string> cells = {level_label(row.policy), units.bytes(row.layer_activation_bytes),
                                          units.bytes(row.arena_bytes), units.bytes(row.total_bytes),
                                          row.fits ? "yes" : "no"};
        if (has_host) cells.push_back(units.bytes(row.host_bytes));
        cells.push_back(fmt::format("{:+.1f}%", 100 * row.extra_flops_ratio));
        cells.push_back(units.seconds(row.step_seconds));
        cells.push_back(row.peak);
        table.add_row(cells);
    }
    return table.text(width);
}

std::string consumers_table(const char* title, const char* total, const std::vector<ConsumerColumn>& columns,
                            const ReportUnits& units, int width) {
    std::vector<std::string> names;
    for (const ConsumerColumn& column : columns) {
        for (const auto& [name, bytes] : column.bytes) {
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
    }
    std::vector<TextColumn> of_table = {{.header = units.of_bytes(title), .left = true}};
    for (const ConsumerColumn& column : columns) of_table.push_back({.header = column.policy});
    TextTable table(std::move(of_table));
    std::vector<int64_t> sums(columns.size(), 0);
    for (const std::string& name : names) {
        std::vector<std::string> cells = {name};
        for (size_t i = 0; i < columns.size(); ++i) {
            int64_t bytes = 0;
            for (const auto& [its_name, its_bytes] : columns[i].bytes) bytes += its_name == name ? its_bytes : 0;
            cells.push_back(units.bytes(bytes));
            sums[i] += bytes;
        }
        table.add_row(cells);
    }
    std::vector<std::string> cells = {total};
    for (const int64_t sum : sums) cells.push_back(units.bytes(sum));
    table.add_row(cells);
    return table.blocks(width);
}

std::string decisions_table(const std::string& policy, const std::vector<LayerDecision>& decisions,
                            const ReportUnits& units, int width) {
    const bool has_host =
        std::any_of(decisions.begin(), decisions.end(), [](const LayerDecision& row) { return row.host_bytes > 0; });
    std::vector<TextColumn> columns = {{.header = "layers", .left = true},
                                       {.header = "keeps", .left = true},
                                       {.header = "kept, each\n" + units.of_bytes("")},
                                       {.header = "repeats, each\n" + units.of_seconds("")}};
    if (has_host) columns.push_back({.header = "to host, each\n" + units.of_bytes("")});
    columns.push_back({.header = "kept, all\n" + units.of_bytes(""), .rank = 1});
    columns.push_back({.header = "repeats, all\n" + units.of_seconds(""), .rank = 2});
    TextTable table(std::move(columns));
    for (const LayerDecision& row : decisions) {
        std::vector<std::string> cells = {
            row.count() > 1 ? fmt::format("{}-{}", row.first, row.last) : fmt::format("{}", row.first), row.keeps,
            units.bytes(row.kept_bytes), units.seconds(row.repeated_seconds)};
        if (has_host) cells.push_back(units.bytes(row.host_bytes));
        cells.push_back(units.bytes(row.count() * row.kept_bytes));
        cells.push_back(units.seconds(row.count() * row.repeated_seconds));
        table.add_row(cells);
    }
    std::string text = fmt::format("{}: what each layer keeps for its backward\n", policy) + table.text(width);
    for (const ModeWords& mode : decision_words(decisions)) {
        text += wrapped(fmt::format("{}: {}", mode.name, mode.words), width, 4);
    }
    if (!decisions.empty() && decisions.front().tile_tokens > 0) {
        text += wrapped(fmt::format("tiled: what they do not keep, and gradients beside it, for {} tokens at a time",
                                    decisions.front().tile_tokens),
                        width, 4);
    }
    if (has_host) {
        text += wrapped("to host: its input is copied out beside the forward, and back beside the backward above it",
                        width, 4);
    }
    return text;
}

}  // namespace llmc
