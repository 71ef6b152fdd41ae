// The update of a plan: the norm of the gradients after the last micro-batch, the optimiser bucket by bucket, and where
// a rank updates a piece of parameters that are kept whole, the gather of each bucket beside the update of the next.
//
// Where something of it is in host memory, a bucket is updated slice by slice, through slots on the device: while slice
// i is updated, i + 1 comes and i - 1 goes back. Slots live in the arena for as long as the update runs, and have the
// room of what only micro-batches need.
//
// The optimiser comes right after the norm, or is delayed (Plan::update_ahead): each bucket's part then stands in the
// forward of the first micro-batch (When::Pending), before the first step that touches its parameters (delay_update.h),
// and the whole once more at the end of the list (When::Flush). The same steps about the same elements, so the same
// bits.
#pragma once

#include "llmc/plan/formats.h"
#include "llmc/plan/step.h"

namespace llmc {

/// The plan of a micro-batch with the steps of the update.
Plan with_update(const Model& model, Plan plan);

/// The optimiser's steps, in parts that others may stand between: slice by slice, or bucket by bucket.
struct UpdateParts {
    std::vector<std::vector<Step>> parts;
    /// By bucket, the part with which its parameters are what they become, but for the wait below; -1: nothing in it
    /// trains.
    std::vector<int> complete_with;
    std::vector<Step> waits;  ///< By bucket, the wait for its gather, which no part has. Others have a bucket of -1.
};
/// Adds the tensors that they need to the plan, and no steps. `ahead`: while a slice is updated, so many of those after
/// it come, and as many of those before it go back.
UpdateParts update_parts(const Model& model, Plan* plan, When when, int ahead);

/// Elements of a slice: an eighth of what a rank updates of the largest layer, but at most so many that they take 64
/// MiB in fp32; whole blocks.
int64_t slice_elements(const Model& model, const Partition& partition, bool updates_pieces);

/// Elements [first, end) of what a rank updates of a bucket, cut into slices.
std::vector<ElementRange> slices_of_bucket(const Model& model, const Plan& plan, int bucket);

}  // namespace llmc
