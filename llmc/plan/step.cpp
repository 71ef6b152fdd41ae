#include "llmc/plan/step.h"

namespace llmc {
namespace {

/// Of a step that is no operation. What is under way is read by its wait: it must still be there then.
Access access_of_transfer(StepKind kind, Adds adds, Slot slot) {
    switch (kind) {
        case StepKind::CopyOut:
        case StepKind::WaitCopyOut:
        case StepKind::WaitFetch:
        case StepKind::WaitGather: return {.reads = true, .writes = false};
        case StepKind::AddGradients:
        case StepKind::WaitReduce:
            return {.reads = slot != Slot::KeptGradients || adds != Adds::Never, .writes = slot == Slot::KeptGradients};
        case StepKind::Unpack: return {.reads = slot != Slot::Out, .writes = slot == Slot::Out};
        case StepKind::Fetch:
        case StepKind::ZeroGradients:
        case StepKind::Gather: return {.reads = false, .writes = true};
        case StepKind::Reduce: return {.reads = slot == Slot::ParameterGradients, .writes = true};
        case StepKind::FoldGradients: return {.reads = slot == Slot::KeptGradients, .writes = true};
        case StepKind::Share: return {.reads = true, .writes = true};
        case StepKind::WaitShare:
        case StepKind::SquareSums: return {.reads = true, .writes = false};
        case StepKind::Update:
            return {.reads = slot != Slot::Parameters || adds != Adds::Never,
                    .writes = slot != Slot::ParameterGradients};
        case StepKind::Compute:
        case StepKind::Fused:
        case StepKind::GatherSums:
        case StepKind::BeginUpdate: break;  // On what is kept, not on tensors of the plan.
    }
    return {};
}

}  // namespace

Access access(const Step& step, Slot slot) {
    if (step.operand(slot) < 0) return {};
    if (step.kind != StepKind::Compute) return access_of_transfer(step.kind, step.adds, slot);
    const bool forward = step.pass == Pass::Forward;
    switch (slot) {
        case Slot::In:
        case Slot::Residual:
        case Slot::Tokens:
        case Slot::Documents:
        case Slot::Rows:
        case Slot::MaskRows:
        case Slot::Weight:
        case Slot::Bias:
        case Slot::Parameters:
        case Slot::FrozenParameters: return {.reads = true, .writes = false};
        case Slot::Out: return {.reads = !forward, .writes = forward};
        case Slot::Stat0:
        case Slot::Stat1: {
            const bool cache = step.op == OpKind::Attention && step.operand(Slot::Stat1) >= 0;  // Read and appended to.
            return {.reads = !forward || cache, .writes = forward};
        }
        case Slot::DOut: return {.reads = true, .writes = step.rope};
        case Slot::DIn: return {.reads = step.accumulate, .writes = true};
        case Slot::Losses: return {.reads = step.op == OpKind::LossSum, .writes = step.op != OpKind::LossSum};
        case Slot::Logits:
            if (step.op == OpKind::Classifier) return {.reads = !forward, .writes = forward};
            return {.reads = true, .writes = !forward};
        case Slot::Workspace: return {.reads = false, .writes = true};
        case Slot::ParameterGradients: {
            const bool of_tokens = step.op == OpKind::Embedding && step.operand(Slot::Tokens) >= 0;
            return {.reads = step.adds == Adds::Always || of_tokens, .writes = true};  // Rows of tokens always add.
        }
        case Slot::KeptGradients:
        case Slot::Masters:
        case Slot::MomentM:
        case Slot::MomentV: break;  // Of updates.
    }
    return {};
}

namespace {

/// Of operations of layers, and so of tiles.
bool has_row_per_token(Slot slot) {
    switch (slot) {
        case Slot::In:
        case Slot::Residual:
        case Slot::Out:
        case Slot::Stat0:
        case Slot::Stat1:
        case Slot::DOut:
        case Slot::DIn:
        case Slot::Documents:
        case Slot::MaskRows: return true;
        default: return false;
    }
}

}  // namespace

RowRange rows_of(const Step& step, Slot slot, int64_t rows, bool is_tile) {
    if (step.kind != StepKind::Compute) return {0, rows};
    if (step.is_of_tile() && has_row_per_token(slot)) return {is_tile ? 0 : step.first_token, step.tokens};
    if (!step.is_of_chunk()) return {0, rows};
    switch (slot) {
        case Slot::In:
            if (step.tokens == 0) return {rows - 1, 1};
            [[fallthrough]];
        case Slot::DIn:
        case Slot::Tokens:
        case Slot::Losses: return {step.first_token, step.tokens};
        case Slot::Logits: return {0, step.tokens == 0 ? rows : step.tokens};
        default: return {0, rows};
    }
}

std::string_view name_of(Consumer consumer) {
    switch (consumer) {
        case Consumer::Inputs: return "tokens and losses";
        case Consumer::Boundaries: return "layer boundaries";
        case Consumer::LayerInternals: return "layer internals";
        case Consumer::HeadActivations: return "final norm";
        case Consumer::Gradients: return "activation gradients";
        case Consumer::Logits: return "logits chunk";
        case Consumer::Workspace: return "workspace";
        case Consumer::KeyValueCache: return "key/value cache";
        case Consumer::GatheredParameters: return "gathered parameters";
        case Consumer::BucketGradients: return "gradients in flight";
        case Consumer::Communication: return "received gradients";
        case Consumer::UpdateSlots: return "slots of the update";
        case Consumer::UnpackedWeights: return "unpacked weights";
    }
    return "?";
}

std::string_view name_of(Phase phase) {
    switch (phase) {
        case Phase::Forward: return "forward";
        case Phase::Head: return "head";
        case Phase::Recompute: return "recompute";
        case Phase::Backward: return "backward";
        case Phase::Update: return "update";
    }
    return "?";
}

}  // namespace llmc
