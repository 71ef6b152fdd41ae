// The search behind --recompute=auto: the fastest keep-set whose arena stays within a budget.
//
// What it chooses from. Every layer survives the forward in one of a few modes (how much of it is kept), or it belongs
// to a segment of which only the first input survives; inside a segment, inputs come back by optimal checkpointing of a
// chain. The last layer's internals may be used as the forward left them, or be given up to make room for the head.
// With ZeRO 3 a segment's first layer may keep more: without a walk before it, its own backward can need the most
// memory.
//
// How. Two dynamic programs over the same numbers the simulator gives:
//   R(n, m), the extra time of a segment of n layers with room for m more boundaries, by the recurrence of optimal
//   checkpointing (Griewank & Walther 2000; for chains with unequal costs Beaumont et al. 2019):
//     R(1, m) = repeat one layer without its last matmul
//     R(n, m) = min over q of  q F + R(n - q, m - 1) + R(q, m)
//     R(n, 0) = (n - 1) F + R(1, 0) + R(n - 1, 0)
//   and over it a Pareto front of (bytes that survive layers 0..l, extra time), exact to the byte: a state is dropped
//   only if another is no larger and no slower. Recomputed layers come first and kept ones last wherever that is
//   better, since a layer's repeated internals then lie where later layers' kept ones have been freed.
// The plan found is generated, simulated and laid out like every other; its arena decides. Communication between ranks
// counts with its bytes; in the choice among plans it is taken to hide behind the operations, but for a walk's gathers.
#pragma once

#include "llmc/plan/cost.h"
#include "llmc/plan/generate.h"
#include "llmc/plan/layer_costs.h"
#include "llmc/plan/layout.h"

#include <functional>
#include <string>
#include <vector>

namespace llmc {

/// The plan found, or the smallest one and why it is not enough.
struct SearchResult {
    bool found = false;  ///< Then the arena that make_layout() gives the plan is within the budget.
    KeepSet keep;
    Plan plan;
    double seconds = 0;          ///< Of one micro-batch.
    int64_t smallest_bytes = 0;  ///< If nothing was found: the smallest arena there is ...
    std::string binding_step;    ///< ... and the step that needs it.
    std::string summary;         ///< "layers 0-3 boundary, 4-11 act": the keep-set in words.
};

/// How many plans are laid out where arenas have gaps: for a run, or for one of many answers. What is found is within
/// the budget either way.
enum class SearchEffort : uint8_t { Thorough, Quick };

/// What a plan may take of both memories.
struct SearchBudget {
    SearchBudget(int64_t device, int64_t host = 0) : device_bytes(device), host_bytes(host) {}
    int64_t device_bytes;    ///< Of the arena.
    int64_t host_bytes = 0;  ///< Of what the plan copies to host memory: inputs of layers.
};

/// The fastest plan whose arena stays within the budget. Only layers with a backward (model/trainable.h) are decided.
/// With host memory, a layer's input may go there instead of staying; what the link to it cannot move beside the
/// operations counts (plan_seconds()), and where nothing is gained nothing goes. No fixed policy that stays within the
/// budget is faster.
SearchResult search_plan(const Model& model, const PlanRequest& request, const OpTimes& times,
                         const SearchBudget& budget, SearchEffort effort = SearchEffort::Thorough);

/// Whether the smallest plans fit; then search_plan() finds something, too. Sooner than that, and where an arena has
/// gaps sometimes more careful.
bool search_fits(const Model& model, const PlanRequest& request, const OpTimes& times, const SearchBudget& budget);

/// Extra time of bringing back a segment: R(n, m) above, with full forward time `layer_seconds` and repeat time
/// `repeat_seconds`, and where to split. Exposed for the tests, which hold it against closed forms.
class ChainCheckpointing {
  public:
    ChainCheckpointing(int max_layers, double layer_seconds, double repeat_seconds);
    double seconds(int layers, int slots) const { return entry(layers, slots).seconds; }
    /// Walks that start from the segment's first layer.
    int walks(int layers, int slots) const { return entry(layers, slots).walks; }
    /// Boundaries to hold on to while walking through a segment of `layers` that starts at layer `first` with `slots`
    /// free, written to walk[...] for every layer of the segment.
    void fill_walks(int first, int layers, int slots, std::vector<std::vector<int>>* walk) const;

  private:
    struct Entry {
        double seconds = 0;
        int split = 0;  ///< Layers before the boundary held; 0: none held.
        int walks = 0;
    };
    const Entry& entry(int layers, int slots) const;
    int max_layers_;
    std::vector<Entry> table_;
};

}  // namespace llmc
