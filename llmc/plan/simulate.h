// What a plan costs: lifetimes of its tensors, memory at every step, the peak and where it stands, FLOPs per phase.
// Walks the same list the layout and the executor walk.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <array>
#include <vector>

namespace llmc {

/// Steps during which a tensor's storage is occupied, both ends included.
struct Lifetime {
    int first = 0, last = -1;
    bool overlaps(const Lifetime& other) const { return first <= other.last && other.first <= last; }
};

/// The tensor whose storage `tensor` uses: itself, or what it works in place on.
int32_t storage_of(const Plan& plan, int32_t tensor);

/// By tensor; a tensor that aliases another has its lifetime merged into that one's and an empty one itself.
std::vector<Lifetime> lifetimes(const Plan& plan);

struct Simulation {
    std::vector<int64_t> live_bytes;  ///< By step.
    int64_t peak_bytes = 0;           ///< Largest of live_bytes: what no layout can go below.
    int peak_step = 0;
    std::array<int64_t, kNumConsumers> by_consumer = {};  ///< At the peak.
    int64_t layer_activation_bytes = 0;                   ///< Largest sum of boundaries and layer internals.
    int64_t activation_bytes = 0;                         ///< Largest sum without inputs, workspace and communication.
    double forward_flops = 0, recompute_flops = 0, backward_flops = 0;
    /// Work that a run without recomputation would not do, as a share of all its work.
    double extra_flops_ratio() const { return recompute_flops / (forward_flops + backward_flops); }
};

Simulation simulate(const Model& model, const Plan& plan);

/// What a step computes and moves; nothing for copies and communication, which run beside others. The backward of
/// attention runs so many products.
OpCost step_cost(const Model& model, const Plan& plan, const Step& step, int attention_backward_products);

/// FLOPs of one step, by the formulas: whatever a kernel computes more does not count.
double step_flops(const Model& model, const Plan& plan, const Step& step);

/// "layer 3, backward of fc", "head, reduce gradients": a step in words.
std::string describe_step(const Model& model, const Step& step);

}  // namespace llmc
