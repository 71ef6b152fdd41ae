#include "llmc/plan/search.h"

#include "llmc/base/check.h"
#include "llmc/plan/simulate.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace llmc {

std::vector<LayerMode> layer_modes(const Model& model) {
    using Role = ActivationRole;
    const auto mode = [&](const char* name, std::initializer_list<Role> kept) {
        LayerMode result = {name, {}};
        for (const ActivationRow& row : model.activations) {
            result.slots.push_back(std::find(kept.begin(), kept.end(), row.role) != kept.end());
        }
        return result;
    };
    std::vector<LayerMode> modes = {
        mode("boundary", {Role::LayerInput}),
        mode("attention", {Role::LayerInput, Role::AttentionOut, Role::AttentionStat}),
        mode("attn", {Role::LayerInput, Role::AttentionOut, Role::AttentionStat, Role::MidResidual}),
        mode("no-mlp", {Role::LayerInput, Role::MatmulOut, Role::AttentionOut, Role::AttentionStat, Role::MidResidual}),
        mode("act", {Role::LayerInput, Role::MatmulOut, Role::AttentionOut, Role::AttentionStat, Role::MidResidual,
                     Role::PreActivation}),
    };
    modes.push_back({"all", std::vector<bool>(model.activations.size(), true)});
    return modes;
}

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// Bytes and times of one layer in one mode, read off the simulation of a small plan.
struct ModeCost {
    int64_t kept_bytes = 0;      ///< Survives the forward.
    int64_t backward_bytes = 0;  ///< Largest need during the layer's own backward, its kept bytes included.
    double extra_seconds = 0;
};

struct ModelCosts {
    std::vector<LayerMode> modes;
    std::vector<ModeCost> cost;
    int64_t inputs_bytes = 0;    ///< There throughout: token ids.
    int64_t head_bytes = 0;      ///< Largest need at the head, on top of what all layers keep.
    int64_t boundary_bytes = 0;  ///< X.
    double layer_seconds = 0;    ///< A whole layer forward.
};

int64_t kept_bytes(const Plan& plan, const Model& model, const std::vector<bool>& slots) {
    int64_t bytes = 0;
    for (size_t slot = 0; slot < slots.size(); ++slot) {
        if (!slots[slot]) continue;
        for (const PlanTensor& tensor : plan.tensors) {
            if (tensor.layer != 0 || tensor.name != model.activations[slot].name) continue;
            bytes += tensor.bytes;
            break;
        }
    }
    return bytes;
}

/// Three layers, the middle one in the mode asked for, the others keeping everything: what the middle one costs.
ModelCosts measure(const Model& model, const PlanRequest& request, const OpTimes& times) {
    ModelConfig small_config = model.config;
    small_config.L = 3;
    const Model small = make_model(small_config);
    ModelCosts costs;
    costs.modes = layer_modes(model);
    const LayerMode& all = costs.modes.back();
    for (const LayerMode& mode : costs.modes) {
        KeepSet keep;
        keep.slots = {all.slots, mode.slots, all.slots};
        keep.walk.resize(3);
        const Plan plan = make_training_plan(small, request, keep, "measure");
        const Simulation simulation = simulate(small, plan);
        ModeCost cost;
        cost.kept_bytes = kept_bytes(plan, small, mode.slots);
        const int64_t all_bytes = kept_bytes(plan, small, all.slots);
        const int64_t inputs = plan.tensors.front().bytes;
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            const Step& step = plan.steps[i];
            if (step.phase == Phase::Recompute) cost.extra_seconds += step_seconds(times, step);
            const bool own = step.layer == 1 && (step.phase == Phase::Recompute || step.phase == Phase::Backward);
            if (own) cost.backward_bytes = std::max(cost.backward_bytes, simulation.live_bytes[i] - all_bytes - inputs);
            if (step.phase == Phase::Head && &mode == &all) {
                costs.head_bytes = std::max(costs.head_bytes, simulation.live_bytes[i] - 3 * all_bytes - inputs);
            }
        }
        costs.inputs_bytes = inputs;
        costs.cost.push_back(cost);
    }
    costs.boundary_bytes = costs.cost.front().kept_bytes;
    for (const OpTimes::Row& row : times.block) costs.layer_seconds += row.forward;
    return costs;
}

