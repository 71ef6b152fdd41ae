#include "llmc/plan/gradients.h"

#include "llmc/plan/communicate.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

class GradientWrites {
  public:
    GradientWrites(const Model& model, Plan plan) : model_(model), plan_(std::move(plan)) {
        plan_.partition = make_partition(model, plan_.parallel.ranks, plan_.places.row_multiple());
    }

    Plan insert() {
        written_.assign(model_.parameters.size(), false);
        to_zero_ = ranges_to_zero(model_, plan_);
        std::vector<bool> met(to_zero_.size(), false);
        std::vector<Step> steps;
        steps.reserve(plan_.steps.size() + to_zero_.size() + 1);
        for (Step& step : plan_.steps) {
            const bool joins = step.kind == StepKind::WaitReduce || step.kind == StepKind::AddGradients;
            if (joins) step.adds = kept_adds();
            if (writes_gradients(model_, step)) {
                const int bucket = bucket_of(model_, plan_.partition, step);
                if (!met[static_cast<size_t>(bucket)]) add_zeroing(bucket, step, &steps);
                met[static_cast<size_t>(bucket)] = true;
                step.adds = first_adds(step);
            }
            steps.push_back(std::move(step));
        }
        const bool folds = plan_.parallel.rank_invariant && plan_.parallel.micro_batches > 1;
        if (folds && !plan_.places.on_host(Buffer::Gradients)) add_fold(&steps);
        plan_.steps = std::move(steps);
        return std::move(plan_);
    }

  private:
    /// Of gradients that are kept from micro-batch to micro-batch.
    Adds kept_adds() const { return plan_.parallel.rank_invariant ? Adds::Never : Adds::AfterFirst; }

    Adds first_adds(const Step& step) {
        const std::vector<WrittenRow> rows = rows_written(model_, plan_, step);
        bool first = true;
        for (const WrittenRow& row : rows) {
            first = first && !written_[static_cast<size_t>(row.parameter)];
            written_[static_cast<size_t>(row.parameter)] = true;
        }
        if (rows.empty() || !first) return Adds::Always;
        return plan_.places.gathers_gradients_apart() ? Adds::Never : kept_adds();
    }

    void add_zeroing(int bucket, const Step& before, std::vector<Step>* steps) const {
        const std::vector<ElementRange>& ranges = to_zero_[static_cast<size_t>(bucket)];
        if (ranges.empty()) return;
        Step& step = add_step(StepKind::ZeroGradients, before, steps);
        step.bucket = static_cast<int16_t>(bucket);
        for (const ElementRange& range : ranges) step.elements += range.count();
        step.layer = static_cast<int16_t>(plan_.partition.layer_of(bucket));
        step.operand(Slot::ParameterGradients) = before.operand(Slot::ParameterGradients);
        const bool every_time = plan_.places.gathers_gradients_apart() || plan_.parallel.rank_invariant;
        step.when = every_time ? When::Always : When::First;
    }

    void add_fold(std::vector<Step>* steps) const { add_step(StepKind::FoldGradients, steps->back(), steps); }

    static Step& add_step(StepKind kind, const Step& beside, std::vector<Step>* steps) {
        const Phase phase = beside.phase;  // Of an element of *steps, perhaps.
        Step& step = steps->emplace_back();
        step.kind = kind, step.phase = phase;
        return step;
    }

    const Model& model_;
    Plan plan_;
    std::vector<bool> written_;                       ///< By parameter.
    std::vector<std::vector<ElementRange>> to_zero_;  ///< By bucket.
};

}  // namespace

std::vector<WrittenRow> rows_written(const Model& model, const Plan& plan, const Step& step) {
    if (!writes_gradients(model, step)) return {};
    std::vector<WrittenRow> rows;
    const auto add = [&](int parameter, int64_t elements) {
        if (model.trains(parameter)) rows.push_back({parameter, elements});
    };
    if (step.op == OpKind::Embedding) {
        if (model.wpe == kNone) return {};
        const int64_t positions = std::min(plan.shape.T, plan.shape.N());
        add(model.wpe, positions * model.parameters[static_cast<size_t>(model.wpe)].cols);
        return rows;
    }
    for (const int parameter : parameters_of(model, step)) {
        if (parameter != kNone) add(parameter, model.parameters[static_cast<size_t>(parameter)].count());
    }
    return rows;
}

std::vector<std::vector<ElementRange>> ranges_to_zero(const Model& model, const Plan& plan) {
    const Partition& partition = plan.partition;
    std::vector<std::vector<ElementRange>> written(partition.buckets.size()), rest(partition.buckets.size());
    const auto add_rows_of = [&](const Step& step) {
        for (const WrittenRow& row : rows_written(model, plan, step)) {
            const auto bucket = static_cast<size_t>(partition.bucket_of_row(row.parameter));
            const int64_t first = partition.row_in_bucket(model, row.parameter);
            written[bucket].push_back({first, first + row.elements});
        }
    };
    for (const Step& step : plan.steps) {
        for (const Step& part : parts_of(step)) add_rows_of(part);
    }
    for (size_t bucket = 0; bucket < written.size(); ++bucket) {
        std::sort(written[bucket].begin(), written[bucket].end(),
                  [](const ElementRange& a, const ElementRange& b) { return a.begin < b.begin; });
        int64_t end = 0;
        written[bucket].push_back({partition.bucket_elements(static_cast<int>(bucket)), 0});
        for (const ElementRange& range : written[bucket]) {
            if (range.begin > end) rest[bucket].push_back({end, range.begin});
            end = std::max(end, range.end);
        }
    }
    return rest;
}

Plan with_gradient_writes(const Model& model, Plan plan) { return GradientWrites(model, std::move(plan)).insert(); }

}  // namespace llmc
