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

/// Whether make_layout() finds an arena of at most so many bytes, without looking for a smaller one than that; and the
/// bytes that no layout goes below. A quick look may miss an arena with hardly a gap.
struct ArenaFit {
    bool fits = false;
    int64_t bound_bytes = 0;
};
ArenaFit arena_within(const Plan& plan, int64_t bytes, bool quick = false);

}  // namespace llmc
