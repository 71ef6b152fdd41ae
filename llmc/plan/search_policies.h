// The fixed policies beside the search (search.h): where it does not try every plan, one of them may be faster, or fit
// where nothing that it tried does.
#pragma once

#include "llmc/plan/search.h"

namespace llmc {

/// Whether the search over layers may miss the best plan: layers that differ in what trains are priced alike, too high
/// some of them, and of inputs in host memory only some choices are tried.
bool may_miss_the_best(const Model& model, const PlanRequest& request, const SearchBudget& budget);

/// `best`, or the plan of a fixed policy: if both are within the budget the faster one, if none is the smaller one.
/// `best` may have no plan.
SearchResult or_fixed_policy(const Model& model, const PlanRequest& request, const OpTimes& times,
                             const SearchBudget& budget, SearchResult best);

/// Whether a fixed policy stays within the budget.
bool any_policy_fits(const Model& model, const PlanRequest& request, const SearchBudget& budget);

}  // namespace llmc
