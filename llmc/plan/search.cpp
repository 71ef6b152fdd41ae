#include "llmc/plan/search.h"

#include "llmc/base/check.h"
#include "llmc/model/trainable.h"
#include "llmc/plan/search_policies.h"
#include "llmc/plan/simulate.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

namespace llmc {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// One point of the Pareto front after some layers, and how it was reached.
struct FrontPoint {
    int64_t bytes = 0;
    double seconds = 0;
    int parent = -1;
    int layers = 1;  ///< Of the last choice: 1 = one layer in `mode`, more = a segment.
    int mode = 0;
};

/// Sorts by bytes and drops every state that another matches or beats in both.
void prune(std::vector<FrontPoint>* states) {
    std::sort(states->begin(), states->end(), [](const FrontPoint& a, const FrontPoint& b) {
        return a.bytes != b.bytes ? a.bytes < b.bytes : a.seconds < b.seconds;
    });
    double best = kNever;
    std::erase_if(*states, [&](const FrontPoint& state) {
        const bool dominated = state.seconds >= best * (1 - 1e-12);
        best = std::min(best, state.seconds);
        return dominated;
    });
}

class ParetoSearch {
  public:
    /// `host`: the layers, counted as in `costs`, whose inputs go to host memory if they survive; empty: none.
    ParetoSearch(const ModelCosts& costs, const ChainCheckpointing& chain, std::vector<bool> host = {})
        : L_(costs.L), costs_(costs), chain_(chain), host_(std::move(host)), bound_(make_bound(L_, costs, chain)) {
        host_.resize(static_cast<size_t>(L_), false);
    }

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
    bool on_host(int layer) const { return host_[static_cast<size_t>(layer)]; }
    /// Survives the forward on the device.
    int64_t kept_bytes(int layer, int mode) const {
        return costs_.cost[static_cast<size_t>(mode)].kept_bytes - (on_host(layer) ? costs_.boundary_bytes : 0);
    }
    /// Beside the backward of a layer comes the input of the layer below, where that is in host memory.
    int64_t fetched_bytes(int below) const { return below >= 0 && on_host(below) ? costs_.boundary_bytes : 0; }
    /// Where the choice before this layer begins, which `state` ends with; -1 for the first.
    static int layer_below(int layer, const FrontPoint& state) { return layer > 0 ? layer - state.layers : -1; }

    int decide() {
        fronts_.assign(static_cast<size_t>(L_) + 1, {});
        if (budget_ + costs_.inputs_bytes >= costs_.outside_bytes) fronts_[0] = {FrontPoint{}};
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
            const FrontPoint state = from[static_cast<size_t>(parent)];
            for (int mode = 0; mode < static_cast<int>(costs_.cost.size()); ++mode) {
                const ModeCost& cost = costs_.cost[static_cast<size_t>(mode)];
                const int64_t head = last_layer ? cost.kept_bytes + costs_.head_bytes : 0;
                const int64_t need = costs_.backward_bytes(layer, mode) + fetched_bytes(layer_below(layer, state));
                if (state.bytes + std::max(need, head) > budget) continue;
                push(layer + 1,
                     {state.bytes + kept_bytes(layer, mode), state.seconds + cost.extra_seconds, parent, 1, mode});
            }
            for (int mode = 0; mode < segment_modes(costs_); ++mode) extend_by_segments(layer, budget, parent, mode);
        }
    }

    void extend_by_segments(int layer, int64_t budget, int parent, int mode) {
        const FrontPoint state = fronts_[static_cast<size_t>(layer)][static_cast<size_t>(parent)];
        const int64_t bytes = state.bytes + kept_bytes(layer, mode);
        const int64_t beside = state.bytes + fetched_bytes(layer_below(layer, state));
        for (int n = 2; layer + n < L_; ++n) {  // The last layer stands alone: its backward comes first.
            const int slots = slots_for(budget, layer, beside, n, mode);
            if (slots < 0) break;
            push(layer + n, {bytes, state.seconds + segment_seconds(costs_, chain_, n, slots, mode), parent, n, mode});
        }
    }

