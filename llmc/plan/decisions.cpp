#include "llmc/plan/decisions.h"

#include "llmc/model/trainable.h"
#include "llmc/plan/layer_costs.h"
#include "llmc/plan/simulate.h"

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

constexpr const char* kNothing = "nothing";       ///< Of a layer that no backward reaches.
constexpr const char* kInSegment = "in-segment";  ///< Of one whose input does not survive.
constexpr const char* kOther = "a mixture";       ///< Of what is no mode of the search.

constexpr struct {
    const char *name, *words;
} kWords[] = {
    {"all", "everything; nothing runs again"},
    {"act", "all but outputs of norms and activation functions, which run again; no matmul does"},
    {"no-mlp", "input, attention's matmul and output, and the residual between; norms and the MLP run again"},
    {"attn", "input, attention's output, and the residual between; attention runs once, the other matmuls again"},
    {"attention", "input and attention's output; attention runs once, all else again"},
    {"boundary", "its input alone; all of it runs again but its last matmul"},
    {kInSegment, "nothing: its input comes back from the nearest layer below that keeps one, then as boundary"},
    {kNothing, "no backward reaches it: nothing below it trains"},
    {kOther, "some of its tensors; --list-steps shows which"},
};

std::string name_of_mode(const Model& model, const KeepSet& keep, int layer) {
    const std::vector<bool>& slots = keep.slots[static_cast<size_t>(layer)];
    if (layer < GradientPath(model).lowest_layer()) return kNothing;
    if (!slots[kLayerInput]) return kInSegment;
    for (const LayerMode& mode : layer_modes(model)) {
        if (mode.slots == slots) return mode.name;
    }
    return kOther;
}

bool is_same(const LayerDecision& a, const LayerDecision& b) {
    return a.keeps == b.keeps && a.input_on_host == b.input_on_host && a.kept_bytes == b.kept_bytes &&
           a.host_bytes == b.host_bytes && std::abs(a.repeated_seconds - b.repeated_seconds) < 1e-12;
}

}  // namespace

std::vector<LayerDecision> layer_decisions(const Model& model, const Plan& plan, const KeepSet& keep,
                                           const OpTimes& times) {
    const auto layers = static_cast<size_t>(model.config.L);
    std::vector<LayerDecision> of_layer(layers);
    const std::vector<Lifetime> lives = lifetimes(plan);
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        const PlanTensor& tensor = plan.tensors[i];
        const bool activation = tensor.consumer == Consumer::Boundaries || tensor.consumer == Consumer::LayerInternals;
        const bool of_a_layer = tensor.layer >= 0 && tensor.layer < model.config.L;
        if (!activation || !of_a_layer || lives[i].last < lives[i].first) continue;
        const Phase first = plan.steps[static_cast<size_t>(lives[i].first)].phase;
        const Phase last = plan.steps[static_cast<size_t>(lives[i].last)].phase;
        const bool survives = first == Phase::Forward && (last == Phase::Recompute || last == Phase::Backward);
        if (survives) of_layer[static_cast<size_t>(tensor.layer)].kept_bytes += tensor.bytes;
    }
    for (const Step& step : plan.steps) {
        if (step.layer < 0) continue;
        LayerDecision& decision = of_layer[static_cast<size_t>(step.layer)];
        if (step.phase == Phase::Recompute) decision.repeated_seconds += step_seconds(times, step);
        if (step.kind != StepKind::CopyOut || step.is_copy_of_state()) continue;
        decision.host_bytes += copied_bytes(plan, step);
        decision.input_on_host = true;
    }
    std::vector<LayerDecision> rows;
    for (int layer = 0; layer < static_cast<int>(layers); ++layer) {
        LayerDecision& decision = of_layer[static_cast<size_t>(layer)];
        decision.first = decision.last = layer;
        decision.tile_tokens = plan.tile_tokens;
        decision.keeps = name_of_mode(model, keep, layer);
        const bool is_still_there = keep.keep_last_layer && layer + 1 == static_cast<int>(layers);
        if (is_still_there && decision.repeated_seconds == 0) decision.keeps = "all";
        if (!rows.empty() && is_same(rows.back(), decision)) {
            rows.back().last = layer;
        } else {
            rows.push_back(decision);
        }
    }
    return rows;
}

std::vector<ModeWords> decision_words(const std::vector<LayerDecision>& decisions) {
    std::vector<ModeWords> result;
    for (const auto& mode : kWords) {
        const bool is_used = std::any_of(decisions.begin(), decisions.end(),
                                         [&](const LayerDecision& row) { return row.keeps == mode.name; });
        if (is_used) result.push_back({mode.name, mode.words});
    }
    return result;
}

}  // namespace llmc
