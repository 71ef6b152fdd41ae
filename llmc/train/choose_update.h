// --update: whether a plan's update comes at once or is delayed, and how many slices of it are under way at a time.
#pragma once

#include "llmc/train/choose_plan.h"

namespace llmc {

/// Predicts the step's time of a plan that was chosen with an update at once (with --update=delayed, delayed), and of
/// delays that fit takes the fastest. With --update=auto there is one where something of the update comes from host
/// memory, and it is predicted to be faster; not with --check-ranks, which would flush every update. Where a search has
/// left no room for the slots, it searches again with less.
void choose_update(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                   const Backend& backend, ChosenPlan* chosen);

}  // namespace llmc
