// The frontier of memory against time: the fastest plan within each of a ladder of budgets, from the smallest arena
// there is to level 0's, and the fixed policies beside it: what a byte of memory buys.
#pragma once

#include "llmc/plan/search.h"

#include <string>
#include <vector>

namespace llmc {

struct FrontierPoint {
    int64_t arena_bytes = 0;
    double seconds = 0;  ///< Of a whole update.
    std::string kept;    ///< What survives, in words.
};

/// A fixed policy beside the fastest plan in `arena_bytes`.
struct FrontierComparison {
    std::string policy;
    std::string up_to;        ///< "": at the policy's own memory; else halfway between it and this larger policy.
    int64_t arena_bytes = 0;  ///< The memory of the comparison.
    double policy_seconds = 0;
    FrontierPoint found;
};

/// A policy with something in host memory: no search of the device's memory matches it, but it stands beside them.
struct HostPolicyPoint {
    std::string policy;
    int64_t arena_bytes = 0, host_bytes = 0;
    double seconds = 0;
};

struct Frontier {
    std::vector<FrontierPoint> points;            ///< More memory, less time.
    std::vector<FrontierComparison> comparisons;  ///< By memory; halfway ones between policies that each buy time.
    std::vector<HostPolicyPoint> host_policies;
    double level0_seconds = 0;
    double over_level0(double seconds) const { return seconds / level0_seconds - 1; }
    double percent(double seconds) const { return 100 * over_level0(seconds); }
    double gained_points(const FrontierComparison& row) const {
        return percent(row.policy_seconds) - percent(row.found.seconds);
    }
};

/// `rungs` budgets, each larger than the one below by the same factor, and the memory of every comparison. The times
/// are those of a whole update: request.parallel.micro_batches plans and the optimiser. Plans are chosen
/// by `choosing`, where it is given, and said to take what `times` say.
Frontier find_frontier(const Model& model, const PlanRequest& request, const OpTimes& times, int rungs,
                       const OpTimes* choosing = nullptr);

}  // namespace llmc