    /// Modes of a segment's first layer. More than its boundary is of use only where the layer needs more memory for
    /// its own backward than those that a walk is made for.
    static int segment_modes(const ModelCosts& costs) {
        return costs.walked_bytes < costs.cost.front().middle_bytes ? static_cast<int>(costs.cost.size()) : 1;
    }

    static double segment_seconds(const ModelCosts& costs, const ChainCheckpointing& chain, int n, int slots,
                                  int mode) {
        const ModeCost &boundary = costs.cost.front(), &first = costs.cost[static_cast<size_t>(mode)];
        return chain.seconds(n, slots) - (boundary.extra_seconds - first.extra_seconds) -
               chain.walks(n, slots) * (boundary.walk_seconds - first.walk_seconds);
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
        for (int mode = 0; mode < segment_modes(costs); ++mode) {
            const auto bytes = static_cast<double>(costs.cost[static_cast<size_t>(mode)].kept_bytes);
            for (int n = 2; n < L; ++n) {
                points.push_back({bytes / n, segment_seconds(costs, chain, n, n, mode) / n});
            }
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
        const int modes = static_cast<int>(costs_.cost.size());
        for (int first = 0; first < modes; ++first) {
            for (int second = 0; second < modes; ++second) {
                for (int n = 0; n < L_; ++n) {
                    const double total = n * costs_.cost[static_cast<size_t>(first)].extra_seconds +
                                         (L_ - n) * costs_.cost[static_cast<size_t>(second)].extra_seconds;
                    if (total < best && two_modes_fit(first, n, second)) best = total;
                }
            }
        }
        return best;
    }

    bool two_modes_fit(int first, int n, int second) const {
        int64_t bytes = 0;
        for (int layer = 0; layer < L_; ++layer) {
            const int mode = layer < n ? first : second;
            if (bytes + costs_.backward_bytes(layer, mode) + fetched_bytes(layer - 1) > budget_) return false;
            bytes += kept_bytes(layer, mode);
        }
        return bytes + costs_.head_bytes <= budget_;
    }

    void push(int layer, const FrontPoint& state) {
        const auto away = std::count(host_.begin() + layer, host_.end(), true);
        const int64_t left = budget_ - costs_.head_bytes - state.bytes + away * costs_.boundary_bytes;
        if (state.seconds + seconds_at_least(L_ - layer, left) > cutoff_) return;
        auto& front = fronts_[static_cast<size_t>(layer)];
        front.push_back(state);
        if (front.size() > 200000) prune(&front);
    }

    /// The choices that lead to a state of the last front. Any order of them keeps as much and costs as much; segments
    /// first, then layers by what they keep, least first, reads best and needs the least room on the way, but for
    /// segments that exist because the backward of a layer without a walk needs more.
    std::vector<FrontPoint> choices(int index) const {
        std::vector<FrontPoint> chosen;
        for (int layer = L_; layer > 0;) {
            chosen.push_back(fronts_[static_cast<size_t>(layer)][static_cast<size_t>(index)]);
            layer -= chosen.back().layers;
            index = chosen.back().parent;
        }
        std::reverse(chosen.begin(), chosen.end());
        std::vector<FrontPoint> sorted = chosen;
        std::stable_sort(sorted.begin(), sorted.end() - 1, [](const FrontPoint& a, const FrontPoint& b) {
            const bool a_segment = a.layers > 1, b_segment = b.layers > 1;
            if (a_segment != b_segment) return a_segment;
            return a_segment ? a.layers > b.layers : a.mode < b.mode;
        });
        return have_room(sorted) ? sorted : chosen;
    }

    bool have_room(const std::vector<FrontPoint>& chosen) const {
        int64_t bytes = 0;
        int layer = 0, below = -1;
        for (const FrontPoint& state : chosen) {
            const int64_t beside = bytes + fetched_bytes(below);
            const bool room = state.layers > 1 ? slots_for(budget_, layer, beside, state.layers, state.mode) >= 0
                                               : beside + costs_.backward_bytes(layer, state.mode) <= budget_;
            if (!room) return false;
            bytes += kept_bytes(layer, state.mode);
            below = layer;
            layer += state.layers;
        }
        return bytes + costs_.head_bytes <= budget_;
    }

    void build(const std::vector<FrontPoint>& chosen, int64_t budget, KeepSet* keep, std::string* summary) const {
        const int lowest = costs_.lowest;
        keep->slots.assign(static_cast<size_t>(lowest + L_), costs_.modes[0].slots);
        keep->walk.assign(static_cast<size_t>(lowest + L_), {});
        keep->keep_last_layer = false;  // Where it pays, the last layer's mode is "all".
        summary->clear();
        int64_t bytes = 0;
        int below = -1;
        for (int layer = 0, i = 0; i < static_cast<int>(chosen.size());) {
            const FrontPoint& state = chosen[static_cast<size_t>(i)];
            int repeats = 0;  // Equal choices in a row are one entry of the summary.
            const int first = layer;
            for (; i < static_cast<int>(chosen.size()); ++i, ++repeats) {
                const FrontPoint& next = chosen[static_cast<size_t>(i)];
                if (next.layers != state.layers || next.mode != state.mode) break;
                std::fill_n(keep->slots.begin() + lowest + layer, next.layers,
                            std::vector<bool>(costs_.modes[0].slots.size(), false));
                keep->slots[static_cast<size_t>(lowest + layer)] = costs_.modes[static_cast<size_t>(next.mode)].slots;
                if (next.layers > 1)
                    chain_.fill_walks(lowest + layer, next.layers,
                                      slots_for(budget, layer, bytes + fetched_bytes(below), next.layers, next.mode),
                                      &keep->walk);
                bytes += kept_bytes(layer, next.mode);
                below = layer;
                layer += next.layers;
            }
            *summary += fmt::format("{}layer{}", summary->empty() ? "" : ", ", layer - first > 1 ? "s " : " ");
            *summary += layer - first > 1 ? fmt::format("{}-{}", lowest + first, lowest + layer - 1)
                                          : fmt::format("{}", lowest + first);
            if (state.layers > 1)
                *summary += fmt::format(" in {} of {}", repeats > 1 ? "segments" : "a segment", state.layers);
            if (state.layers > 1 && state.mode > 0) *summary += " from";
            if (state.layers == 1 || state.mode > 0)
                *summary += fmt::format(" {}", costs_.modes[static_cast<size_t>(state.mode)].name);
        }
        send_inputs_away(keep, summary);
    }

    void send_inputs_away(KeepSet* keep, std::string* summary) const {
        keep->host.clear();
        std::string names;
        for (int layer = 0; layer < L_; ++layer) {
            if (!on_host(layer) || !keep->slots[static_cast<size_t>(costs_.lowest + layer)][kLayerInput]) continue;
            keep->host.resize(keep->slots.size(), false);
            keep->host[static_cast<size_t>(costs_.lowest + layer)] = true;
            names += fmt::format("{}{}", names.empty() ? "" : " ", costs_.lowest + layer);
        }
        if (!names.empty()) *summary += fmt::format("; in host memory the inputs of layers {}", names);
    }

    /// Boundaries that a segment of n layers from `layer` on may hold on the way back, with `bytes` kept below it and
    /// its first layer in `mode`; negative: no room. A walk ends with what that layer keeps, the boundaries held and
    /// the layer it was for. The first layer itself, and those whose boundary is held, follow the one above without.
    int slots_for(int64_t budget, int layer, int64_t bytes, int n, int mode) const {
        const int64_t X = costs_.boundary_bytes, room = budget - bytes;
        const int64_t kept = costs_.cost[static_cast<size_t>(mode)].kept_bytes;
        const int64_t walked = room - kept - costs_.walked_bytes;
        if (walked < 0 || room < costs_.backward_bytes(layer, mode)) return -1;
        const int64_t held = std::max<int64_t>(0, room - kept + X - costs_.cost.front().middle_bytes);
        return static_cast<int>(std::min<int64_t>(std::min(walked, held) / X, n - 1));
    }

    const int L_;
    const ModelCosts& costs_;
    const ChainCheckpointing& chain_;
    std::vector<bool> host_;
    const std::vector<Point> bound_;
    double cutoff_ = kNever;
    int64_t budget_ = 0;
    bool time_matters_ = true;
    std::vector<std::vector<FrontPoint>> fronts_;  ///< By number of layers decided.
    std::vector<int> ranking_;                     ///< States of the last front, fastest first.
};

/// The plan that needs the least, by live bytes.
void build_smallest(const Model& model, const PlanRequest& request, ParetoSearch* search, int64_t guess, KeepSet* keep,
                    std::string* summary, Plan* plan) {
    int64_t low = 0, high = std::max<int64_t>(guess, 1 << 20);
    while (!search->fits(high)) low = high, high *= 2;
    while (high - low > 4096) {
        const int64_t middle = low + (high - low) / 2;
        (search->fits(middle) ? high : low) = middle;
    }
    CHECK(search->fits(high), high);
    search->build(0, keep, summary);
    *plan = make_training_plan(model, request, *keep, "auto");
}

/// One search of all layers; with inputs in host memory one for each way to choose which.
class LayerSearch {
  public:
    LayerSearch(const Model& model, const PlanRequest& request, const OpTimes& times, const SearchBudget& budget,
                SearchEffort effort)
        : model_(model),
          request_(request),
          times_(times),
          budget_(budget),
          is_quick_(effort == SearchEffort::Quick),
          costs_(measure_layers(model, request, times)),
          chain_(costs_.L, costs_.cost.front().walk_seconds, costs_.cost.front().extra_seconds) {}

