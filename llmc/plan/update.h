// The update at the end of a plan: the norm of the gradients, the optimiser bucket by bucket, and where a rank updates
// a piece of parameters that are kept whole, the gather of each bucket beside the update of the next.
//
// Where something of it is in host memory, a bucket is updated slice by slice, through slots on the device: while slice
// i is updated, i + 1 comes and i - 1 goes back. Slots live in the arena for as long as the update runs, and have the
// room of what only micro-batches need.
#pragma once

#include "llmc/plan/formats.h"
#include "llmc/plan/step.h"

namespace llmc {

/// The plan of a micro-batch with the steps of the update, which run after the last one.
Plan with_update(const Model& model, Plan plan);

/// Elements of a slice: an eighth of what a rank updates of the largest layer, but at most so many that they take 64
/// MiB in fp32; whole blocks.
int64_t slice_elements(const Model& model, const Partition& partition, bool updates_pieces);

/// Elements [first, end) of what a rank updates of a bucket, cut into slices.
std::vector<ElementRange> slices_of_bucket(const Model& model, const Plan& plan, int bucket);

}  // namespace llmc