/// One point of the Pareto front after some layers, and how it was reached.
struct State {
    int64_t bytes = 0;
    double seconds = 0;
    int parent = -1;
    int layers = 1;  ///< Of the last choice: 1 = one layer in `mode`, more = a segment.
    int mode = 0;
};

/// Sorts by bytes and drops every state that another matches or beats in both.
void prune(std::vector<State>* states) {
    std::sort(states->begin(), states->end(), [](const State& a, const State& b) {
        return a.bytes != b.bytes ? a.bytes < b.bytes : a.seconds < b.seconds;
    });
    double best = kNever;
    std::erase_if(*states, [&](const State& state) {
        const bool dominated = state.seconds >= best * (1 - 1e-12);
        best = std::min(best, state.seconds);
        return dominated;
    });
}

class ParetoSearch {
  public:
    ParetoSearch(const Model& model, const ModelCosts& costs, const ChainCheckpointing& chain)
        : L_(static_cast<int>(model.config.L)), costs_(costs), chain_(chain), bound_(make_bound(L_, costs, chain)) {}

    /// Decides all layers within `budget` bytes by the numbers in `costs`; how many keep-sets that ends with. What is
    /// slower than a simple plan by more than `slack`, a share of a forward's time, is not followed.
    int run(int64_t budget, double slack) {
        budget_ = budget - costs_.inputs_bytes;
        time_matters_ = true;
        cutoff_ = fastest_of_two_modes() + slack * L_ * costs_.layer_seconds;
        return decide();
    }

    /// Whether anything fits: only the smallest state is followed, and the one keep-set left is some that does.
    bool fits(int64_t budget) {
        budget_ = budget - costs_.inputs_bytes;
        time_matters_ = false;
        cutoff_ = kNever;
        return decide() > 0;
    }

    /// The keep-set of that rank, 0 = the fastest.
    void build(int rank, KeepSet* keep, std::string* summary) const {
        build(choices(ranking_[static_cast<size_t>(rank)]), budget_, keep, summary);
    }

  private:
    int decide() {
        fronts_.assign(static_cast<size_t>(L_) + 1, {});
        fronts_[0] = {State{}};
        for (int layer = 0; layer < L_; ++layer) extend(layer, budget_);
        ranking_.resize(fronts_.back().size());
        std::iota(ranking_.begin(), ranking_.end(), 0);
        std::stable_sort(ranking_.begin(), ranking_.end(), [this](int a, int b) {
            const auto& last = fronts_.back();
            return last[static_cast<size_t>(a)].seconds < last[static_cast<size_t>(b)].seconds;
        });
        return static_cast<int>(ranking_.size());
    }

    void extend(int layer, int64_t budget) {
        auto& from = fronts_[static_cast<size_t>(layer)];
        prune(&from);
        if (!time_matters_ && from.size() > 1) from.resize(1);
        const bool last_layer = layer == L_ - 1;
        for (int parent = 0; parent < static_cast<int>(from.size()); ++parent) {
            const State state = from[static_cast<size_t>(parent)];
            for (int mode = 0; mode < static_cast<int>(costs_.cost.size()); ++mode) {
                const ModeCost& cost = costs_.cost[static_cast<size_t>(mode)];
                const int64_t head = last_layer ? cost.kept_bytes + costs_.head_bytes : 0;
                if (state.bytes + std::max(cost.backward_bytes, head) > budget) continue;
                push(layer + 1, {state.bytes + cost.kept_bytes, state.seconds + cost.extra_seconds, parent, 1, mode});
            }
            for (int n = 2; layer + n < L_; ++n) {  // The last layer stands alone: its backward comes first.
                const int slots = slots_for(budget, state.bytes, n);
                if (slots < 0) break;
                push(layer + n,
                     {state.bytes + costs_.boundary_bytes, state.seconds + chain_.seconds(n, slots), parent, n, 0});
            }
        }
    }