    SearchResult run() const {
        SearchResult best = decide({}, is_quick_ ? 2 : 32, is_quick_ ? 2 : 16);
        const bool keeps_all = best.found && best.keep.slots == all_kept();
        if (keeps_all || request_.places.on_host(Buffer::Boundaries)) return best;
        for (const std::vector<bool>& host : host_choices()) {
            SearchResult other = decide(host, costs_.L <= kFew ? 32 : 2, costs_.L <= kFew ? 16 : 2);
            if (!other.found || other.plan.host_bytes > budget_.host_bytes) continue;
            if (!best.found || other.seconds < best.seconds * (1 - 1e-12)) best = std::move(other);
        }
        return best;
    }

  private:
    static constexpr int kFew = 5;  ///< Layers of which all choices are tried.

    std::vector<std::vector<bool>> all_kept() const {
        return std::vector<std::vector<bool>>(static_cast<size_t>(costs_.lowest + costs_.L), costs_.modes.back().slots);
    }

    /// Which inputs go to host memory: with few layers every choice; else the lowest layers, whose inputs wait the
    /// longest, all of them or every second or third, so that the link is busy less; as many as the host has room for.
    /// The last layer's never does.
    std::vector<std::vector<bool>> host_choices() const {
        const int most =
            costs_.boundary_bytes > 0
                ? static_cast<int>(std::min<int64_t>(costs_.L - 1, budget_.host_bytes / costs_.boundary_bytes))
                : 0;
        std::set<std::vector<bool>> choices;
        if (costs_.L <= kFew) {
            for (int subset = 1; subset < 1 << (costs_.L - 1); ++subset) {
                std::vector<bool> host(static_cast<size_t>(costs_.L), false);
                for (int layer = 0; layer + 1 < costs_.L; ++layer)
                    host[static_cast<size_t>(layer)] = subset >> layer & 1;
                if (std::count(host.begin(), host.end(), true) <= most) choices.insert(host);
            }
        } else {
            for (const int stride : {1, 2, 3}) {
                for (const int count : {most, most * 3 / 4, most / 2, most / 4}) {
                    std::vector<bool> host(static_cast<size_t>(costs_.L), false);
                    for (int layer = 0, left = count; left > 0 && layer + 1 < costs_.L; layer += stride, --left) {
                        host[static_cast<size_t>(layer)] = true;
                    }
                    if (count > 0) choices.insert(host);
                }
            }
        }
        return {choices.begin(), choices.end()};
    }

