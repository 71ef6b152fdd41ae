#include "llmc/plan/frontier.h"

#include "llmc/base/check.h"
#include "llmc/base/parallel_for.h"

#include <algorithm>
#include <cmath>
#include <omp.h>

namespace llmc {
namespace {

class FrontierSearch {
  public:
    FrontierSearch(const Model& model, const PlanRequest& request, const OpTimes& choosing, const OpTimes& times)
        : model_(model), request_(request), choosing_(choosing), times_(times) {}

    double seconds(const Plan& plan) const { return update_seconds(times_, plan); }

    int64_t smallest_arena() const { return search_plan(model_, request_, choosing_, 1).smallest_bytes; }

    FrontierPoint fastest_within(int64_t budget) const {
        const SearchResult result = search_plan(model_, request_, choosing_, budget);
        CHECK(result.found, budget, result.smallest_bytes);
        return {make_layout(result.plan).arena_bytes, seconds(result.plan), result.summary};
    }

    /// Every fixed policy beside the fastest plan in its memory, least memory first.
    std::vector<FrontierComparison> fixed_policies() const {
        std::vector<FrontierComparison> rows;
        for (const PolicyRow& policy : policies()) {
            if (policy.host_memory) continue;
            const Plan plan = make_training_plan(model_, request_, policy);
            const int64_t bytes = make_layout(plan).arena_bytes;
            rows.push_back({policy.name, "", bytes, seconds(plan), fastest_within(bytes)});
        }
        std::stable_sort(rows.begin(), rows.end(),
                         [](const auto& a, const auto& b) { return a.arena_bytes < b.arena_bytes; });
        return rows;
    }

    std::vector<HostPolicyPoint> host_policies() const {
        std::vector<HostPolicyPoint> points;
        for (const PolicyRow& policy : policies()) {
            if (!policy.host_memory) continue;
            const Plan plan = make_training_plan(model_, request_, policy);
            points.push_back({policy.name, make_layout(plan).arena_bytes, plan.host_bytes, seconds(plan)});
        }
        return points;
    }

    /// Where only the smaller of two neighbouring policies fits, and half of what the larger one adds lies idle.
    std::vector<FrontierComparison> with_halfway(const std::vector<FrontierComparison>& fixed) const {
        std::vector<FrontierComparison> rows;
        const FrontierComparison* smaller = nullptr;
        for (const FrontierComparison& row : fixed) {
            const bool buys_time = smaller == nullptr || row.policy_seconds < smaller->policy_seconds;
            if (smaller != nullptr && buys_time && row.arena_bytes > smaller->arena_bytes) {
                const int64_t bytes = smaller->arena_bytes + (row.arena_bytes - smaller->arena_bytes) / 2;
                rows.push_back({smaller->policy, row.policy, bytes, smaller->policy_seconds, fastest_within(bytes)});
            }
            if (buys_time) smaller = &row;
        }
        rows.insert(rows.end(), fixed.begin(), fixed.end());
        std::stable_sort(rows.begin(), rows.end(),
                         [](const auto& a, const auto& b) { return a.arena_bytes < b.arena_bytes; });
        return rows;
    }

  private:
    const Model& model_;
    const PlanRequest& request_;
    const OpTimes& choosing_;
    const OpTimes& times_;
};

/// Drops every point that another matches with no more memory.
void keep_best(std::vector<FrontierPoint>* points) {
    std::sort(points->begin(), points->end(), [](const FrontierPoint& a, const FrontierPoint& b) {
        return a.arena_bytes != b.arena_bytes ? a.arena_bytes < b.arena_bytes : a.seconds < b.seconds;
    });
    double best = INFINITY;
    std::erase_if(*points, [&](const FrontierPoint& point) {
        const bool matched = point.seconds >= best * (1 - 1e-12);
        best = std::min(best, point.seconds);
        return matched;
    });
}

}  // namespace

Frontier find_frontier(const Model& model, const PlanRequest& request, const OpTimes& times, int rungs,
                       const OpTimes* choosing) {
    const FrontierSearch search(model, request, choosing != nullptr ? *choosing : times, times);
    Frontier frontier;
    const std::vector<FrontierComparison> fixed = search.fixed_policies();
    for (const FrontierComparison& row : fixed) {
        if (row.policy == "none") frontier.level0_seconds = row.policy_seconds;
    }
    frontier.comparisons = search.with_halfway(fixed);
    frontier.host_policies = search.host_policies();
    const auto smallest = static_cast<double>(search.smallest_arena());
    const auto largest = static_cast<double>(fixed.back().arena_bytes);
    frontier.points.resize(static_cast<size_t>(rungs));
    parallel_for(omp_get_max_threads(), rungs, [&](int64_t i, int) {
        const double budget = smallest * std::pow(largest / smallest, static_cast<double>(i) / (rungs - 1));
        frontier.points[static_cast<size_t>(i)] = search.fastest_within(static_cast<int64_t>(std::ceil(budget)));
    });
    for (const FrontierComparison& row : frontier.comparisons) frontier.points.push_back(row.found);
    keep_best(&frontier.points);
    return frontier;
}

}  // namespace llmc
