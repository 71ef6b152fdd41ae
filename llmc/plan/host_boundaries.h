// Layer boundaries in host memory, in a plan that is there already, whatever policy made it: an input that survives the
// forward is copied out beside the forward of its layer and of the next, and comes back, as another tensor, beside the
// backward of the layer above the one that first asks for it (cf. Rhu et al. 2016, "vDNN").
#pragma once

#include "llmc/plan/step.h"

#include <vector>

namespace llmc {

/// The plan with those of the inputs that `chosen` names by layer; where it is empty, with all that some step of the
/// backward reads, but for the last two layers', which would come back at once. None whose layer is asked for first.
/// Plan::places say in the end whether any was moved.
Plan with_boundaries_on_host(const Model& model, Plan plan, const std::vector<bool>& chosen);

}  // namespace llmc
