// A plan: the linear list of steps of one update: a micro-batch (which is walked as often as the update has some), and
// after the last one the norm, the optimiser and what ranks send each other for it; and the tensors those steps touch.
// The optimiser may be delayed: then it stands in the forward of the next update's first micro-batch, and once more at
// the end, for whoever cannot wait for that.
// Evaluation and generation have plans without an update. Plain data: it can be printed, compared, simulated, laid out,
// verified and executed, and nothing in it says why a step is there. generate.cpp makes it; run/executor.cpp walks it.
// One printed plan (print.h, or `train_gpt plan --list-steps`) explains more than this file.
#pragma once

#include "llmc/base/dtype.h"
#include "llmc/model/op.h"
#include "llmc/plan/fused_run.h"
#include "llmc/plan/partition.h"
#include "llmc/plan/places.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmc {

/// What a step is. A copy begins with its step, after the steps before it, and runs beside the steps after it, until a
/// step waits for it: only then may the storage it was copied out of be reused, or the tensor it fetched be read.
enum class StepKind : uint8_t {
    Compute,  ///< An operation of the model.
    Fused,    ///< Several of them that the backend runs as one (fuse.h).
    Unpack,   ///< Out gets a row of parameters as operations read it (unpack.h).
    // Of a tensor of the plan (`bucket` < 0), or of `elements` of `bucket` of `buffer`, which is kept in host memory.
    CopyOut,      ///< In goes to host memory.
    WaitCopyOut,  ///< In has been copied out.
    Fetch,        ///< Out comes from host memory.
    WaitFetch,    ///< Out has been fetched.
    // Gradients of `bucket` (gradients.h).
    ZeroGradients,  ///< What no step of the micro-batch writes whole becomes 0.
    AddGradients,   ///< Those of the micro-batch, in ParameterGradients, join those that are kept.
    FoldGradients,  ///< The micro-batch joins the tree of sums, whose order is that of its number: of `bucket`, whose
                    ///< gradients are in KeptGradients, or of all.
    // Communication between ranks (communicate.h). A bucket is reduced or gathered from its step to its wait.
    Reduce,      ///< This rank's piece of the gradients of `bucket` is summed over ranks, in place.
    WaitReduce,  ///< They have been; where those of a micro-batch are apart, this rank's piece of ParameterGradients
                 ///< joins those that are kept.
    Share,       ///< Where every rank wants all sums of `bucket`: each gets the pieces of the others.
    WaitShare,   ///< It has.
    Gather,      ///< Parameters, or FrozenParameters, gets every rank's piece of `bucket` of `buffer`: a tensor of the
                 ///< plan, or the whole that is kept.
    WaitGather,  ///< It has.
    // The update (update.h).
    SquareSums,   ///< Of this rank's piece of the gradients of `bucket`.
    GatherSums,   ///< Every rank has all of them.
    BeginUpdate,  ///< The norm, and from it and the controls what the optimiser needs for every element.
    Update,       ///< The optimiser, on `elements` of what this rank updates of `bucket`, from `first_element` on.
};

/// In which micro-batches of an update a step runs.
enum class When : uint8_t {
    Always,
    First,
    Last,
    AfterFirst,
    Pending,  ///< The first, if the update before is pending: its norm is there, and it has changed nothing yet.
    Flush,    ///< None: between two updates, where a pending one is to be over at once.
};

/// Whether a step that writes gradients of parameters whole adds to what is there: the first writer of an update (or,
/// where gradients live for a micro-batch only, of a micro-batch) does not. An update that does not only writes
/// parameters: they become the rounded masters.
enum class Adds : uint8_t { Always, AfterFirst, Never };

/// Fixed operand slots of a step. A slot holds an index into Plan::tensors, or kNone.
enum class Slot : uint8_t {
    In,                  ///< Input of the forward operation.
    Residual,            ///< Added to a matmul's output.
    Out,                 ///< Output of the forward operation.
    Stat0,               ///< Mean (LayerNorm), log-sum-exp (attention), keys' cache (generation).
    Stat1,               ///< Reciprocal standard deviation (norms), values' cache (generation).
    DOut,                ///< Gradient of the output.
    DIn,                 ///< Gradient of the input.
    Tokens,              ///< Token ids (embedding) or targets (classifier).
    Logits,              ///< The classifier's chunk; after the cross-entropy of training, their gradient.
    Losses,              ///< One loss per token.
    Workspace,           ///< Scratch of the backend; of a Reduce, what other ranks send.
    Parameters,          ///< The bucket's trainable parameters, where they are gathered for the step ...
    FrozenParameters,    ///< ... and the frozen ones.
    ParameterGradients,  ///< The bucket's gradients of a micro-batch, where they exist only around its backward; or
                         ///< those that are kept, while they are here from host memory.
    KeptGradients,       ///< Those that are kept, while they are here, for what is apart from them to join.
    // What an update has here of what is kept in host memory.
    Masters,
    MomentM,
    MomentV,
    Documents,  ///< Where documents begin in packed sequences: of what goes by positions, or attends.
    Rows,       ///< Of ScoredRows, for every row that is written which row is read.
    MaskRows,   ///< Of what drops: what masks of a row are drawn by (base/dropout.h).
    Weight,     ///< The operation's weight, where it has been unpacked for it ...
    Bias,       ///< ... and its bias (positions, for the embedding).
};
constexpr int kNumSlots = 23;
/// Where a step has what is gathered of these parameters.
constexpr Slot slot_of(Buffer parameters) {
    return parameters == Buffer::Frozen ? Slot::FrozenParameters : Slot::Parameters;
}
/// Where an update has what is kept of this buffer in host memory.
constexpr Slot update_slot_of(Buffer buffer) {
    switch (buffer) {
        case Buffer::Masters: return Slot::Masters;
        case Buffer::MomentM: return Slot::MomentM;
        case Buffer::MomentV: return Slot::MomentV;
        case Buffer::Gradients: return Slot::ParameterGradients;
        default: return Slot::Parameters;
    }
}

