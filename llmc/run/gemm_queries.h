// The matrix products of a plan, for a backend whose library has several algorithms for each.
#pragma once

#include "llmc/base/gemm_algorithms.h"
#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <vector>

namespace llmc {

/// Every product that the executor forms of the plan's micro-batches, each once, in order; those of adapters, which are
/// no library's, left out. A function of the model, its blocks and chunks: the same for every policy.
std::vector<GemmQuery> gemm_queries(const Model& model, const Plan& plan);

}  // namespace llmc