    /// The fastest plan with these inputs in host memory. The numbers it goes by are exact for live bytes; an arena can
    /// have gaps. Then the next fastest, and so on, for so many ranks; in the end with a smaller limit, so many times.
    SearchResult decide(const std::vector<bool>& host, int most_ranks, int turns) const {
        ParetoSearch search(costs_, chain_, host);
        SearchResult result;
        const auto generate = [&](int rank) {
            search.build(rank, &result.keep, &result.summary);
            result.plan = make_training_plan(model_, request_, result.keep, "auto");
            return arena_within(result.plan, budget_.device_bytes, is_quick_);
        };
        const auto finish = [&](bool found) {
            result.found = found;
            result.seconds = plan_seconds(times_, result.plan);
            return std::move(result);
        };
        int64_t limit = budget_.device_bytes;
        for (int turn = 0; turn < turns && search.fits(limit); ++turn) {
            int tried = 0;
            int64_t bound = limit;
            for (const double slack : {1e-3, 1e-2, 1e-1, kNever}) {
                const int found = std::min(search.run(limit, slack), most_ranks);
                for (; tried < found; ++tried) {
                    const ArenaFit fit = generate(tried);
                    bound = fit.bound_bytes;
                    if (fit.fits) return finish(true);
                }
                if (tried == most_ranks) break;
            }
            limit = std::min(limit, bound) - 1;
        }
        // Nothing of these: the smallest of the choices for this budget, and the smallest there is.
        if (search.fits(budget_.device_bytes) && generate(0).fits) return finish(true);
        build_smallest(model_, request_, &search, budget_.device_bytes, &result.keep, &result.summary, &result.plan);
        const int64_t bytes = make_layout(result.plan).arena_bytes;
        if (bytes > budget_.device_bytes) result.smallest_bytes = bytes;
        return finish(bytes <= budget_.device_bytes);
    }

