// Layout: offsets in one arena for every tensor of a plan, by lifetimes. Tensors whose lifetimes do not overlap may
// share bytes. The arena's size is what the trainer allocates, once.
#pragma once

#include "llmc/plan/simulate.h"

namespace llmc {

struct Layout {
    std::vector<int64_t> offsets;  ///< By tensor, multiples of kPlanAlignment; an alias has its storage's offset.
    int64_t arena_bytes = 0;
};

/// Tries a few placement orders (Pisarchyk & Lee 2020, "Efficient memory management for deep neural net inference":
/// greedy by size, and relatives) and returns the smallest arena found. Stops early when one meets the lower bound, the
/// largest sum of live bytes.
Layout make_layout(const Plan& plan);

/// The number of tokens the classifier should take at a time: as many as fit in the memory that is free at the head
/// anyway, since the backward of a layer needs more; at least kMinLogitsChunk, at most N. It depends on the model and
/// the shape only, never on the policy: the order of the head's sums, and so the bits, are the same for all.
int64_t default_logits_chunk(const Model& model, const BatchShape& shape, DType dtype);

}  // namespace llmc
