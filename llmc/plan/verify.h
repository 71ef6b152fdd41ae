// The verifier: a plan and its layout are right if every operand is written before it is read and still intact then.
// It runs on every plan at start-up (it costs less than a millisecond per thousand steps) and in the tests.
#pragma once

#include "llmc/plan/layout.h"

#include <string>

namespace llmc {

/// Empty if the plan is right; otherwise the first fault, in words: a read of something not yet written, a tensor
/// overwritten by another while still needed, an offset outside the arena or misaligned; of copies, one that nothing or
/// something else waits for, a tensor fetched from where it is not, or touched while it is under way. Of gathers and
/// reductions, the same, waits in another order than they began, parameters of another bucket than a step reads, or
/// gradients not zeroed first, not reduced, reduced twice, or reduced before the last step that adds to them. Of packed
/// sequences, a step that does not know where documents begin; of scored rows, a head that has others. Of fused
/// steps, one that may be none, or one that is missing.
std::string find_fault(const Model& model, const Plan& plan, const Layout& layout);

}  // namespace llmc
