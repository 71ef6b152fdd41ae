// The tables of plans at 60, 80 and 140 columns, against golden files; after an intended change UPDATE_GOLDEN=1 in the
// environment rewrites them.
#include "llmc/draw/plan_tables.h"

#include "llmc/draw/frontier_table.h"
#include "llmc/draw/what_fits_table.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <cstdlib>
#include <sstream>

namespace llmc {
namespace {

constexpr int kWidths[] = {60, 80, 140};
constexpr int64_t kGiB = int64_t{1} << 30;

void expect_golden(const std::string& name, int width, const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
    const std::string path = fmt::format("tests/golden/tables/{}_{}.txt", name, width);
    if (const char* update = std::getenv("UPDATE_GOLDEN"); update != nullptr && std::string(update) == "1") {
        std::ofstream(path, std::ios::binary) << text;
    }
    EXPECT_EQ(slurp(path), text) << path;
}

TEST(PlanTables, Levels) {
    const std::vector<LevelRow> rows = {
        {"none", 60 * kGiB, 62 * kGiB, 86 * kGiB, 0, 0, 1.234, false, "cross-entropy"},
        {"layer", 5 * kGiB, 7 * kGiB + kGiB / 3, 31 * kGiB, 0, 0.231, 1.5, true, "layer 47, backward of fc"},
        {"offload", 3 * kGiB, 5 * kGiB, 29 * kGiB, 2 * kGiB, 0.231, 1.51, true,
         "layer 47, weight gradient of attention_projection"},
        {"auto", 40 * kGiB, 41 * kGiB, 65 * kGiB, 0, 0.0132, 12.75, true, "head, zero gradients"}};
    for (const int width : kWidths) {
        expect_golden("levels", width, levels_table(rows, ReportUnits(false, rows[0].total_bytes), width));
    }
    const std::string full = levels_table(rows, ReportUnits(true, rows[0].total_bytes), 200);
    EXPECT_NE(full.find("92,341,796,864"), std::string::npos) << full;
}

TEST(PlanTables, Consumers) {
    std::vector<ConsumerColumn> columns;
    for (const char* policy : {"none", "layer", "sqrt", "act", "attn", "offload", "auto"}) {
        columns.push_back({policy, {{"parameters", 3 * kGiB}, {"layer internals", kGiB / 7}}});
    }
    columns[1].bytes.emplace_back("reductions of gradients", 200 << 20);
    for (const int width : kWidths) {
        expect_golden("consumers", width,
                      consumers_table("at the peak,", "total", columns, ReportUnits(false, 4 * kGiB), width));
    }
}

TEST(PlanTables, Decisions) {
    const std::vector<LayerDecision> rows = {{0, 3, "in-segment", false, 0, 0, 0.0213},
                                             {4, 20, "boundary", true, 0, kGiB / 40, 0.0113},
                                             {21, 21, "attn", false, kGiB / 9, 0, 0.004},
                                             {22, 31, "all", false, kGiB / 3, 0, 0}};
    for (const int width : kWidths) {
        const std::string text = decisions_table("auto", rows, ReportUnits(false, 4 * kGiB), width);
        expect_golden("decisions", width, text);
        for (const LayerDecision& row : rows) {
            EXPECT_NE(text.find("\n" + row.keeps + ": "), std::string::npos) << row.keeps << " is not explained";
        }
    }
}

TEST(PlanTables, Frontier) {
    Frontier frontier;
    frontier.level0_seconds = 1;
    frontier.points = {{kGiB, 1.5, "layers 0-10 in a segment of 11, layers 11-46 boundary, layer 47 attention"},
                       {30 * kGiB, 1, "layers 0-47 all"}};
    frontier.comparisons = {{"sqrt", "", kGiB, 1.6, frontier.points[0]},
                            {"sqrt", "none", 15 * kGiB, 1.6, frontier.points[0]},
                            {"none", "", 30 * kGiB, 1, frontier.points[1]}};
    frontier.host_policies = {{"offload", kGiB / 2, kGiB / 3, 1.2}};
    for (const int width : kWidths) {
        const std::string text = frontier_tables(frontier, 10 * kGiB, 24 * kGiB, ReportUnits(false, 40 * kGiB), width);
        expect_golden("frontier", width, text);
        EXPECT_NE(text.find("offload"), std::string::npos);
    }
}

TEST(PlanTables, WhatFits) {
    const auto largest = [](int64_t size, int64_t bytes, double speed, bool capped = false) {
        return Largest{size, 64, {size > 0, bytes, 0, speed}, capped};
    };
    const std::vector<WhatFitsRow> rows = {
        {"none", largest(0, 86 * kGiB, 0), largest(0, 86 * kGiB, 0), largest(2048, 22 * kGiB, 812)},
        {"layer", largest(12, 22 * kGiB, 2345.6), largest(13, 23 * kGiB, 2300), largest(9984, 23 * kGiB, 401)},
        {"auto", largest(3, 23 * kGiB, 2512), largest(130, 23 * kGiB, 99.5), largest(8192, 23 * kGiB, 100, true)}};
    for (const int width : kWidths) {
        const WhatFitsLimits limits = {23 * kGiB, 4096, 8192, 100'000'000, false, width};
        expect_golden("what_fits", width, what_fits_table(limits, rows) + what_fits_notes(limits, "a-model", rows));
        // A row that comes later stands below the others.
        const std::string later = what_fits_table(limits, {rows[2]}, /*has_head=*/false);
        EXPECT_NE(what_fits_table(limits, rows).find(later), std::string::npos) << later;
    }
}

TEST(PlanTables, ContextsWhereTheyDiffer) {
    PresetRow row = {
        "llama3-70b",           70553706496,           16384, {true, "", 102, 16384}, {false, "needs 1.1 TiB", 0},
        {true, "", 119, 32768}, {true, "", 118, 16384}};
    EXPECT_EQ(contexts_line(row, 120),
              "  102 at 16,384 in full, 119 at 32,768 with adapters, 118 at 16,384 on 4 bits\n");
    row.lora.seq_len = 16384;
    EXPECT_EQ(contexts_line(row, 120), "");
}

TEST(PlanTables, Presets) {
    const std::vector<PresetRow> rows = {
        {"smollm2-135m",
         134515008,
         8192,
         {true, "-r none -b 4", 41000},
         {true, "-r none -b 6", 64000},
         {true, "-r none -b 5", 52000},
         {true, "-r none -b 5 --base-format=nf4-double", 47000}},
        {"llama3-8b",
         8030261248,
         8192,
         {true, "-r layer -b 11 --offload=all", 1234},
         {true, "-r layer -b 2", 2100},
         {true, "-r layer -b 2", 1532},
         {true, "-r none -b 2", 1600}},
        {"llama2-13b",
         13015864320,
         4096,
         {false, "needs 97 GiB", 0},
         {false, "needs 40 GiB", 0},
         {true, "-r layer -b 1 --lora=16 --offload=parameters", 420},
         {true, "-r layer -b 4", 1390}},
        {"llama3.1-70b",
         70553706496,
         2048,
         {false, "needs 1.1 TiB", 0},
         {false, "needs 700 GiB", 0},
         {false, "needs 140 GiB", 0},
         {true, "-r layer -b 1 --lora=16 --base-format=nf4-double --offload=parameters", 77}}};
    for (const int width : kWidths) {
        expect_golden("presets", width, presets_table(rows, width));
        const std::string later = presets_table({rows[3]}, width, /*has_head=*/false);
        EXPECT_NE(presets_table(rows, width).find(later), std::string::npos) << later;
    }
}

}  // namespace
}  // namespace llmc