/// Where in the update a step stands; for people, and for counting repeated work.
enum class Phase : uint8_t { Forward, Head, Recompute, Backward, Update };
constexpr int kNumPhases = 5;

struct Step {
    StepKind kind = StepKind::Compute;  ///< Others have no operation: `op`, `pass` and `row` mean nothing then.
    OpKind op = OpKind::Matmul;
    Pass pass = Pass::Forward;
    Phase phase = Phase::Forward;
    When when = When::Always;
    Adds adds = Adds::Always;
    int16_t layer = -1;       ///< -1: embedding, final norm, classifier.
    int16_t row = -1;         ///< Row of Model::block; -1 outside layers.
    bool accumulate = false;  ///< DIn += instead of =.
    bool rope = false;  ///< Out is rotated after it is computed; DOut is rotated back, in place, before its first use:
                        ///< of a split backward, by the step that comes first.
    int64_t host_offset = -1;            ///< CopyOut, Fetch of a tensor of the plan: where in host memory.
    int16_t bucket = -1;                 ///< Of Plan::partition, and Plan::frozen.
    Buffer buffer = Buffer::Parameters;  ///< Gather, CopyOut, Fetch and their waits: what travels.
    int64_t elements = 0;                ///< ZeroGradients, AddGradients, SquareSums, Update, CopyOut, Fetch. Of an
                                         ///< Unpack, bytes that it reads and writes; so of an operation whose DIn
                                         ///< takes the place of In, what it moves for that.
    int32_t parameter = -1;              ///< Unpack: of Model::parameters.
    int64_t first_element = 0;           ///< Update, CopyOut, Fetch: counted from the begin of the bucket ...
    bool own_piece = false;              ///< ... or of this rank's piece of it.
    int64_t first_token = 0;  ///< Classifier and cross-entropy: the chunk, rows of In, DIn, Tokens and Losses ...
    int64_t tokens = 0;       ///< ... and the first so many of Logits. 0: in generation, the last row of In.
                              ///< Token-wise operations of layers: the tile; 0: all tokens.
    int16_t fusion = -1;      ///< Fused: of Plan::fusions.
    float share = 1;          ///< A part of a fused step: FusedPart::share.
    std::vector<Step> parts;  ///< Fused: the operations; the step itself has no operands.
    std::array<int32_t, kNumSlots> operands;

    bool is_operation() const { return kind == StepKind::Compute || kind == StepKind::Fused; }
    bool is_communication() const { return kind >= StepKind::Reduce && kind <= StepKind::WaitGather; }
    bool is_of_bucket() const { return kind >= StepKind::ZeroGradients; }
    bool is_copy() const { return kind >= StepKind::CopyOut && kind <= StepKind::WaitFetch; }
    bool is_copy_of_state() const { return is_copy() && bucket >= 0; }
    /// The tensor of the plan that a copy is from or to.
    int32_t copied() const {
        return operand(kind == StepKind::CopyOut || kind == StepKind::WaitCopyOut ? Slot::In : Slot::Out);
    }
    bool is_of_chunk() const { return op == OpKind::Classifier || op == OpKind::CrossEntropy; }
    bool is_of_tile() const { return is_operation() && tokens > 0 && !is_of_chunk(); }

    /// BackwardWeight of a frozen weight and a bias that trains: no product, and no input read.
    bool is_only_bias() const { return pass == Pass::BackwardWeight && operand(Slot::In) < 0; }

    Step() { operands.fill(-1); }
    int32_t operand(Slot slot) const { return operands[static_cast<size_t>(slot)]; }
    int32_t& operand(Slot slot) { return operands[static_cast<size_t>(slot)]; }
};

/// The steps that touch tensors: a step itself, or the parts of a fused one.
inline std::span<const Step> parts_of(const Step& step) {
    return step.kind == StepKind::Fused ? std::span<const Step>(step.parts) : std::span<const Step>(&step, 1);
}

