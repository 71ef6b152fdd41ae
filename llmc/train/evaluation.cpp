#include "llmc/train/evaluation.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/plan/verify.h"

#include <algorithm>

namespace llmc {

Plan plan_evaluation(const Model& model, const Plan& training, const Backend& backend) {
    PlanRequest request;
    request.shape = training.shape;
    request.places = training.places;
    request.logits_chunk_tokens = training.logits_chunk_tokens;
    request.block_tokens = training.block_tokens;
    request.tile_tokens = training.tile_tokens;
    request.workspace = workspace_bytes(model, training.shape, training.dtype,
                                        {training.logits_chunk_tokens, training.block_tokens}, backend);
    request.parallel = training.parallel;
    return make_evaluation_plan(model, request);
}

Evaluator::Evaluator(State& state, const PlannedMemory& memory, Comm& comm)
    : state_(state),
      comm_(comm),
      plan_(plan_evaluation(state.model(), memory.plan, state.backend())),
      layout_(make_layout(plan_)),
      executor_(state, plan_, layout_, &comm) {
    const std::string fault = find_fault(state.model(), plan_, layout_);
    CHECK(fault.empty(), fault);
    CHECK(layout_.arena_bytes <= memory.layout.arena_bytes, layout_.arena_bytes, memory.layout.arena_bytes);
}

/// Sum over the first `counted` sequences. The plan runs for none as well: other ranks may gather with this one.
double Evaluator::batch_loss(Batch batch, int64_t counted) {
    Backend& backend = state_.backend();
    std::fill(batch.targets.begin() + counted * plan_.shape.T, batch.targets.end(), -1);
    RunArguments arguments;
    arguments.scored = put_batch(executor_, backend, batch);
    executor_.run(arguments);
    double sum = 0;
    comm_.synchronize();
    backend.copy_to_host(&sum, state_.loss_sum());
    return sum;
}

std::optional<double> Evaluator::loss(DataLoader& loader, int64_t sequences, const std::function<bool()>& stops) {
    ProgressBar progress("validation", comm_.is_root() ? sequences : 0);
    const int64_t B = plan_.shape.B;
    const Batch nothing = empty_batch(B, loader.sequences());
    std::optional<Error> failure;
    loader.seek(0);
    double sum = 0;
    for (int64_t done = 0; done < sequences; done += B * comm_.size()) {
        const Batch* batch = &nothing;
        int64_t counted = std::clamp<int64_t>(sequences - done - comm_.rank() * B, 0, B);
        try {
            batch = &loader.next();
        } catch (const Error& error) {
            failure = error;
            counted = 0;
        }
        bool cut_short = false;
        const std::vector<double> numbers = {batch_loss(*batch, counted), failure || stops() ? 1.0 : 0.0};
        // Added up in the order of the batches.
        for (const auto& of_rank : comm_.all_gather(numbers)) {
            sum += of_rank[0];
            cut_short = cut_short || of_rank[1] != 0;
        }
        if (failure) throw *failure;
        if (cut_short) return std::nullopt;
        progress.update(std::min(sequences, done + B * comm_.size()));
    }
    return sum / static_cast<double>(scored_in(loader.sequences(), 0, sequences));
}

}  // namespace llmc
