#include "llmc/draw/frontier_table.h"

#include "llmc/draw/labels.h"
#include "llmc/draw/text_table.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {
namespace {

/// What the cells of both tables have in common.
struct Sizes {
    int64_t state_bytes = 0, limit_bytes = 0;
    const ReportUnits& units;
    std::string total(int64_t arena) const { return units.bytes(state_bytes + arena); }
    std::string fits(int64_t arena) const { return state_bytes + arena <= limit_bytes ? "yes" : "no"; }
};

std::string percent(double value) { return fmt::format("{:+.1f}%", value); }

std::string ladder_table(const Frontier& frontier, const Sizes& sizes, int width) {
    const ReportUnits& units = sizes.units;
    TextTable table({{.header = "arena\n" + units.of_bytes("")},
                     {.header = "total\n" + units.of_bytes(""), .rank = 1},
                     {.header = "fits", .left = true},
                     {.header = "step\n" + units.of_seconds("")},
                     {.header = "over\nlevel 0"},
                     {.header = "what survives the forward", .left = true, .rank = 2, .prose = true}});
    for (const FrontierPoint& point : frontier.points) {
        table.add_row({units.bytes(point.arena_bytes), sizes.total(point.arena_bytes), sizes.fits(point.arena_bytes),
                       units.seconds(point.seconds), percent(frontier.percent(point.seconds)), point.kept});
    }
    return table.text(width);
}

std::string comparison_table(const Frontier& frontier, const Sizes& sizes, int width) {
    const ReportUnits& units = sizes.units;
    TextTable table({{.header = "in the memory of", .left = true},
                     {.header = "arena\n" + units.of_bytes(""), .rank = 2},
                     {.header = "total\n" + units.of_bytes(""), .rank = 1},
                     {.header = "fits", .left = true},
                     {.header = "its\ntime"},
                     {.header = "\nauto"},
                     {.header = "auto gains,\npoints", .rank = 3}});
    for (const FrontierComparison& row : frontier.comparisons) {
        const std::string name =
            row.up_to.empty() ? level_label(row.policy) : fmt::format("  halfway {} - {}", row.policy, row.up_to);
        table.add_row({name, units.bytes(row.arena_bytes), sizes.total(row.arena_bytes), sizes.fits(row.arena_bytes),
                       percent(frontier.percent(row.policy_seconds)), percent(frontier.percent(row.found.seconds)),
                       fmt::format("{:.1f}", frontier.gained_points(row))});
    }
    for (const HostPolicyPoint& row : frontier.host_policies) {
        table.add_row({level_label(row.policy), units.bytes(row.arena_bytes), sizes.total(row.arena_bytes),
                       sizes.fits(row.arena_bytes), percent(frontier.percent(row.seconds)), "-", "-"});
    }
    std::string text = table.text(width);
    text += wrapped("times over level 0; halfway, the fixed policy is the smaller one: the larger does not fit", width);
    for (const HostPolicyPoint& row : frontier.host_policies) {
        text += wrapped(fmt::format("{} takes {} {} of host memory besides", row.policy, units.bytes(row.host_bytes),
                                    units.of_bytes("")),
                        width);
    }
    return text;
}

}  // namespace

std::string frontier_tables(const Frontier& frontier, int64_t state_bytes, int64_t limit_bytes,
                            const ReportUnits& units, int width) {
    const Sizes sizes = {state_bytes, limit_bytes, units};
    return "the fastest plan within each budget\n" + ladder_table(frontier, sizes, width) + "\n" +
           comparison_table(frontier, sizes, width);
}

}  // namespace llmc
