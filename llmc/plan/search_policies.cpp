#include "llmc/plan/search_policies.h"

#include "llmc/plan/policy.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

/// Whether the plan of a fixed policy may use what it does of host memory. What the table of places has there anyway is
/// not the search's to decide.
bool has_host_room(const PlanRequest& request, const Plan& plan, const SearchBudget& budget) {
    return request.places.on_host(Buffer::Boundaries) || plan.host_bytes <= budget.host_bytes;
}

}  // namespace

bool may_miss_the_best(const Model& model, const PlanRequest& request, const SearchBudget& budget) {
    return model.has_frozen() || request.places.on_host(Buffer::Boundaries) || budget.host_bytes > 0;
}

SearchResult or_fixed_policy(const Model& model, const PlanRequest& request, const OpTimes& times,
                             const SearchBudget& budget, SearchResult best) {
    for (const PolicyRow& policy : policies()) {
        SearchResult other;
        other.keep = policy.function(model);
        other.summary = fmt::format("as --recompute={}", policy.name);
        other.plan = make_training_plan(model, request, other.keep, "auto");
        if (!has_host_room(request, other.plan, budget)) continue;
        other.seconds = plan_seconds(times, other.plan);
        if (best.found && other.seconds >= best.seconds) continue;
        other.found = arena_within(other.plan, budget.device_bytes).fits;
        if (best.found && !other.found) continue;
        if (!other.found) other.smallest_bytes = make_layout(other.plan).arena_bytes;
        const bool first = best.plan.steps.empty();
        if (first || other.found || other.smallest_bytes < best.smallest_bytes) best = std::move(other);
    }
    return best;
}

bool any_policy_fits(const Model& model, const PlanRequest& request, const SearchBudget& budget) {
    return std::any_of(policies().begin(), policies().end(), [&](const PolicyRow& policy) {
        const Plan plan = make_training_plan(model, request, policy);
        return has_host_room(request, plan, budget) && arena_within(plan, budget.device_bytes).fits;
    });
}

}  // namespace llmc