    const Model& model_;
    const PlanRequest& request_;
    const OpTimes& times_;
    const SearchBudget budget_;
    const bool is_quick_;
    const ModelCosts costs_;
    const ChainCheckpointing chain_;
};

}  // namespace

SearchResult search_plan(const Model& model, const PlanRequest& request, const OpTimes& times,
                         const SearchBudget& budget, SearchEffort effort) {
    const bool decides = GradientPath(model).lowest_layer() < model.config.L;  // Else no layer has a backward.
    SearchResult best = decides ? LayerSearch(model, request, times, budget, effort).run() : SearchResult{};
    if (may_miss_the_best(model, request, budget)) {
        best = or_fixed_policy(model, request, times, budget, std::move(best));
    }
    if (best.found) return best;
    const int peak = simulate(model, best.plan).peak_step;
    best.binding_step = describe_step(model, best.plan.steps[static_cast<size_t>(peak)]);
    return best;
}

bool search_fits(const Model& model, const PlanRequest& request, const OpTimes& times, const SearchBudget& budget) {
    const int64_t budget_bytes = budget.device_bytes;
    const bool is_exact = !may_miss_the_best(model, request, budget);
    if (GradientPath(model).lowest_layer() < model.config.L) {
        const ModelCosts costs = measure_layers(model, request, times);
        const ChainCheckpointing chain(costs.L, costs.cost.front().walk_seconds, costs.cost.front().extra_seconds);
        ParetoSearch search(costs, chain);
        const bool fits = search.fits(budget_bytes);
        if (!fits && is_exact) return false;  // By live bytes, which no arena is smaller than.
        SearchResult result;
        const auto arena_fits = [&] {
            return arena_within(make_training_plan(model, request, result.keep, "auto"), budget_bytes, true).fits;
        };
        if (fits) search.build(0, &result.keep, &result.summary);
        if (fits && arena_fits()) return true;
        build_smallest(model, request, &search, budget_bytes, &result.keep, &result.summary, &result.plan);
        if (arena_fits()) return true;
    }
    return !is_exact && any_policy_fits(model, request, budget);
}

}  // namespace llmc
