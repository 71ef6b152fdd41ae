// Gradients of parameters in a plan that is there already: who writes what first. The first step of an update that
// writes a row of gradients whole overwrites it, later ones add, so nothing has to be zeroed before; where gradients
// live in tensors of the plan, the first step of every micro-batch. Only what nobody writes whole is zeroed, by a step:
// the embedding's rows, positions beyond T, gaps between rows and the padding of buckets.
#pragma once

#include "llmc/plan/step.h"

#include <vector>

namespace llmc {

/// The plan with Step::adds set for every step that writes gradients, and ZeroGradients steps put in. Micro-batches
/// that are summed in a tree of their own (Parallel::rank_invariant) also get the step that adds them up.
Plan with_gradient_writes(const Model& model, Plan plan);

/// Elements from the beginning of a parameter's row that a step writes whole.
struct WrittenRow {
    int parameter = kNone;
    int64_t elements = 0;
};
/// What a step of a plan writes of gradients; nothing of rows it only adds to here and there (an embedding's).
std::vector<WrittenRow> rows_written(const Model& model, const Plan& plan, const Step& step);

/// By bucket, the ranges in elements of it that no step of the plan writes whole: what ZeroGradients zeroes.
std::vector<std::vector<ElementRange>> ranges_to_zero(const Model& model, const Plan& plan);

}  // namespace llmc
