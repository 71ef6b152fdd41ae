#include "llmc/plan/layer_costs.h"

#include "llmc/model/trainable.h"
#include "llmc/plan/simulate.h"

#include <algorithm>
#include <utility>

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

/// Of what a layer may keep, that which something after the forward reads.
int64_t kept_bytes(const Plan& plan, const Model& model, int layer, const std::vector<bool>& slots) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    int64_t bytes = 0;
    for (size_t slot = 0; slot < slots.size(); ++slot) {
        if (!slots[slot]) continue;
        for (size_t i = 0; i < plan.tensors.size(); ++i) {
            const PlanTensor& tensor = plan.tensors[i];
            if (tensor.layer != layer || tensor.name != model.activations[slot].name) continue;
            const Phase last = plan.steps[static_cast<size_t>(lives[i].last)].phase;
            if (last == Phase::Recompute || last == Phase::Backward) bytes += tensor.bytes;
            break;
        }
    }
    return bytes;
}

/// The costs of a model's layers that have a backward, from models like it with three layers (or fewer, if it has
/// fewer): one layer as asked for, the others keep everything. Where layers differ in what trains, a layer that trains
/// whatever one of them does.
class Measurement {
  public:
    Measurement(const Model& model, const PlanRequest& request, const OpTimes& times)
        : request_(request), times_(times) {
        // Which of a few layers' inputs would leave says nothing of many (go_to_host() below).
        request_.places[Buffer::Boundaries].memory = Memory::Device;
        costs_.lowest = GradientPath(model).lowest_layer();
        costs_.L = static_cast<int>(model.config.L) - costs_.lowest;
        small_ = with_layers(model, std::min(costs_.L, 3));
        costs_.modes = layer_modes(model);
        costs_.cost.resize(costs_.modes.size());
    }

    ModelCosts run() {
        measure_outside_of_layers();
        for (size_t mode = 0; mode < costs_.modes.size(); ++mode) {
            ModeCost& cost = costs_.cost[mode];
            const std::vector<bool>& slots = costs_.modes[mode].slots;
            cost.last_bytes = measure(L() - 1, slots, &cost);
            if (L() >= 2) cost.first_bytes = measure(0, slots, &cost);
            if (L() >= 3) cost.middle_bytes = measure(1, slots, &cost);
        }
        costs_.boundary_bytes = costs_.cost.front().kept_bytes;
        for (size_t mode = 0; mode < costs_.modes.size() && L() >= 3; ++mode) measure_walk(mode);
        return std::move(costs_);
    }

  private:
    int L() const { return static_cast<int>(small_.config.L); }
    const std::vector<bool>& everything() const { return costs_.modes.back().slots; }

    /// All layers keep everything, but for those that the caller changes.
    KeepSet keep_all() const {
        KeepSet keep;
        keep.slots.assign(static_cast<size_t>(L()), everything());
        keep.walk.resize(static_cast<size_t>(L()));
        keep.keep_last_layer = false;  // As in the plans found.
        return keep;
    }

