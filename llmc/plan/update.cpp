#include "llmc/plan/update.h"

#include <utility>

namespace llmc {

Plan with_update(const Model& model, Plan plan) {
    if (plan.partition.buckets.empty()) {
        plan.partition = make_partition(model, plan.parallel.ranks, /*frozen=*/false, plan.places.row_multiple());
    }
    const auto add_step = [&](StepKind kind, int bucket) {
        if (bucket >= 0 && plan.partition.bucket(bucket).is_empty()) return;  // Nothing in it trains.
        Step& step = plan.steps.emplace_back();
        step.kind = kind, step.phase = Phase::Update, step.when = When::Last;
        step.bucket = static_cast<int16_t>(bucket);
        if (bucket < 0) return;
        step.layer = static_cast<int16_t>(plan.partition.layer_of(bucket));
        if (step.is_communication()) return;
        const bool whole = kind == StepKind::Update && !plan.places.updates_pieces();
        step.elements = whole ? plan.partition.bucket_elements(bucket) : plan.partition.bucket(bucket).piece;
    };
    const int buckets = plan.partition.last_bucket() + 1;
    for (int bucket = 0; bucket < buckets; ++bucket) add_step(StepKind::SquareSums, bucket);
    if (plan.parallel.ranks > 1) add_step(StepKind::GatherSums, kNone);
    add_step(StepKind::BeginUpdate, kNone);
    const bool gathers = plan.places.gathers_after_update();
    for (int bucket = 0; bucket < buckets; ++bucket) {
        add_step(StepKind::Update, bucket);
        if (gathers) add_step(StepKind::Gather, bucket);
    }
    for (int bucket = 0; gathers && bucket < buckets; ++bucket) add_step(StepKind::WaitGather, bucket);
    return plan;
}

}  // namespace llmc
