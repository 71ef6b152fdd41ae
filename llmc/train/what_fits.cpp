#include "llmc/train/what_fits.h"

#include "llmc/base/parallel_for.h"
#include "llmc/base/units.h"
#include "llmc/train/largest.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"
#include "llmc/train/setup.h"
#include "llmc/train/tile_options.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace llmc {
namespace {

constexpr int64_t kMostSequences = 1'000'000;  ///< What --batch-size takes.
constexpr int64_t kMostTokens = 100'000'000;   ///< What --seq-len takes.
constexpr int64_t kSequenceMultiple = 64;

}  // namespace

WhatFits::WhatFits(Options options, const Model& model, Backend& backend, int64_t limit)
    : options_(std::move(options)),
      model_(model),
      backend_(backend),
      limit_(limit),
      host_limit_(host_memory_limit(options_)),
      both_limit_(is_one_memory(options_, backend) ? std::optional(backend.info().available(options_.memory_sharing))
                                                   : std::nullopt) {
    // The small presets are as long as the run's sequences.
    const std::optional<ModelConfig> preset = find_preset(model.config.name);
    const bool as_run = preset.has_value() && preset->maxT == 0 && options_.max_seq_len == 0;
    published_length_ = as_run ? kMostTokens : model.config.maxT;
}

int64_t WhatFits::longest_sequence() const { return model_.config.is_rotary() ? kMostTokens : published_length_; }

Model WhatFits::model_for(int64_t T) const {
    ModelConfig config = model_.config;
    if (T > published_length_ || published_length_ == kMostTokens) config.maxT = T;
    return model_to_train(options_, config);
}

PlanRequest WhatFits::request(const Model& model, const BatchShape& shape) const {
    Options options = options_;
    options.batch_size = shape.B, options.seq_len = shape.T;
    options.total_batch_size = shape.N() * options.ranks;  // One micro-batch per update.
    return request_for(options, model, shape, backend_);
}

WhatFits::Found& WhatFits::found(const std::string& policy, const BatchShape& shape) const {
    return found_[{policy, shape.B, shape.T}];
}

bool WhatFits::fits(const std::string& policy, const BatchShape& shape) const {
    std::optional<bool>& known = found(policy, shape).fits;
    if (known) return *known;
    const Model model = model_for(shape.T);
    const std::vector<PlanRequest> requests = tiled_requests(options_, request(model, shape));
    known = std::any_of(requests.begin(), requests.end(),
                        [&](const PlanRequest& request) { return fits(policy, model, request); });
    return *known;
}

/// What the device has for the arena of a plan that keeps so many bytes in host memory; negative where that has no room
/// for them.
int64_t WhatFits::room(const Model& model, const PlanRequest& request, int64_t plan_on_host) const {
    const auto state = [&](Memory where) {
        return state_bytes(model, request.places, request.shape.T, request.parallel, /*training=*/true, where).total();
    };
    const int64_t on_host = state(Memory::Host) + plan_on_host, on_device = state(Memory::Device);
    if (on_host > host_limit_) return -1;
    const bool shares = both_limit_ && on_host > 0;
    return (shares ? std::min(limit_, *both_limit_ - on_host) : limit_) - on_device;
}

bool WhatFits::fits(const std::string& policy, const Model& model, const PlanRequest& request) const {
    const int64_t room = this->room(model, request, 0);
    if (room <= 0) return false;
    if (policy == "auto") {
        const OpTimes times = nominal_times(options_, model, request, backend_);
        // Whether all plans are alike to the host.
        const bool bounded = both_limit_ || host_limit_ < std::numeric_limits<int64_t>::max();
        if (bounded && request.places.on_host(Buffer::Boundaries)) return search_auto(model, request, times).fits;
        return search_fits(model, request, times, {room, room_for_inputs(options_, model, request, backend_)});
    }
    const Plan plan = make_training_plan(model, request, find_policy(policy));
    return arena_within(plan, this->room(model, request, plan.host_bytes)).fits;
}

double WhatFits::speed_of(const PlanRequest& request, const OpTimes& times, const Plan& plan) const {
    return static_cast<double>(request.parallel.ranks * request.shape.N()) / update_seconds(times, plan);
}

/// With the largest tiles that fit, or the smallest: others are no faster.
WhatFits::Way WhatFits::fixed_way(const std::string& policy, const Model& model, const BatchShape& shape) const {
    const std::vector<PlanRequest> requests = tiled_requests(options_, request(model, shape));
    const auto last = requests.end() - 1;
    const PlanRequest& request =
        *std::find_if(requests.begin(), last, [&](const PlanRequest& tiled) { return fits(policy, model, tiled); });
    const KeepSet keep = find_policy(policy).function(model);
    const Plan plan = make_training_plan(model, request, keep, policy);
    return {keep, request.tile_tokens, speed_of(request, operation_times(options_, model, request, backend_), plan),
            false};
}

