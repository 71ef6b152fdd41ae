// The worked examples of dev/notes/recompute.md, computed by the library that plans real runs: what a layer's position
// does to the peak, what a knapsack on saved bytes promises and gets, and the chain recurrence beside the binomial
// bound. GPT-2 124M cut to four layers, 8 x 1024 tokens, bf16, analytic times of an H100; memory in units of X.
#include "llmc/plan/search.h"
#include "llmc/plan/simulate.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <vector>

using namespace llmc;

namespace {

struct Setting {
    Model model;
    PlanRequest request;
    OpTimes times;
    std::vector<LayerMode> modes;
    double X = 0;
};

Setting four_layers() {
    ModelConfig config = preset("gpt2");
    config.V = 50257;
    config.L = 4;
    Setting s{make_model(config), {}, {}, {}, 0};
    s.request.shape = {8, 1024};
    s.request.places = DType::BF16;
    s.request.logits_chunk_tokens = 256;  // Small, so that it is the layers that decide.
    s.times = analytic_times(s.model, s.request.shape, s.request.places, find_device_profile("h100"));
    s.modes = layer_modes(s.model);
    s.X = static_cast<double>(s.request.shape.N() * config.C * size_of(s.request.dtype()));
    return s;
}

/// One mode per layer, planned and laid out as a run would.
struct Candidate {
    std::string name;
    double kept = 0;   ///< Survives the forward, in X.
    double arena = 0;  ///< In X.
    double seconds = 0;
    std::string peak;
};

Candidate candidate(const Setting& s, const std::vector<int>& mode_of_layer) {
    KeepSet keep;
    keep.walk.resize(mode_of_layer.size());
    keep.keep_last_layer = false;
    Candidate result;
    for (const int mode : mode_of_layer) {
        const LayerMode& row = s.modes[static_cast<size_t>(mode)];
        keep.slots.push_back(row.slots);
        result.name += (result.name.empty() ? "" : ", ") + row.name;
        for (size_t slot = 0; slot < row.slots.size(); ++slot) {
            const ActivationRow& activation = s.model.activations[slot];
            const int64_t item = activation.is_stat() ? 4 : size_of(s.request.dtype());
            if (row.slots[slot])
                result.kept += static_cast<double>(s.request.shape.N() * activation.columns * item) / s.X;
        }
    }
    const Plan plan = make_training_plan(s.model, s.request, keep, "example");
    const Simulation simulation = simulate(s.model, plan);
    result.arena = static_cast<double>(make_layout(plan).arena_bytes) / s.X;
    result.seconds = plan_seconds(s.times, plan);
    result.peak = describe_step(s.model, plan.steps[static_cast<size_t>(simulation.peak_step)]);
    return result;
}

void show_positions(const Setting& s) {
    const int all = static_cast<int>(s.modes.size()) - 1;
    fmt::print("One of four layers is repeated, the others keep everything.\n");
    for (int layer = 0; layer < 4; ++layer) {
        std::vector<int> modes(4, all);
        modes[static_cast<size_t>(layer)] = 0;
        const Candidate c = candidate(s, modes);
        fmt::print("  layer {}: kept {:.2f} X, arena {:.2f} X, peak at {}\n", layer, c.kept, c.arena, c.peak);
    }
}

/// Every choice of modes, least kept first (the order that is kindest to the knapsack), fastest first.
std::vector<Candidate> all_candidates(const Setting& s) {
    const int count = static_cast<int>(s.modes.size());
    std::vector<Candidate> result;
    for (int a = 0; a < count; ++a)
        for (int b = a; b < count; ++b)
            for (int c = b; c < count; ++c)
                for (int d = c; d < count; ++d) result.push_back(candidate(s, {a, b, c, d}));
    std::stable_sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
    return result;
}

void show_knapsack(const Setting& s) {
    const std::vector<Candidate> candidates = all_candidates(s);
    const Candidate& everything = candidates.front();
    fmt::print(
        "\nAll four layers kept: arena {:.2f} X. A knapsack takes it for the fastest choice that saves enough.\n",
        everything.arena);
    for (const int budget : {60, 44, 30, 29, 28, 27, 26, 20, 12}) {
        const auto says = [&](const Candidate& c) { return everything.arena - (everything.kept - c.kept); };
        const auto pick =
            std::find_if(candidates.begin(), candidates.end(), [&](const Candidate& c) { return says(c) <= budget; });
        const auto bytes = static_cast<int64_t>(budget * s.X);
        const SearchResult found = search_plan(s.model, s.request, s.times, bytes);
        fmt::print("  budget {} X: knapsack [{}] says {:.2f}, is {:.2f} ({}), +{:.1f} %\n", budget, pick->name,
                   says(*pick), pick->arena, pick->peak, 100 * (pick->seconds / everything.seconds - 1));
        if (found.found) {
            fmt::print("                search [{}] is {:.2f}, +{:.1f} %\n", found.summary,
                       static_cast<double>(make_layout(found.plan).arena_bytes) / s.X,
                       100 * (found.seconds / everything.seconds - 1));
        } else {
            fmt::print("                search: nothing below {:.2f}, bound by {}\n",
                       static_cast<double>(found.smallest_bytes) / s.X, found.binding_step);
        }
    }
}

double binomial(int n, int k) {
    double value = 1;
    for (int i = 1; i <= k; ++i) value = value * (n - k + i) / i;
    return value;
}

/// r l - beta(s + 1, r - 1), with the smallest r for which beta(s, r) = C(s + r, s) is at least l.
double griewank_walther(int l, int s) {
    int r = 0;
    while (binomial(s + r, s) < l) ++r;
    return r == 0 ? 0 : r * static_cast<double>(l) - binomial(s + r, s + 1);
}

void show_chain() {
    const int slots[] = {1, 2, 3, 4, 6, 8};
    const ChainCheckpointing chain(48, 1.0, 0.0);  // A layer's forward costs 1, its own repeat nothing.
    fmt::print("\nForward steps that bring back a segment of l layers with s boundaries: R / formula.\n     s");
    for (const int s : slots) fmt::print("{:>12}", s);
    for (const int l : {2, 4, 6, 8, 12, 16, 24, 48}) {
        fmt::print("\nl = {:>2}", l);
        for (const int s : slots)
            fmt::print("{:>12}", fmt::format("{:.0f} / {:.0f}", chain.seconds(l, s - 1), griewank_walther(l, s)));
    }
    fmt::print("\n");
}

}  // namespace

int main() {
    const Setting setting = four_layers();
    show_positions(setting);
    show_knapsack(setting);
    show_chain();
}
