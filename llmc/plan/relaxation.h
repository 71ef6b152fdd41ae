// A bound that no plan beats: how fast a micro-batch could be in so much memory if every operation of a layer could be
// repeated for a fraction of its time, and give a fraction of its bytes, and if memory had no other bottleneck than the
// moment at which most survives. It tells how far what a search found may be from the best there is.
#pragma once

#include "llmc/plan/search.h"

namespace llmc {

/// Seconds of one micro-batch (and the update, as SearchResult::seconds counts it) that no plan goes below whose arena
/// stays within the budget, whatever its keep-set.
///
/// At the head all that survives the forward is there beside the inputs and what the head itself needs. What a layer's
/// backward reads and does not find there has been repeated by then, at least once: every operation that wrote it. The
/// least time for which the rest fits is a fractional knapsack over tensors (Dantzig 1957): those that cost the least
/// time per byte are repeated first. An operation with several outputs is paid by each in proportion to its bytes,
/// which adds up to at most its time. Copies and communication count as hidden, but for what a link needs in all. With
/// host memory in the budget the inputs of layers take none of the device's.
double relaxed_seconds(const Model& model, const PlanRequest& request, const OpTimes& times,
                       const SearchBudget& budget);

}  // namespace llmc
