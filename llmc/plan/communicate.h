// Communication of a plan: gathers of parameters and reductions of gradients as steps of the list, put into a plan that
// is there already, whatever policy made it. What travels when:
//
//   always                  gradients of a bucket are reduced after the last step that adds to them, in place, while
//                           the backward goes on below
//   sums are shared         ... and then sent to all ranks, while it goes on another layer
//   gradients in pieces,    they live in a tensor of the plan, from the first such step until the reduction is over, in
//   or rounded              every micro-batch; of a single rank, until a step has added them to those that are kept
//   parameters in pieces    they are gathered into a tensor of the plan while the layer before (in the order of the
//                           list) works, for every run of steps that reads them: forward, repeat, backward; frozen ones
//                           by a step and into a tensor of their own
//
//   parameters in host      they are fetched, as they would be gathered; a rank's piece is fetched, and gathered half
//   memory                  way to the steps that read it
//   gradients in host       those that are kept come to the device a bucket ahead of the steps that add to them (of
//   memory                  later micro-batches), and go back when the bucket is complete, after their sums of squares;
//                           those of a micro-batch that are apart from them join them on the device
//
// What is begun is waited for in the order in which it was begun, as comm.h asks for. So a reduction is waited for
// before the next one begins, or before a gather that was begun after it is needed, whichever is earlier.
#pragma once

#include "llmc/plan/step.h"

#include <array>

namespace llmc {

/// The plan with its communication, and the copies from and to host memory beside it; the same plan where one rank has
/// all it needs on the device.
Plan with_communication(const Model& model, Plan plan);

/// The bucket whose parameters or gradients an operation, or an Unpack, uses; kNone for steps without.
int bucket_of(const Model& model, const Partition& partition, const Step& step);

/// Indices of an operation's weight and bias (positions, for the embedding) in Model::parameters, and of the row that
/// an Unpack is about; kNone where absent.
std::array<int, 2> parameters_of(const Model& model, const Step& step);

/// Whether a step is an operation (or an Unpack) that reads parameters, or one that writes gradients of trainable ones.
bool reads_parameters(const Step& step);
bool writes_gradients(const Model& model, const Step& step);

}  // namespace llmc