    /// Largest need at a layer's own operations of the backward, repeated ones among them, beyond `others`. What
    /// communication stands between them needs no more than the operations around it.
    int64_t need_at(const Plan& plan, int layer, int64_t others) const {
        const Simulation simulation = simulate(small_, plan);
        int64_t need = 0;
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            const Step& step = plan.steps[i];
            const bool backward = step.phase == Phase::Recompute || step.phase == Phase::Backward;
            if (!step.is_operation() || step.layer != layer || !backward) continue;
            need = std::max(need, simulation.live_bytes[i] - others);
        }
        return need;
    }

    double repeated_seconds(const Plan& plan) const {
        double seconds = 0;
        for (const Step& step : plan.steps) {
            if (step.phase == Phase::Recompute) seconds += step_seconds(times_, step);
        }
        return seconds;
    }

    /// What does not depend on where the layer stands goes to `cost`.
    int64_t measure(int layer, const std::vector<bool>& slots, ModeCost* cost) {
        KeepSet keep = keep_all();
        keep.slots[static_cast<size_t>(layer)] = slots;
        const Plan plan = make_training_plan(small_, request_, keep, "measure");
        cost->kept_bytes = std::max(cost->kept_bytes, kept_bytes(plan, small_, layer, slots));
        cost->extra_seconds = repeated_seconds(plan);
        return need_at(plan, layer, layer * all_bytes_ + costs_.inputs_bytes);
    }

    void measure_outside_of_layers() {
        const Plan plan = make_training_plan(small_, request_, keep_all(), "measure");
        const Simulation simulation = simulate(small_, plan);
        all_bytes_ = kept_bytes(plan, small_, L() - 1, everything());
        costs_.inputs_bytes = plan.tensors.front().bytes;
        size_t first = plan.steps.size(), last = 0;  // Operations of layers.
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            const Step& step = plan.steps[i];
            if (!step.is_operation()) continue;
            if (step.row >= 0) first = std::min(first, i), last = i;
            if (step.phase != Phase::Head) continue;
            const int64_t kept = L() * all_bytes_ + costs_.inputs_bytes;
            costs_.head_bytes = std::max(costs_.head_bytes, simulation.live_bytes[i] - kept);
        }
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            if (i > first && i < last) continue;
            costs_.outside_bytes = std::max(costs_.outside_bytes, simulation.live_bytes[i]);
        }
        for (const Step& step : plan.steps) {
            const bool computes = step.is_operation() && step.row >= 0;
            const bool of_layer =
                (computes || (step.kind == StepKind::Unpack && step.layer >= 0)) && step.phase == Phase::Forward;
            if (of_layer) costs_.layer_seconds += step_seconds(times_, step) / L();
        }
    }

    /// The second of three layers loses its input, and the walk that brings it back starts from the first.
    void measure_walk(size_t mode) {
        KeepSet keep = keep_all();
        keep.slots[0] = costs_.modes[mode].slots;
        keep.slots[1].assign(everything().size(), false);
        const Plan plan = make_training_plan(small_, request_, keep, "measure");
        ModeCost& cost = costs_.cost[mode];
        if (mode == 0) costs_.walked_bytes = need_at(plan, 1, costs_.boundary_bytes + costs_.inputs_bytes);
        const double after_walk = cost.extra_seconds + costs_.cost.front().extra_seconds;
        cost.walk_seconds = repeated_seconds(plan) - after_walk;
        // With ZeRO 3 it takes the layer's parameters, however long those need to arrive.
        for (const Step& step : plan.steps) {
            if (step.layer != 0 || step.phase == Phase::Update) continue;
            const bool gathers = step.kind == StepKind::Gather;
            const bool fetches =
                step.kind == StepKind::Fetch && step.is_copy_of_state() && step.buffer != Buffer::Gradients;
            if (!gathers && !fetches) continue;
            cost.walk_seconds = std::max(
                cost.walk_seconds, gathers ? transfer_seconds(times_, plan, step)
                                           : static_cast<double>(copied_bytes(plan, step)) / times_.host_bandwidth);
        }
    }

    PlanRequest request_;
    const OpTimes& times_;
    Model small_;
    ModelCosts costs_;
    int64_t all_bytes_ = 0;  ///< A layer that keeps everything.
};

}  // namespace

namespace {

/// Inputs in host memory (host_boundaries.h) take nothing meanwhile, but for the last two; beside a layer's backward
/// comes that of the layer below. Where several come at once it is a little more than this: the arena decides.
void go_to_host(ModelCosts* costs) {
    const int64_t X = costs->boundary_bytes;
    for (ModeCost& cost : costs->cost) {
        cost.kept_bytes = std::max<int64_t>(0, cost.kept_bytes - X);
        cost.middle_bytes += X, cost.last_bytes += X;
    }
    costs->walked_bytes += X;
    costs->head_bytes += 2 * X;
}

}  // namespace

ModelCosts measure_layers(const Model& model, const PlanRequest& request, const OpTimes& times) {
    ModelCosts costs = Measurement(model, request, times).run();
    if (request.places.on_host(Buffer::Boundaries)) go_to_host(&costs);
    return costs;
}

}  // namespace llmc