    /// What keeping bytes buys at best: average seconds per layer as a convex function of average bytes, whatever the
    /// layers are mixed from. Points by bytes.
    struct Point {
        double bytes = 0, seconds = 0;
    };
    static std::vector<Point> make_bound(int L, const ModelCosts& costs, const ChainCheckpointing& chain) {
        std::vector<Point> points, hull;
        for (const ModeCost& cost : costs.cost) {
            points.push_back({static_cast<double>(cost.kept_bytes), cost.extra_seconds});
        }
        for (int n = 2; n < L; ++n) {
            points.push_back({static_cast<double>(costs.boundary_bytes) / n, chain.seconds(n, n) / n});
        }
        std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
            return a.bytes != b.bytes ? a.bytes < b.bytes : a.seconds < b.seconds;
        });
        for (const Point& point : points) {
            if (!hull.empty() && point.seconds >= hull.back().seconds) continue;  // More bytes and no faster.
            while (hull.size() >= 2) {
                const Point &a = hull[hull.size() - 2], &b = hull.back();
                const double cross = (b.bytes - a.bytes) * (point.seconds - a.seconds) -
                                     (point.bytes - a.bytes) * (b.seconds - a.seconds);
                if (cross > 0) break;
                hull.pop_back();
            }
            hull.push_back(point);
        }
        return hull;
    }

    /// No choice for the layers that are left takes less.
    double seconds_at_least(int layers_left, int64_t bytes_left) const {
        if (layers_left == 0) return 0;
        const double average = static_cast<double>(bytes_left) / layers_left;
        if (average < bound_.front().bytes) return kNever;
        if (average >= bound_.back().bytes) return layers_left * bound_.back().seconds;
        size_t i = 1;
        while (bound_[i].bytes <= average) ++i;
        const Point &a = bound_[i - 1], &b = bound_[i];
        const double share = (average - a.bytes) / (b.bytes - a.bytes);
        return layers_left * (a.seconds + share * (b.seconds - a.seconds));
    }

    /// The fastest of the simple plans: some first layers in one mode, the rest in another. Nothing slower (by more
    /// than a slack, for plans whose arena turns out to have gaps) is worth following.
    double fastest_of_two_modes() const {
        double best = kNever;
        for (const ModeCost& first : costs_.cost) {
            for (const ModeCost& second : costs_.cost) {
                for (int n = 0; n < L_; ++n) {  // Layers in the first mode.
                    const int64_t before = n * first.kept_bytes, last = before + (L_ - 1 - n) * second.kept_bytes;
                    const bool fits =
                        (n == 0 || before - first.kept_bytes + first.backward_bytes <= budget_) &&
                        last + std::max(second.backward_bytes, second.kept_bytes + costs_.head_bytes) <= budget_;
                    if (fits) best = std::min(best, n * first.extra_seconds + (L_ - n) * second.extra_seconds);
                }
            }
        }
        return best;
    }

    void push(int layer, const State& state) {
        const int64_t left = budget_ - costs_.head_bytes - state.bytes;
        if (state.seconds + seconds_at_least(L_ - layer, left) > cutoff_) return;
        auto& front = fronts_[static_cast<size_t>(layer)];
        front.push_back(state);
        if (front.size() > 200000) prune(&front);
    }

    /// The choices that lead to a state of the last front. Any order of them keeps as much and costs as much; segments
    /// first, then layers by what they keep, least first, needs the least room on the way and reads best.
    std::vector<State> choices(int index) const {
        std::vector<State> chosen;
        for (int layer = L_; layer > 0;) {
            chosen.push_back(fronts_[static_cast<size_t>(layer)][static_cast<size_t>(index)]);
            layer -= chosen.back().layers;
            index = chosen.back().parent;
        }
        std::reverse(chosen.begin(), chosen.end());
        std::stable_sort(chosen.begin(), chosen.end() - 1, [](const State& a, const State& b) {
            const bool a_segment = a.layers > 1, b_segment = b.layers > 1;
            if (a_segment != b_segment) return a_segment;
            return a_segment ? a.layers > b.layers : a.mode < b.mode;
        });
        return chosen;
    }

    void build(const std::vector<State>& chosen, int64_t budget, KeepSet* keep, std::string* summary) const {
        keep->slots.assign(static_cast<size_t>(L_), std::vector<bool>(costs_.modes[0].slots.size(), false));
        keep->walk.assign(static_cast<size_t>(L_), {});
        keep->keep_last_layer = false;  // Where it pays, the last layer's mode is "all".
        summary->clear();
        int64_t bytes = 0;
        for (int layer = 0, i = 0; i < static_cast<int>(chosen.size());) {
            const State& state = chosen[static_cast<size_t>(i)];
            int repeats = 0;  // Equal choices in a row are one entry of the summary.
            const int first = layer;
            for (; i < static_cast<int>(chosen.size()); ++i, ++repeats) {
                const State& next = chosen[static_cast<size_t>(i)];
                if (next.layers != state.layers || next.mode != state.mode) break;
                keep->slots[static_cast<size_t>(layer)] = costs_.modes[static_cast<size_t>(next.mode)].slots;
                if (next.layers > 1)
                    chain_.fill_walks(layer, next.layers, slots_for(budget, bytes, next.layers), &keep->walk);
                bytes += costs_.cost[static_cast<size_t>(next.mode)].kept_bytes;
                layer += next.layers;
            }
            *summary += fmt::format("{}layer{}", summary->empty() ? "" : ", ", layer - first > 1 ? "s " : " ");
            *summary += layer - first > 1 ? fmt::format("{}-{}", first, layer - 1) : fmt::format("{}", first);
            if (state.layers > 1)
                *summary += fmt::format(" in {} of {}", repeats > 1 ? "segments" : "a segment", state.layers);
            if (state.layers == 1) *summary += fmt::format(" {}", costs_.modes[static_cast<size_t>(state.mode)].name);
        }
    }

    /// Boundaries that a segment of n layers may hold on the way back, with `bytes` kept below it; negative: no room.
    int slots_for(int64_t budget, int64_t bytes, int n) const {
        const int64_t X = costs_.boundary_bytes;
        const int64_t room = budget - bytes - X - costs_.cost.front().backward_bytes;
        return room < 0 ? -1 : static_cast<int>(std::min<int64_t>(room / X, n - 1));
    }

    const int L_;
    const ModelCosts& costs_;
    const ChainCheckpointing& chain_;
    const std::vector<Point> bound_;
    double cutoff_ = kNever;
    int64_t budget_ = 0;
    bool time_matters_ = true;
    std::vector<std::vector<State>> fronts_;  ///< By number of layers decided.
    std::vector<int> ranking_;                ///< States of the last front, fastest first.
};

}  // namespace

