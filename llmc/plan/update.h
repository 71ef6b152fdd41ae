// The update at the end of a plan: the norm of the gradients, the optimiser bucket by bucket, and where a rank updates
// a piece of parameters that are kept whole, the gather of each bucket beside the update of the next.
#pragma once

#include "llmc/plan/step.h"

namespace llmc {

/// The plan of a micro-batch with the steps of the update, which run after the last one.
Plan with_update(const Model& model, Plan plan);

}  // namespace llmc
