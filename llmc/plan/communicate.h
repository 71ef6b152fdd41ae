// Communication of a plan: gathers of parameters and reductions of gradients as steps of the list, put into a plan that
// is there already, whatever policy made it. What travels when:
//
//   ZeRO 0, 1   gradients of a bucket are reduced after the last step that adds to them, in place, while the backward
//               goes on below; at stage 0 the sums are then shared, while it goes on another layer
//   ZeRO 2      they live in a tensor of the plan, from the first such step until the reduction is over
//   ZeRO 3      also the parameters: gathered into a tensor of the plan while the layer before (in the order of the
//               list) works, for every run of steps that reads them: forward, repeat, backward
//
// What is begun is waited for in the order in which it was begun, as comm.h asks for. So a reduction is waited for
// before the next one begins, or before a gather that was begun after it is needed, whichever is earlier.
#pragma once

#include "llmc/plan/step.h"

namespace llmc {

/// The plan with its communication; the same plan where `parallel` has one rank.
Plan with_communication(const Model& model, Plan plan, const Parallel& parallel);

/// The bucket whose parameters or gradients an operation uses; kNone for operations without.
int bucket_of(const Model& model, const Partition& partition, const Step& step);

/// Whether a step is an operation that reads parameters, or one that adds to their gradients.
bool reads_parameters(const Step& step);
bool adds_to_gradients(const Step& step);

}  // namespace llmc