SearchResult search_plan(const Model& model, const PlanRequest& request, const OpTimes& times, int64_t budget_bytes) {
    const ModelCosts costs = measure(model, request, times);
    const double repeat = costs.cost.front().extra_seconds;
    const ChainCheckpointing chain(static_cast<int>(model.config.L), costs.layer_seconds, repeat);
    ParetoSearch search(model, costs, chain);

    SearchResult result;
    const auto generate = [&](int rank) {
        search.build(rank, &result.keep, &result.summary);
        result.plan = make_training_plan(model, request, result.keep, "auto");
        result.layout = make_layout(result.plan);
        result.seconds = plan_seconds(times, result.plan);
    };
    // The numbers above are exact for live bytes; an arena can have gaps. Then the next fastest, and so on; in the end
    // with a smaller limit.
    constexpr int kRanks = 32, kTurns = 16;
    int64_t limit = budget_bytes;
    for (int turn = 0; turn < kTurns && search.fits(limit); ++turn) {
        int tried = 0;
        for (const double slack : {1e-3, 1e-2, 1e-1, kNever}) {
            const int found = std::min(search.run(limit, slack), kRanks);
            for (; tried < found; ++tried) {
                generate(tried);
                if (result.layout.arena_bytes > budget_bytes) continue;
                result.found = true;
                return result;
            }
            if (tried == kRanks) break;
        }
        limit = std::min(limit, simulate(model, result.plan).peak_bytes) - 1;
    }
    // Nothing fits: the smallest there is.
    int64_t low = 0, high = std::max<int64_t>(budget_bytes, 1 << 20);
    while (!search.fits(high)) low = high, high *= 2;
    while (high - low > 4096) {
        const int64_t middle = low + (high - low) / 2;
        (search.fits(middle) ? high : low) = middle;
    }
    CHECK(search.fits(high), high);
    generate(0);
    result.smallest_bytes = result.layout.arena_bytes;
    const Simulation simulation = simulate(model, result.plan);
    result.binding_step = describe_step(model, result.plan.steps[static_cast<size_t>(simulation.peak_step)]);
    return result;
}

}  // namespace llmc
