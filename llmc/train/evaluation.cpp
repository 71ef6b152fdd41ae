#include "llmc/train/evaluation.h"

#include "llmc/base/log.h"
#include "llmc/plan/verify.h"

#include <algorithm>

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

double Evaluator::loss(DataLoader& loader, int64_t sequences) {
    ProgressBar progress("validation", sequences);
    Backend& backend = state_.backend();
    const int64_t B = plan_.shape.B, T = plan_.shape.T;
    loader.seek(0);
    backend.zero(state_.loss_sum());
    for (int64_t done = 0; done < sequences; done += B) {
        const Batch& batch = loader.next();
        std::vector<int32_t> targets = batch.targets;
        // Rows of the last batch beyond the wanted sequences do not count.
        const int64_t counted = std::min(B, sequences - done);
        std::fill(targets.begin() + counted * T, targets.end(), -1);
        backend.copy_to_device(executor_.tokens(), batch.tokens.data());
        backend.copy_to_device(executor_.targets(), targets.data());
        executor_.run({.loss_sum = state_.loss_sum()});
        progress.update(done + counted);
    }
    double sum = 0;
    backend.copy_to_host(&sum, state_.loss_sum());
    return sum / static_cast<double>(sequences * T);
}

}  // namespace llmc
