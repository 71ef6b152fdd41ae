#include "llmc/train/what_fits.h"

#include "llmc/base/units.h"
#include "llmc/plan/search.h"
#include "llmc/train/largest.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"
#include "llmc/train/setup.h"
#include "llmc/train/tile_options.h"

#include <algorithm>
#include <set>
#include <utility>

namespace llmc {
namespace {

constexpr int64_t kMostSequences = 1'000'000;  ///< What --batch-size takes.
constexpr int64_t kMostTokens = 100'000'000;   ///< What --seq-len takes.
constexpr int64_t kSequenceMultiple = 64;

}  // namespace

WhatFits::WhatFits(Options options, const Model& model, Backend& backend, int64_t limit)
    : options_(std::move(options)), model_(model), backend_(backend), limit_(limit) {
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

bool WhatFits::fits(const std::string& policy, const BatchShape& shape) const {
    const Model model = model_for(shape.T);
    const std::vector<PlanRequest> requests = tiled_requests(options_, request(model, shape));
    return std::any_of(requests.begin(), requests.end(),
                       [&](const PlanRequest& request) { return fits(policy, model, request); });
}

bool WhatFits::fits(const std::string& policy, const Model& model, const PlanRequest& request) const {
    const auto state = [&](Memory memory) {
        return state_bytes(model, request.places, request.shape.T, request.parallel, true, memory).total();
    };
    const int64_t room = limit_ - state(Memory::Device);
    if (room <= 0) return false;
    if (policy == "auto") {
        if (!options_.host_memory_budget.empty() && state(Memory::Host) > host_memory_limit(options_)) return false;
        return search_fits(model, request, nominal_times(options_, model, request, backend_),
                           {room, room_for_inputs(options_, model, request, backend_)});
    }
    const Plan plan = make_training_plan(model, request, find_policy(policy));
    const int64_t on_host = state(Memory::Host) + plan.host_bytes;
    if (!options_.host_memory_budget.empty() && on_host > host_memory_limit(options_)) return false;
    return arena_within(plan, room).fits;
}

Fit WhatFits::measure(const std::string& policy, const BatchShape& shape) const {
    const Model model = model_for(shape.T);
    std::optional<Fit> best;
    for (const PlanRequest& request : tiled_requests(options_, request(model, shape))) {
        const Fit fit = measure(policy, model, request);
        if (!best || !best->fits || (fit.fits && fit.tokens_per_second > best->tokens_per_second)) best = fit;
        if (best->fits && policy != "auto") break;  // Smaller tiles are no faster.
    }
    return *best;
}

Fit WhatFits::measure(const std::string& policy, const Model& model, const PlanRequest& request) const {
    const OpTimes times = operation_times(options_, model, request, backend_);
    const auto state = [&](Memory memory) {
        return state_bytes(model, request.places, request.shape.T, request.parallel, true, memory).total();
    };
    int64_t total = state(Memory::Device);
    Plan plan;
    if (policy == "auto") {
        SearchResult result =
            search_plan(model, request, times_to_choose_by(options_, model, request, times, backend_),
                        {limit_ - total, room_for_inputs(options_, model, request, backend_)}, SearchEffort::Quick);
        total += result.found ? result.layout.arena_bytes : result.smallest_bytes;
        plan = std::move(result.plan);
    } else {
        plan = make_training_plan(model, request, find_policy(policy));
        total += make_layout(plan).arena_bytes;
    }
    const int64_t on_host = state(Memory::Host) + plan.host_bytes;
    const bool has_host = options_.host_memory_budget.empty() || on_host <= host_memory_limit(options_);
    const auto tokens = static_cast<double>(request.parallel.ranks * request.shape.N());
    return {total <= limit_ && has_host, total, on_host, tokens / update_seconds(times, plan)};
}

double WhatFits::speed(const std::string& policy, const BatchShape& shape) const {
    const Model model = model_for(shape.T);
    const PlanRequest request = this->request(model, shape);
    const OpTimes times = operation_times(options_, model, request, backend_);
    return static_cast<double>(request.parallel.ranks * shape.N()) /
           update_seconds(times, make_training_plan(model, request, find_policy(policy)));
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
    constexpr int64_t kNear = 8, kFar = 16;
    const double near = needed(kNear), far = needed(kFar);
    if (far <= near) return 0;
    const double more = (static_cast<double>(limit_) - near) / (far - near);
    return static_cast<int64_t>(std::clamp(kNear + more * (kFar - kNear), 1.0, 1e8)) * step;
}

Largest WhatFits::batch(const std::string& policy, int64_t T) const {
    const int64_t size = largest_size(
        1, kMostSequences,
        [&](int64_t B) {
            return fits(policy, {B, T});
        },
        guess(policy, {1, T}, 1));
    return {size, 1, measure(policy, {std::max<int64_t>(1, size), T}), size == kMostSequences};
}

Largest WhatFits::sequence(const std::string& policy) const {
    const int64_t cap = longest_sequence(), shortest = std::min(cap, kSequenceMultiple);
    const int64_t near = std::min(cap, guess(policy, {1, shortest}, shortest));
    const int64_t size = largest_size(
        kSequenceMultiple, cap,
        [&](int64_t T) {
            return fits(policy, {1, T});
        },
        near);
    return {size, shortest, measure(policy, {1, std::max(shortest, size)}), size == cap};
}

Largest WhatFits::fastest(const std::string& policy, int64_t T, const Largest& largest,
                          const std::vector<int64_t>& others) const {
    if (largest.size == 0) return largest;
    std::vector<Largest> found = {largest};
    std::set<int64_t> tried = {largest.size};
    const auto faster = [](const Largest& a, const Largest& b) {
        return a.plan.tokens_per_second < b.plan.tokens_per_second;
    };
    const auto best = [&] { return std::max_element(found.begin(), found.end(), faster); };
    const auto attempt = [&](int64_t B) {
        if (B < 1 || B > largest.size || !tried.insert(B).second) return;
        Fit fit = {true, 0, 0, 0};
        if (policy == "auto") {
            fit = measure(policy, {B, T});
        } else {
            fit.tokens_per_second = speed(policy, {B, T});
        }
        if (fit.fits) found.push_back({B, 1, fit, false});
    };
    for (const int64_t B : others) attempt(B);
    for (int64_t B = largest.size / 2, turn = 0; B >= 1 && turn < 4; B /= 2, ++turn) attempt(B);
    // Once more around the best.
    const int64_t centre = best()->size;
    for (const int64_t B : {centre + centre / 4, centre - centre / 8}) attempt(B);
    while (best()->plan.total_bytes == 0) {  // Of a level, it is laid out only now.
        best()->plan = measure(policy, {best()->size, T});
        if (!best()->plan.fits) found.erase(best());
    }
    return *best();
}

WhatFitsRow WhatFits::row(const std::string& policy, int64_t T, const std::vector<int64_t>& others) const {
    const Largest most = batch(policy, T);
    return {policy, fastest(policy, T, most, others), most, sequence(policy)};
}

std::optional<Options> with_what_fits(const Options& options, const Model& model, Backend& backend, int64_t limit) {
    const bool may_place = !options.was_given("offload") || places_by_itself(options),
               may_cut = !options.was_given("seq-len");
    for (int64_t T = options.seq_len; T > 0; T /= 2) {
        std::optional<Options> best;
        double most = 0;
        const auto placed = [&](const std::string& offload) {
            Options other = options;
            other.seq_len = T;
            if (may_place) other.offload = offload;
            return other;
        };
        // Where not even everything in host memory helps, no part of it does; shorter sequences are next.
        const auto is_hopeless = [&] {
            if (!may_cut || T / 2 < kShortestContext || !options.host_memory_budget.empty()) return false;
            return !WhatFits(placed(offloads_by_cost().back()), model, backend, limit).fits("layer", {1, T});
        };
        for (const std::string& offload : offloads_by_cost()) {
            if (!may_place && offload != "none") break;
            const Options other = placed(offload);
            const WhatFits what_fits(other, model, backend, limit);
            const bool is_as_given = !may_place || offload == "none";
            if (is_as_given && what_fits.fits("auto", {1, T})) return other;
            if (is_as_given && is_hopeless()) break;
            if (is_as_given || !what_fits.fits("layer", {1, T})) continue;
            const Largest batch = what_fits.batch("layer", T);
            if (batch.plan.tokens_per_second <= most) continue;
            most = batch.plan.tokens_per_second, best = other;
        }
        if (best) return best;
        if (!may_cut || T / 2 < kShortestContext) break;
    }
    return std::nullopt;
}

}  // namespace llmc
