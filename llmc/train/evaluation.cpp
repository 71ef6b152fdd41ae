#include "llmc/train/evaluation.h"

#include "llmc/base/log.h"
#include "llmc/plan/verify.h"

namespace llmc {

Plan plan_evaluation(const Model& model, const Plan& training, const Backend& backend) {
    PlanRequest request;
    request.shape = training.shape;
    request.dtype = training.dtype;
    request.logits_chunk_tokens = training.logits_chunk_tokens;
    request.workspace = workspace_bytes(model, training.shape, training.dtype, training.logits_chunk_tokens, backend);
    return make_evaluation_plan(model, request);
}

Evaluator::Evaluator(State& state, const PlannedMemory& memory)
    : state_(state),
      plan_(plan_evaluation(state.model(), memory.plan, state.backend())),
      layout_(make_layout(plan_)),
      executor_(state, plan_, layout_) {
    const std::string fault = find_fault(state.model(), plan_, layout_);
    CHECK(fault.empty(), fault);
    CHECK(layout_.arena_bytes <= memory.layout.arena_bytes, layout_.arena_bytes, memory.layout.arena_bytes);
}

double Evaluator::loss(DataLoader& loader, int64_t batches) {
    ProgressBar progress("validation", batches);
    Backend& backend = state_.backend();
    loader.seek(0);
    backend.zero(state_.loss_sum());
    for (int64_t i = 0; i < batches; ++i) {
        const Batch& batch = loader.next();
        backend.copy_to_device(executor_.tokens(), batch.tokens.data());
        backend.copy_to_device(executor_.targets(), batch.targets.data());
        executor_.run({.loss_sum = state_.loss_sum()});
        progress.update(i + 1);
    }
    double sum = 0;
    backend.copy_to_host(&sum, state_.loss_sum());
    return sum / static_cast<double>(batches * plan_.shape.N());
}

}  // namespace llmc
