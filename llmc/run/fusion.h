// Which operations of a model a backend runs as one: from the rows of the block, by asking Backend::fuses().
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/model/model.h"
#include "llmc/plan/fused_run.h"

#include <vector>

namespace llmc {

/// For the plan pass (plan/fuse.h). A function of model, shape, type and kind of device with its library: no policy,
/// budget or number of ranks can change it.
std::vector<FusedRun> fused_runs(const Model& model, const BatchShape& shape, int64_t block_tokens, DType dtype,
                                 const Backend& backend);

/// Of an operation that is one.
ActivationFunction activation_of(OpKind kind);

}  // namespace llmc
