// Models, times and the brute force that the tests of the search hold it against.
#pragma once

#include "llmc/plan/logits_chunk.h"
#include "llmc/plan/search.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace llmc::search_cases {

inline Model small_model(Family family, int64_t L) {
    ModelConfig config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    config.L = L, config.maxT = 64;
    return make_model(config);
}

inline PlanRequest request_for(const Model& model, BatchShape shape = {4, 64}, int ranks = 1, int zero = 0) {
    PlanRequest request;
    request.shape = shape;
    request.logits_chunk_tokens = default_logits_chunk(model, shape, "cpu");
    request.parallel.ranks = ranks;
    request.places = places_of_zero(zero, ranks, DType::F32);
    return request;
}

/// Slow enough that every operation costs something, fast enough that FLOPs and bytes both matter. Ranks are linked so
/// well that what a plan takes is the sum of its operations.
inline OpTimes times_for(const Model& model, const PlanRequest& request) {
    DeviceProfile device = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};
    device.link_bandwidth = std::numeric_limits<double>::infinity();
    OpTimes times = analytic_times(model, request.shape, request.places, device);
    times.link_latency = 0;
    return times;
}

struct Outcome {
    int64_t bytes;
    double seconds;
    int64_t host_bytes = 0;
};

/// Every keep-set there is: each layer in one of the modes or with its input dropped, and every choice of boundaries
/// held on every walk; with host memory every choice of inputs that go there, too.
class BruteForce {
  public:
    BruteForce(const Model& model, const PlanRequest& request, const OpTimes& times, bool with_host = false)
        : model_(model),
          request_(request),
          times_(times),
          modes_(layer_modes(model)),
          L_(static_cast<int>(model.config.L)) {
        keep_.slots.resize(static_cast<size_t>(L_));
        keep_.walk.resize(static_cast<size_t>(L_));
        keep_.keep_last_layer = false;
        for (int away = 0; away < (with_host ? 1 << (L_ - 1) : 1); ++away) {
            keep_.host.clear();
            if (away > 0) keep_.host.resize(static_cast<size_t>(L_), false);
            for (int layer = 0; layer + 1 < L_ && away > 0; ++layer) {
                keep_.host[static_cast<size_t>(layer)] = away >> layer & 1;
            }
            choose_mode(0);
        }
    }
    const std::vector<Outcome>& outcomes() const { return outcomes_; }
    double fastest_within(int64_t budget, int64_t host_budget = 0) const {
        double best = 1e300;
        for (const Outcome& outcome : outcomes_) {
            if (outcome.bytes > budget || outcome.host_bytes > host_budget) continue;
            best = std::min(best, outcome.seconds);
        }
        return best;
    }

  private:
    void choose_mode(int layer) {
        if (layer == L_) return choose_walk(1);
        for (const LayerMode& mode : modes_) {
            keep_.slots[static_cast<size_t>(layer)] = mode.slots;
            choose_mode(layer + 1);
        }
        if (layer == 0) return;
        keep_.slots[static_cast<size_t>(layer)].assign(model_.activations.size(), false);
        choose_mode(layer + 1);
    }

    bool dropped(int layer) const { return !keep_.slots[static_cast<size_t>(layer)][kLayerInput]; }

    void choose_walk(int target) {
        if (target == L_) return evaluate();
        int from = target;
        while (dropped(from)) --from;
        const int inner = std::max(0, target - from - 1);  // Boundaries between the nearest kept one and the target.
        for (int subset = 0; subset < 1 << inner; ++subset) {
            auto& walk = keep_.walk[static_cast<size_t>(target)];
            walk.clear();
            for (int i = 0; i < inner; ++i) {
                if (subset >> i & 1) walk.push_back(from + 1 + i);
            }
            choose_walk(target + 1);
        }
    }

    void evaluate() {
        const Plan plan = make_training_plan(model_, request_, keep_, "brute force");
        outcomes_.push_back({make_layout(plan).arena_bytes, plan_seconds(times_, plan), plan.host_bytes});
    }

    const Model& model_;
    const PlanRequest& request_;
    const OpTimes& times_;
    const std::vector<LayerMode> modes_;
    const int L_;
    KeepSet keep_;
    std::vector<Outcome> outcomes_;
};

}  // namespace llmc::search_cases
