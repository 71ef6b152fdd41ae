// The generator: model table + what survives -> the list of steps. One function for every policy; what must be brought
// back is found by walking operands from what the backward reads, so an operation whose output no backward reads (the
// last matmul of a block) is never repeated, with no special case. Frozen parameters (model/trainable.h) are the same
// walk from fewer steps: no weight gradient of theirs, and below the first trainable row no backward.
#pragma once

#include "llmc/plan/policy.h"
#include "llmc/plan/step.h"

namespace llmc {

/// Scratch bytes of the backend, per block row and for the operations outside blocks. Plain numbers, so that planning
/// needs no device; run/workspaces.h fills them from a backend's formulas.
struct WorkspaceBytes {
    struct Row {
        int64_t forward = 0, backward = 0;
        int64_t backward_in_place = 0;  ///< Where the gradient of the input takes the input's place.
    };
    std::vector<Row> block;  ///< By row of Model::block.
    Row embedding, final_norm;
    Row classifier;  ///< The matmuls of one chunk. forward: of evaluation and generation, backward: of training.
};

struct PlanRequest {
    BatchShape shape;
    int64_t logits_chunk_tokens = 0;  ///< Tokens the classifier handles at a time, 1 .. N.
    int64_t block_tokens = 0;         ///< Token-wise operations have so many tokens at a time (token_blocks.h); 0: all.
    int64_t tile_tokens = 0;          ///< Whole blocks that a layer's internals live for (tiles.h); 0: all tokens.
    WorkspaceBytes workspace;         ///< `block` may be empty: no workspaces.
    Parallel parallel;                ///< With more than one rank, plans get their communication (communicate.h).
    Places places;
    std::vector<FusedRun> fusions;  ///< What the backend runs as one (fuse.h).
    int update_ahead = 0;           ///< Of Plan; 0: the update comes right after the last micro-batch.
    DType dtype() const { return places.activations(); }
};

/// One training micro-batch, and the update after the last of them, or its norm alone where the rest is delayed.
Plan make_training_plan(const Model& model, const PlanRequest& request, const PolicyRow& policy);
/// The same from an explicit keep-set (searches, tests).
Plan make_training_plan(const Model& model, const PlanRequest& request, const KeepSet& keep, const std::string& name);

/// Losses only: forward, with every activation dying as soon as it can.
Plan make_evaluation_plan(const Model& model, const PlanRequest& request);

/// Generation for one sequence: up to `request.shape.T` new tokens at a time (shape.B = 1) over a key/value cache of
/// `cache_tokens` positions; writes the logits of the last new token.
Plan make_generation_plan(const Model& model, const PlanRequest& request, int64_t cache_tokens);

}  // namespace llmc