WhatFits::OfAuto WhatFits::search_auto(const Model& model, const PlanRequest& request, const OpTimes& times) const {
    const int64_t room = this->room(model, request, 0);
    SearchResult result = search_plan(model, request, times,
                                      {room, room_for_inputs(options_, model, request, backend_)}, SearchEffort::Quick);
    const int64_t left = this->room(model, request, result.plan.host_bytes);
    const bool fits = result.found && (left == room || arena_within(result.plan, left).fits);
    return {std::move(result), fits};
}

WhatFits::Way WhatFits::auto_way(const Model& model, const BatchShape& shape) const {
    std::optional<Way> best;
    for (const PlanRequest& request : tiled_requests(options_, request(model, shape))) {
        const OpTimes times = operation_times(options_, model, request, backend_);
        OfAuto found = search_auto(model, request, times_to_choose_by(options_, model, request, times, backend_));
        const double speed = speed_of(request, times, found.result.plan);
        if (best && best->fits && (!found.fits || speed <= best->tokens_per_second)) continue;
        best = {std::move(found.result.keep), request.tile_tokens, speed, found.fits};
    }
    return *best;
}

const WhatFits::Way& WhatFits::way(const std::string& policy, const BatchShape& shape) const {
    Found& known = found(policy, shape);
    if (known.way) return *known.way;
    const Model model = model_for(shape.T);
    known.way = policy == "auto" ? auto_way(model, shape) : fixed_way(policy, model, shape);
    if (known.way->fits) known.fits = true;
    return *known.way;
}

double WhatFits::speed(const std::string& policy, const BatchShape& shape) const {
    const Way& found = way(policy, shape);
    return policy != "auto" || found.fits ? found.tokens_per_second : 0;
}

Fit WhatFits::measure(const std::string& policy, const BatchShape& shape) const {
    std::optional<Fit>& known = found(policy, shape).fit;
    if (known) return *known;
    const Way& found = way(policy, shape);
    const Model model = model_for(shape.T);
    PlanRequest request = this->request(model, shape);
    request.tile_tokens = found.tile_tokens;
    const auto state = [&](Memory memory) {
        return state_bytes(model, request.places, shape.T, request.parallel, true, memory).total();
    };
    const Plan plan = make_training_plan(model, request, found.keep, policy);
    const int64_t arena = make_layout(plan).arena_bytes, total = state(Memory::Device) + arena;
    known = {arena <= room(model, request, plan.host_bytes), total, state(Memory::Host) + plan.host_bytes,
             found.tokens_per_second};
    return *known;
}

int64_t WhatFits::guess(const std::string& policy, const BatchShape& unit, int64_t step) const {
    // Bytes grow evenly, so that two small plans say where the limit is about; auto's smallest is near sqrt's.
    const PolicyRow& row = find_policy(policy == "auto" ? "sqrt" : policy);
    const auto needed = [&](int64_t factor) {
        const BatchShape shape = step > 1 ? BatchShape{1, unit.T * factor} : BatchShape{factor, unit.T};
        const Model model = model_for(shape.T);
        const PlanRequest request = this->request(model, shape);
        const int64_t state = state_bytes(model, request.places, shape.T, request.parallel, true).total();
        return static_cast<double>(state + arena_within(make_training_plan(model, request, row), 0).bound_bytes);
    };
    // With as many tokens as the head and blocks have at a time, as far as a few sequences have them.
    constexpr int64_t kTokens = 16384, kMost = 8;
    const int64_t first = std::clamp<int64_t>(kTokens / unit.T, 1, kMost);
    const double near = needed(first), far = needed(2 * first);
    if (far <= near) return 0;
    const double more = (static_cast<double>(limit_) - near) / (far - near);
    return static_cast<int64_t>(std::clamp(static_cast<double>(first) * (1 + more), 1.0, 1e8)) * step;
}

int64_t WhatFits::batch(const std::string& policy, int64_t T) const {
    const auto known = batches_.find({policy, T});
    if (known != batches_.end()) return known->second;
    const auto fits_batch = [&](int64_t B) { return fits(policy, {B, T}); };
    if (!fits_batch(1)) return 0;
    return batches_[{policy, T}] = largest_size(1, kMostSequences, fits_batch, guess(policy, {1, T}, 1));
}

