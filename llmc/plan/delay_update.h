// The delayed update: each bucket of the update before, where it is pending, is updated in the forward of the first
// micro-batch, before the first step that touches its parameters or overwrites its gradients. What comes from host
// memory for it, or goes back, and gathers of ranks do so beside the layers before: an operation that takes as long as
// several slices hides as many as there are slots for (Plan::update_ahead).
#pragma once

#include "llmc/plan/step.h"

namespace llmc {

/// The plan of a micro-batch, whose gradients are all written by steps that are there already, with that in its
/// forward.
Plan with_pending_update(const Model& model, Plan plan);

/// By bucket, the first step of the plan's micro-batch that its update must come before: that reads its parameters or
/// fetches or gathers them, or that writes its gradients.
std::vector<int> first_uses(const Model& model, const Plan& plan);

}  // namespace llmc