/// A micro-batch of an update, as far as steps care which it is; or what ends a pending update between two of them.
struct Turn {
    bool first = true, last = true;
    bool pending = false;  ///< The update before is.
    bool flushes = false;
    bool operator==(const Turn&) const = default;
};
constexpr Turn kFlush = {.first = false, .last = false, .pending = true, .flushes = true};

inline bool runs(const Step& step, Turn turn) {
    if (turn.flushes) return step.when == When::Flush;
    switch (step.when) {
        case When::Pending: return turn.first && turn.pending;
        case When::Flush: return false;
        case When::First: return turn.first;
        case When::AfterFirst: return !turn.first;
        case When::Last: return turn.last;
        case When::Always: break;
    }
    return true;
}
inline bool adds(const Step& step, Turn turn) {
    return step.adds == Adds::Always || (step.adds == Adds::AfterFirst && !turn.first);
}

/// What a step does with one of its operands.
struct Access {
    bool reads = false, writes = false;
};
Access access(const Step& step, Slot slot);

struct RowRange {
    int64_t first = 0, count = 0;
};

/// What memory is spent on; the rows of the memory table.
enum class Consumer : uint8_t {
    Inputs,           ///< Token ids, targets, losses.
    Boundaries,       ///< Inputs of layers, and the last layer's output.
    LayerInternals,   ///< Everything else a layer's forward writes.
    HeadActivations,  ///< Final norm.
    Gradients,        ///< Gradients of activations.
    Logits,
    Workspace,
    KeyValueCache,
    GatheredParameters,  ///< Of the buckets around the step at hand.
    BucketGradients,     ///< Of the buckets whose backward or reduction is under way.
    Communication,       ///< What other ranks send to a reduction.
    UpdateSlots,         ///< What an update has here of what is kept in host memory.
    UnpackedWeights,     ///< Rows that operations read in another format than they are stored in.
};
constexpr int kNumConsumers = 13;
std::string_view name_of(Consumer consumer);
std::string_view name_of(Phase phase);

/// One tensor of a plan. A tensor that is brought back is a new PlanTensor: it may live at another place.
struct PlanTensor {
    std::string name = {};  ///< "ln1_out"; gradients start with "d_".
    int layer = -1;
    DType dtype = DType::F32;
    int64_t rows = 0, cols = 1;
    int64_t bytes = 0;  ///< rows * cols * size, rounded up to kPlanAlignment.
    Consumer consumer = Consumer::LayerInternals;
    int32_t alias = -1;     ///< Shares the storage of this earlier tensor: an operation that works in place.
    bool external = false;  ///< Written before the first step (token ids), or kept between runs (key/value cache).
    bool output = false;    ///< Read after the last step.
    bool is_tile = false;   ///< Has the rows of one tile of tokens at a time, from its own first row on.
};

/// Rows that a step means by an operand whose tensor has so many: all, or its chunk's or tile's.
RowRange rows_of(const Step& step, Slot slot, int64_t rows, bool is_tile);

constexpr int64_t kPlanAlignment = 256;

/// How a run is spread over ranks and micro-batches. What each rank keeps is the table of places.
struct Parallel {
    int ranks = 1;
    bool rank_invariant = false;  ///< Reduces every micro-batch, in an order that holds for any number of ranks.
    int64_t micro_batches = 1;    ///< Of a rank, per update.
    bool exchanges = true;        ///< Reductions receive the other ranks' pieces in a workspace and add them up here.
    bool operator==(const Parallel&) const = default;
};

struct Plan {
    std::string policy;  ///< "none", "layer", ..., "evaluate", "generate".
    BatchShape shape;
    DType dtype = DType::F32;
    int64_t logits_chunk_tokens = 0;
    int64_t block_tokens = 0;  ///< Token-wise operations have so many tokens at a time (token_blocks.h); 0: all.
    int64_t tile_tokens = 0;   ///< Whole blocks that layers' internals live for (tiles.h); 0: all tokens.
    int64_t host_bytes = 0;    ///< Host memory that tensors are copied out to.
    /// Where not 0, an update is pending after the last micro-batch, until the next one or a flush; and beside a slice
    /// of it that is updated in the forward, so many come from host memory, and as many go back.
    int update_ahead = 0;
    Parallel parallel;
    Places places;
    Partition partition;            ///< For parallel.ranks; no buckets where no step is about one.
    Partition frozen;               ///< The same of frozen rows; no buckets where none is gathered.
    std::vector<FusedRun> fusions;  ///< What the backend runs as one.
    std::vector<PlanTensor> tensors;
    std::vector<Step> steps;

    const PlanTensor& tensor(int32_t id) const { return tensors[static_cast<size_t>(id)]; }
    bool delays_update() const { return update_ahead > 0; }
    bool trains() const { return !steps.empty() && steps.back().phase == Phase::Update; }
    const Partition& partition_of(Buffer buffer) const { return buffer == Buffer::Frozen ? frozen : partition; }
    /// Gradients of every micro-batch are reduced; otherwise they are first summed on the rank, and reduced after the
    /// last.
    bool reduces_every_micro_batch() const { return parallel.rank_invariant || places.gathers_gradients_apart(); }
};

}  // namespace llmc