int64_t WhatFits::sequence(const std::string& policy) const {
    const int64_t cap = longest_sequence(), shortest = std::min(cap, kSequenceMultiple);
    const auto fits_length = [&](int64_t T) { return fits(policy, {1, T}); };
    if (!fits_length(shortest)) return 0;
    const int64_t near = std::min(cap, guess(policy, {1, shortest}, shortest));
    return largest_size(kSequenceMultiple, cap, fits_length, near);
}

int64_t WhatFits::fastest(const std::string& policy, int64_t T, const std::vector<int64_t>& others) const {
    const int64_t largest = batch(policy, T);
    std::vector<int64_t> tried;
    const auto attempt = [&](int64_t B) {
        const bool is_new = std::find(tried.begin(), tried.end(), B) == tried.end();
        if (B >= 1 && B <= largest && is_new) tried.push_back(B);
    };
    const auto best = [&] {
        return std::max_element(tried.begin(), tried.end(), [&](int64_t a, int64_t b) {
            return speed(policy, {a, T}) < speed(policy, {b, T});
        });
    };
    attempt(largest);
    for (const int64_t B : others) attempt(B);
    for (int64_t B = largest / 2, turn = 0; B >= 1 && turn < 4; B /= 2, ++turn) attempt(B);
    if (tried.empty()) return 0;
    // Once more around the best.
    const int64_t centre = *best();
    for (const int64_t B : {centre + centre / 4, centre - centre / 8}) attempt(B);
    while (!fits(policy, {*best(), T})) tried.erase(best());  // Where arenas have gaps; the largest does.
    return *best();
}

WhatFitsRow WhatFits::row(const std::string& policy, int64_t T, const std::vector<int64_t>& others) const {
    const auto of_batch = [&](int64_t size) {
        return Largest{size, 1, measure(policy, {std::max<int64_t>(1, size), T}), size == kMostSequences};
    };
    const int64_t cap = longest_sequence(), shortest = std::min(cap, kSequenceMultiple), length = sequence(policy);
    const Fit longest = measure(policy, {1, std::max(shortest, length)});
    return {policy,
            of_batch(fastest(policy, T, others)),
            of_batch(batch(policy, T)),
            {length, shortest, longest, length == cap}};
}

const WhatFits& PlacedFits::with(const std::string& offload) {
    const auto known = placed_.find(offload);
    if (known != placed_.end()) return known->second;
    Options options = options_;
    options.offload = offload;
    return placed_.try_emplace(offload, std::move(options), model_, backend_, limit_).first->second;
}

void PlacedFits::for_each(const std::vector<std::string>& offloads,
                          const std::function<void(size_t, const WhatFits&)>& work) {
    std::vector<const WhatFits*> fits;
    for (const std::string& offload : offloads) fits.push_back(&with(offload));
    const bool measures = options_.device_profile.empty();  // See operation_times().
    parallel_for(measures ? 1 : omp_get_max_threads(), static_cast<int64_t>(fits.size()),
                 [&](int64_t i, int) { work(static_cast<size_t>(i), *fits[static_cast<size_t>(i)]); });
}

std::optional<Options> with_what_fits(PlacedFits* placed) {
    const Options& options = placed->options();
    const bool may_place = !options.was_given("offload") || places_by_itself(options),
               may_cut = !options.was_given("seq-len");
    for (int64_t T = options.seq_len; T > 0; T /= 2) {
        const auto result = [&](const std::string& offload) {
            Options other = options;
            other.seq_len = T, other.offload = offload;
            return other;
        };
        // Where not even everything in host memory helps, no part of it does; shorter sequences are next.
        const auto is_hopeless = [&] {
            if (!may_cut || T / 2 < kShortestContext || !options.host_memory_budget.empty()) return false;
            return !placed->with(offloads_by_cost().back()).fits("layer", {1, T});
        };
        const std::string as_given = may_place ? "none" : options.offload;
        if (placed->with(as_given).fits("auto", {1, T})) return result(as_given);
        const std::vector<std::string> others =
            may_place && !is_hopeless() ? placements_to_try(options, placed->backend()) : std::vector<std::string>();
        std::vector<double> speeds(others.size());
        placed->for_each(others, [&](size_t i, const WhatFits& what_fits) {
            if (others[i] != as_given && what_fits.fits("layer", {1, T}))
                speeds[i] = what_fits.speed("layer", {what_fits.batch("layer", T), T});
        });
        const auto best = std::max_element(speeds.begin(), speeds.end());
        if (best != speeds.end() && *best > 0) return result(others[static_cast<size_t>(best - speeds.begin())]);
        if (!may_cut || T / 2 < kShortestContext) break;
    }
    return std::nullopt;
}

}  // namespace llmc
