#include "llmc/plan/step.h"

namespace llmc {
namespace {

/// Of a step that is no operation. What is under way is read by its wait: it must still be there then.
Access access_of_transfer(StepKind kind, Slot slot) {
    switch (kind) {
        case StepKind::Compute: break;
        case StepKind::CopyOut:
        case StepKind::WaitCopyOut:
        case StepKind::WaitFetch:
        case StepKind::WaitReduce:
        case StepKind::WaitGather: return {.reads = true, .writes = false};
        case StepKind::Fetch:
        case StepKind::ZeroGradients:
        case StepKind::Gather: return {.reads = false, .writes = true};
        case StepKind::Share:
        case StepKind::WaitShare: break;  // In place.
        case StepKind::Reduce: return {.reads = slot == Slot::ParameterGradients, .writes = true};
    }
    return {};
}

}  // namespace

Access access(const Step& step, Slot slot) {
    if (step.operand(slot) < 0) return {};
    if (step.kind != StepKind::Compute) return access_of_transfer(step.kind, slot);
    const bool forward = step.pass == Pass::Forward;
    switch (slot) {
        case Slot::In:
        case Slot::Residual:
        case Slot::Tokens: return {.reads = true, .writes = false};
        case Slot::Out: return {.reads = !forward, .writes = forward};
        case Slot::Stat0:
        case Slot::Stat1: {
            const bool cache = step.op == OpKind::Attention && step.operand(Slot::Stat1) >= 0;  // Read and appended to.
            return {.reads = !forward || cache, .writes = forward};
        }
        case Slot::DOut: return {.reads = true, .writes = step.rope && step.pass == Pass::BackwardWeight};
        case Slot::DIn: return {.reads = step.accumulate, .writes = true};
        case Slot::Losses:
        case Slot::Logits:
        case Slot::Workspace: return {.reads = false, .writes = true};
        case Slot::Parameters: return {.reads = true, .writes = false};
        case Slot::ParameterGradients: return {.reads = true, .writes = true};
    }
    return {};
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
    }
    return "?";
}

std::string_view name_of(Phase phase) {
    switch (phase) {
        case Phase::Forward: return "forward";
        case Phase::Head: return "head";
        case Phase::Recompute: return "recompute";
        case Phase::Backward: return "backward";
    }
    return "?";
}

}  // namespace llmc
