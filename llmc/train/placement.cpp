#include "llmc/train/placement.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/plan/search.h"

#include <algorithm>
#include <set>

namespace llmc {
namespace {

/// From what costs least to everything.
const char* const kPlacements[] = {"none",
                                   "boundaries",
                                   "moments",
                                   "moments,masters",
                                   "moments,masters,boundaries",
                                   "moments,masters,gradients",
                                   "moments,masters,gradients,boundaries",
                                   "moments,masters,gradients,parameters",
                                   "all"};

/// The predicted time of a placement that fits; nothing of one that does not.
std::optional<double> seconds_if_fitting(const Options& options, const Model& model, const BatchShape& shape,
                                         const Backend& backend) {
    const PlanRequest request = request_for(options, model, shape, backend);
    const OpTimes times = nominal_times(options, model, request, backend);
    PlannedMemory memory;
    if (options.recompute == "auto") {
        const auto state = [&](Memory where) {
            return state_bytes(model, request.places, shape.T, request.parallel, /*training=*/true, where).total();
        };
        const int64_t room = memory_limit(options, backend.info()) - state(Memory::Device);
        if (!fits_both(options, backend, state(Memory::Device), state(Memory::Host))) return std::nullopt;
        SearchResult found = search_plan(model, request, times, room);
        if (!found.found) return std::nullopt;
        memory = with_memory(model, std::move(found.plan));
    } else {
        memory = with_memory(model, make_training_plan(model, request, find_policy(options.recompute)));
    }
    if (!fits_both(options, backend, memory.total_bytes(), memory.host_bytes())) return std::nullopt;
    return update_seconds(times, memory.plan);
}

}  // namespace

std::optional<Placement> fitting_placement(const Options& options, const Model& model, const BatchShape& shape,
                                           const Backend& backend) {
    std::optional<Placement> best;
    std::set<std::string> policies = {options.recompute};
    policies.erase("offload");  // A name for one of the others.
    if (options.recompute != "auto") policies.insert({"layer", "sqrt"});
    for (const std::string& policy : policies) {
        for (const char* offload : kPlacements) {
            Options other = options;
            other.recompute = policy, other.offload = offload;
            const std::optional<double> seconds = seconds_if_fitting(other, model, shape, backend);
            if (seconds && (!best || *seconds < best->step_seconds)) best = {policy, offload, *seconds};
        }
    }
    return best;
}

std::string placement_remedy(const Options& options, const Model& model, const BatchShape& shape,
                             const Backend& backend) {
    const std::optional<Placement> found = fitting_placement(options, model, shape, backend);
    if (!found) return "";
    std::string change;
    if (found->recompute != options.recompute) change += " --recompute=" + found->recompute;
    if (found->offload != options.offload) change += " --offload=" + found->offload;
    return fmt::format("take{} (predicted {:.0f} ms per step)", change, found->step_seconds * 1e3);
}

int64_t host_memory_limit(const Options& options) {
    const DeviceInfo host = host_memory();
    if (options.host_memory_budget.empty()) {
        return options.host_share > 0 ? options.host_share : host.available(options.host_sharing);
    }
    const int64_t whole = host.total(options.host_sharing);
    const int64_t budget = parse_budget("--host-memory-budget", options.host_memory_budget, whole);
    if (options.command == Command::Train && !options.dry_run && budget > whole) {
        fail_usage("--host-memory-budget={}: {} has {} in all; lower it, or leave it out to use what is free",
                   options.host_memory_budget, options.host_sharing > 1 ? "this rank's share of the host" : "this host",
                   format_bytes(whole));
    }
    return budget;
}

std::string host_memory_bound(const Options& options) {
    return options.host_memory_budget.empty() ? host_memory().limit(options.host_sharing) : "--host-memory-budget";
}

bool fits_both(const Options& options, const Backend& backend, int64_t device_bytes, int64_t host_bytes) {
    const DeviceInfo device = backend.info();
    if (device_bytes > memory_limit(options, device)) return false;
    if (host_bytes == 0) return true;
    if (host_bytes > host_memory_limit(options)) return false;
    const bool is_one_memory = !backend.on_gpu() && options.device_profile.empty();
    return !is_one_memory || device_bytes + host_bytes <= device.available(options.memory_sharing);
}

void require_host_memory(const Options& options, const Model& model, const PlannedMemory& memory,
                         const Backend& backend) {
    if (!options.host_memory_budget.empty()) host_memory_limit(options);  // May be refused.
    const bool fits_device = memory.total_bytes() <= memory_limit(options, backend.info());
    if (!fits_device || fits_both(options, backend, memory.total_bytes(), memory.host_bytes())) return;
    const int64_t limit = host_memory_limit(options);
    const bool together = memory.host_bytes() <= limit;
    const std::string bound = host_memory_bound(options);
    const std::string remedy = placement_remedy(options, model, memory.plan.shape, backend);
    fail("not enough host memory: --offload={} keeps {} there{}, {} {} available{}; {}", options.offload,
         format_bytes(memory.host_bytes()),
         together
             ? fmt::format(" besides the {} of the device, which is this host,", format_bytes(memory.total_bytes()))
             : "",
         format_bytes(together ? backend.info().available(options.memory_sharing) : limit), "are",
         bound.empty() ? "" : ", by " + bound,
         remedy.empty() ? "no placement of this model and batch fits: lower --batch-size" : remedy);
}

}  // namespace llmc
