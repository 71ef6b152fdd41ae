// The part of a plan that stands between the last layer's forward and its backward: final norm, classifier, loss.
#pragma once

#include "llmc/plan/plan_builder.h"

#include <cstdint>

namespace llmc {

/// Final norm and classifier of `x`, the last layer's output; for training their backward too, since the classifier
/// makes its gradients at once. Returns the gradient of `x`; kNone where nothing wants it.
int32_t add_head(PlanBuilder* builder, int32_t x, bool training);

/// The logits of the last of new tokens.
void add_generation_head(PlanBuilder* builder, int32_t x);

}  // namespace llmc
