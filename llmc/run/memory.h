// The whole memory of a run, as rows of a table: what training state needs besides the arena of activations. Host
// formulas only; state.h allocates exactly these bytes.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/model/model.h"
#include "llmc/plan/cost.h"
#include "llmc/plan/generate.h"
#include "llmc/plan/layout.h"

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct MemoryRow {
    std::string name;
    int64_t bytes = 0;
};

/// What plans copy to host memory.
constexpr std::string_view kHostMemoryRow = "boundaries in host memory";

/// The flat buffers of one rank in one memory, in the order of the memory table. Inference needs the parameters only.
struct StateBytes {
    int64_t parameters = 0;  ///< In the activation type; the trainable ones, as in the rows below.
    int64_t gradients = 0;
    int64_t partial_sums =
        0;  ///< Gradients of some micro-batches, summed: only where the order of sums is the ranks' own.
    int64_t moment_m = 0, moment_v = 0;  ///< v only where the optimiser has it.
    int64_t master = 0;                  ///< fp32 master weights; 0 where there are none.
    int64_t frozen = 0;                  ///< Parameters that do not train, as they are stored (plan/stored_row.h).
    int64_t rope_table = 0;              ///< 0 with learned positions.
    int64_t scalars = 0;                 ///< Loss sum, controls, gradient norm and what it is summed from.
    int64_t moments() const { return moment_m + moment_v; }
    int64_t total() const {
        return parameters + gradients + partial_sums + moments() + master + frozen + rope_table + scalars;
    }
    std::vector<MemoryRow> rows() const;
};

/// Of what the table of places has in this memory.
StateBytes state_bytes(const Model& model, const Places& places, int64_t T, const Parallel& parallel, bool training,
                       Memory memory = Memory::Device);

/// Sums of micro-batches that wait for their partners while a rank adds up `micro_batches` in a binary tree.
int partial_sum_count(const Parallel& parallel);

/// The state's few numbers besides the flat buffers, as offsets in one allocation.
struct ScalarsLayout {
    int64_t loss_sum = 0, bytes = 0;
    // Of training only.
    int64_t position = 0, loss_scale = 0, controls = 0, factors = 0, grad_norm = 0, norm_pieces = 0, norm_sums = 0;
};
ScalarsLayout scalars_layout(const Partition& partition, bool training);
NormLayout norm_layout(const Partition& partition);

/// The backend's scratch sizes for every operation of the model at this shape, where operations have so many tokens at
/// a time.
WorkspaceBytes workspace_bytes(const Model& model, const BatchShape& shape, DType dtype, const TokensAtOnce& at_once,
                               const Backend& backend);

/// Everything about one policy at one shape.
struct PlannedMemory {
    Plan plan;
    Simulation simulation;
    Layout layout;
    StateBytes state, host_state;
    int64_t total_bytes() const { return state.total() + layout.arena_bytes; }
    /// State rows, then the arena by consumer at its peak; they sum up to total_bytes().
    std::vector<MemoryRow> rows() const;
    /// Memory of the host besides: what the table of places has there, and what the plan copies there.
    int64_t host_bytes() const { return host_state.total() + plan.host_bytes; }
    /// They sum up to host_bytes().
    std::vector<MemoryRow> host_rows() const;
};

/// The plan request that plan_memory() makes: chunk, blocks, workspaces and, unless told not to, what is fused filled
/// in. A number of tokens that is 0 is chosen for the backend's kind of device: default_logits_chunk(),
/// default_block_tokens().
PlanRequest plan_request(const Model& model, const BatchShape& shape, const Places& places, const TokensAtOnce& at_once,
                         const Backend& backend, const Parallel& parallel = {}, bool fuses = true);

/// Wraps a plan that is there already.
PlannedMemory with_memory(const Model& model, Plan plan);

PlannedMemory plan_memory(const Model& model, const BatchShape& shape, const Places& places, const PolicyRow& policy,
                          const TokensAtOnce& at_once, const Backend& backend, const Parallel& parallel = {},
                          bool fuses = true);

}  // namespace llmc
