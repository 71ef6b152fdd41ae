// Fusion: steps that the backend runs as one become one step, StepKind::Fused. So does a step by itself, whose
// operation the backend has in another form than usual.
//
// Which steps those are must not depend on the policy, or policies would differ in their bits. Between two parts of a
// run of the forward or backward nothing ever stands that is the same in all plans: only repeats, copies, gathers,
// reductions, waits and zeroing. They are moved ahead of the run, or, what needs something of it (the reduction of
// gradients that it writes), behind. What is moved keeps its order, and nothing passes a step that it has to follow:
// what one of them writes and the other touches, gradients and what is done with their bucket, communication among
// itself. Repeats read activations and parameters, which no backward step writes, so they can always go ahead. That
// what was moved still finds what it reads is for verify.h to say, as of every plan.
//
// A run of forward operations is one only if that has the bits of its separate steps: some policies repeat a part of
// it alone.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <string>
#include <vector>

namespace llmc {

/// The plan with every run of steps that is in the list as one step; the runs that come first are preferred. What only
/// such a step touches and the backend does not store is no tensor of the plan any more.
Plan with_fusion(const Model& model, Plan plan, const std::vector<FusedRun>& runs);

/// Whether what a fused step consists of is one of Plan::fusions; what is wrong with it in words, or empty.
std::string fault_of_fused(const Plan& plan, const Step& step);

/// The first step of Plan::steps that should be one with others, and is not; -1 if there is none.
int left_apart(const Plan& plan);

/// "backward of gelu + weight gradient of fc": what the plan has fused, each kind once; empty if nothing.
std::vector<std::string> fused_names(const Model& model, const Plan& plan);

}  // namespace llmc
