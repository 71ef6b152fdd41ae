#include "llmc/draw/frontier_table.h"

#include "llmc/base/units.h"
#include "llmc/draw/labels.h"

#include <spdlog/fmt/fmt.h>

namespace llmc {
namespace {

std::string ladder_table(const Frontier& frontier, int64_t state_bytes) {
    std::string text = fmt::format("{:>20} {:>20} {:>12} {:>12}  {}\n", "arena B", "total B", "predicted",
                                   "over level 0", "what survives the forward");
    for (const FrontierPoint& point : frontier.points) {
        text += fmt::format("{:>20} {:>20} {:>9.0f} ms {:>+11.1f}%  {}\n", format_count(point.arena_bytes),
                            format_count(state_bytes + point.arena_bytes), point.seconds * 1e3,
                            frontier.percent(point.seconds), point.kept);
    }
    return text;
}

std::string comparison_table(const Frontier& frontier, int64_t state_bytes) {
    std::string text = fmt::format("{:<24} {:>20} {:>20} {:>10} {:>10} {:>12}\n", "in the memory of", "arena B",
                                   "total B", "its time", "auto", "auto gains");
    for (const FrontierComparison& row : frontier.comparisons) {
        const std::string name =
            row.up_to.empty() ? level_label(row.policy) : fmt::format("  halfway {} - {}", row.policy, row.up_to);
        text += fmt::format("{:<24} {:>20} {:>20} {:>+9.1f}% {:>+9.1f}% {:>5.1f} points\n", name,
                            format_count(row.arena_bytes), format_count(state_bytes + row.arena_bytes),
                            frontier.percent(row.policy_seconds), frontier.percent(row.found.seconds),
                            frontier.gained_points(row));
    }
    return text + "(times over level 0; halfway, the fixed policy is the smaller one: the larger does not fit)\n";
}

}  // namespace

std::string frontier_tables(const Frontier& frontier, int64_t state_bytes) {
    return "the fastest plan within each budget\n" + ladder_table(frontier, state_bytes) + "\n" +
           comparison_table(frontier, state_bytes);
}

}  // namespace llmc
