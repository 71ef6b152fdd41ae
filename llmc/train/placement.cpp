#include "llmc/train/placement.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/plan/search.h"
#include "llmc/train/offload.h"
#include "llmc/train/remedy.h"
#include "llmc/train/tile_options.h"

#include <algorithm>
#include <limits>
#include <set>

namespace llmc {
namespace {

/// The request of a run, what of it is always there, and what the device leaves to the arena.
struct Room {
    PlanRequest request;
    int64_t on_device = 0, on_host = 0, arena = 0;
    int64_t for_inputs = 0;  ///< Of the host, to a search.
};

Room room_of(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend) {
    Room room;
    room.request = request_for(options, model, shape, backend);
    const auto state = [&](Memory where) {
        const PlanRequest& request = room.request;
        return state_bytes(model, request.places, shape.T, request.parallel, /*training=*/true, where).total();
    };
    room.on_device = state(Memory::Device), room.on_host = state(Memory::Host);
    room.arena = memory_limit(options, backend.info()) - room.on_device;
    room.for_inputs = room_for_inputs(options, model, room.request, backend);
    return room;
}

/// The options with every placement that --offload=auto may take.
std::vector<Options> placed_options(const Options& options, const Backend& backend) {
    std::vector<Options> all;
    for (const std::string& list : placements_to_try(options, backend)) {
        all.push_back(options);
        all.back().offload = list;
    }
    return all;
}

/// The options with every size of tiles that --tile-tokens=auto may take.
std::vector<Options> tiled_options(const Options& options, const Model& model, const BatchShape& shape,
                                   const Backend& backend) {
    std::vector<Options> all;
    for (const PlanRequest& request : tiled_requests(options, request_for(options, model, shape, backend))) {
        all.push_back(options);
        all.back().tile_tokens = request.tile_tokens > 0 ? std::to_string(request.tile_tokens) : "none";
    }
    return all;
}

/// Of those that fit.
std::optional<double> least_seconds(const std::vector<Options>& all, const Model& model, const BatchShape& shape,
                                    const Backend& backend) {
    std::optional<double> least;
    for (const Options& each : all) {
        const std::optional<double> seconds = seconds_if_fitting(each, model, shape, backend);
        if (seconds && (!least || *seconds < *least)) least = seconds;
    }
    return least;
}

}  // namespace

const std::vector<std::string>& offloads_by_cost() {
    static const std::vector<std::string> lists = {"none",
                                                   "boundaries",
                                                   "moments",
                                                   "moments,masters",
                                                   "moments,masters,boundaries",
                                                   "moments,masters,gradients",
                                                   "moments,masters,gradients,boundaries",
                                                   "moments,masters,gradients,parameters",
                                                   "all"};
    return lists;
}

std::vector<std::string> placements_to_try(const Options& options, const Backend& backend) {
    if (is_one_memory(options, backend)) return {"none"};
    std::vector<std::string> lists;
    std::set<std::string> known;
    for (const std::string& list : offloads_by_cost()) {
        Options placed = options;
        placed.offload = list;
        const Places places = places_of(placed, backend);
        if (known.insert(offload_of(places)).second) lists.push_back(list);
    }
    return lists;
}

std::optional<double> seconds_if_fitting(const Options& options, const Model& model, const BatchShape& shape,
                                         const Backend& backend) {
    if (places_by_itself(options)) return least_seconds(placed_options(options, backend), model, shape, backend);
    if (chooses_tiles(options))
        return least_seconds(tiled_options(options, model, shape, backend), model, shape, backend);
    const Room room = room_of(options, model, shape, backend);
    if (!fits_both(options, backend, room.on_device, room.on_host)) return std::nullopt;
    const OpTimes times = nominal_times(options, model, room.request, backend);
    PlannedMemory memory;
    if (options.recompute == "auto") {
        SearchResult found = search_plan(model, room.request, times, {room.arena, room.for_inputs});
        if (!found.found) return std::nullopt;
        memory = with_memory(model, std::move(found.plan));
    } else {
        Plan plan = make_training_plan(model, room.request, find_policy(options.recompute));
        if (!arena_within(plan, room.arena).fits) return std::nullopt;
        memory = with_memory(model, std::move(plan));
    }
    if (!fits_both(options, backend, memory.total_bytes(), memory.host_bytes())) return std::nullopt;
    return update_seconds(times, memory.plan);
}

bool is_fitting(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend) {
    const auto fits_one = [&](const std::vector<Options>& all) {
        return std::any_of(all.begin(), all.end(),
                           [&](const Options& each) { return is_fitting(each, model, shape, backend); });
    };
    if (places_by_itself(options)) return fits_one(placed_options(options, backend));
    if (chooses_tiles(options)) return fits_one(tiled_options(options, model, shape, backend));
    const Room room = room_of(options, model, shape, backend);
    if (!fits_both(options, backend, room.on_device, room.on_host)) return false;
    const bool one_memory = is_one_memory(options, backend);
    if (one_memory && room.on_host > 0) return seconds_if_fitting(options, model, shape, backend).has_value();
    if (options.recompute == "auto") {
        const bool goes_to_host = room.request.places.on_host(Buffer::Boundaries);
        if (goes_to_host) return seconds_if_fitting(options, model, shape, backend).has_value();
        return search_fits(model, room.request, nominal_times(options, model, room.request, backend),
                           {room.arena, room.for_inputs});
    }
    const Plan plan = make_training_plan(model, room.request, find_policy(options.recompute));
    const int64_t on_host = room.on_host + plan.host_bytes;
    if (on_host > 0 && on_host > host_memory_limit(options)) return false;
    if (one_memory && on_host > 0) return seconds_if_fitting(options, model, shape, backend).has_value();
    return arena_within(plan, room.arena).fits;
}

std::optional<Placement> fitting_placement(const Options& options, const Model& model, const BatchShape& shape,
                                           const Backend& backend) {
    std::optional<Placement> best;
    std::set<std::string> policies = {options.recompute};
    policies.erase("offload");  // A name for one of the others.
    if (options.recompute != "auto") policies.insert({"layer", "sqrt"});
    for (const std::string& policy : policies) {
        for (const std::string& offload : offloads_by_cost()) {
            Options other = options;
            other.recompute = policy, other.offload = offload;
            const std::optional<double> seconds = seconds_if_fitting(other, model, shape, backend);
            if (seconds && (!best || *seconds < best->step_seconds)) best = {policy, offload, *seconds};
        }
    }
    return best;
}

int64_t host_memory_limit(const Options& options) {
    const DeviceInfo host = host_memory();
    if (options.host_memory_budget.empty()) {
        if (!options.device_profile.empty()) return std::numeric_limits<int64_t>::max();
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

bool is_one_memory(const Options& options, const Backend& backend) {
    return !backend.on_gpu() && options.device_profile.empty();
}

bool fits_both(const Options& options, const Backend& backend, int64_t device_bytes, int64_t host_bytes) {
    const DeviceInfo device = backend.info();
    if (device_bytes > memory_limit(options, device)) return false;
    if (host_bytes == 0) return true;
    if (host_bytes > host_memory_limit(options)) return false;
    return !is_one_memory(options, backend) || device_bytes + host_bytes <= device.available(options.memory_sharing);
}

void require_host_memory(const Options& options, const Model& model, const PlannedMemory& memory,
                         const Backend& backend) {
    if (!options.host_memory_budget.empty()) host_memory_limit(options);  // May be refused.
    const bool fits_device = memory.total_bytes() <= memory_limit(options, backend.info());
    if (!fits_device || fits_both(options, backend, memory.total_bytes(), memory.host_bytes())) return;
    const int64_t limit = host_memory_limit(options);
    const bool together = memory.host_bytes() <= limit;
    const std::string bound = host_memory_bound(options);
    fail("not enough host memory: --offload={} keeps {} there{}, {} {} available{}; {}", options.offload,
         format_bytes(memory.host_bytes()),
         together ? fmt::format(" besides the {} of the device, which is this host", format_bytes(memory.total_bytes()))
                  : "",
         format_bytes(together ? backend.info().available(options.memory_sharing) : limit), "are",
         bound.empty() ? "" : ", by " + bound, advice(options, model, memory.plan.shape, backend));
}

}  // namespace llmc
