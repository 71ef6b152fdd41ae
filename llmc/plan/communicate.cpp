#include "llmc/plan/communicate.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <utility>

namespace llmc {
namespace {

class Communication {
  public:
    Communication(const Model& model, Plan plan)
        : model_(model),
          plan_(std::move(plan)),
          partition_(make_partition(model, plan_.parallel.ranks, /*frozen=*/false, plan_.places.row_multiple())),
          frozen_(make_partition(model, plan_.parallel.ranks, /*frozen=*/true)) {}

    Plan insert() {
        const size_t steps = plan_.steps.size();
        reduced_at_.assign(steps, kNone);
        find_gradients();
        if (gathers(Buffer::Parameters) || gathers(Buffer::Frozen)) find_runs();
        if (!reduces_ && runs_.empty()) return std::move(plan_);
        write_steps();
        plan_.partition = std::move(partition_);
        plan_.frozen = std::move(frozen_);
        return std::move(plan_);
    }

  private:
    /// Steps that read the parameters of one bucket, with none of another bucket between them.
    struct Run {
        int bucket = kNone;
        int first = 0;           ///< Step.
        int gather_before = -1;  ///< Step; none where an earlier run's parameters are still there.
        int32_t tensor = kNone, frozen = kNone;
        int32_t tensor_of(Buffer buffer) const { return buffer == Buffer::Frozen ? frozen : tensor; }
        int reductions_before = 0;  ///< Begun before its gather.
    };
    struct Gradients {
        int last = -1;  ///< Step that writes them.
        int32_t tensor = kNone, received = kNone;
    };

    bool is_layer(int bucket) const { return partition_.layer_of(bucket) >= 0; }
    const Partition& partition_of(Buffer buffer) const { return buffer == Buffer::Frozen ? frozen_ : partition_; }
    bool gathers(Buffer buffer) const { return plan_.places.in_pieces(buffer) && partition_of(buffer).elements > 0; }

    /// (pieces, elements of a piece of the bucket).
    int32_t new_tensor(const char* name, int bucket, DType dtype, int64_t pieces, Consumer consumer,
                       Buffer buffer = Buffer::Gradients) {
        PlanTensor tensor;
        tensor.name = name, tensor.layer = partition_.layer_of(bucket), tensor.dtype = dtype;
        tensor.rows = pieces, tensor.cols = partition_of(buffer).bucket(bucket).piece;
        tensor.bytes = round_up(tensor.rows * tensor.cols * size_of(dtype), kPlanAlignment);
        tensor.consumer = consumer;
        plan_.tensors.push_back(std::move(tensor));
        return static_cast<int32_t>(plan_.tensors.size()) - 1;
    }

    // ---- Gradients ----

    void find_gradients() {
        gradients_.resize(partition_.buckets.size());
        for (int i = 0; i < static_cast<int>(plan_.steps.size()); ++i) {
            const Step& step = plan_.steps[static_cast<size_t>(i)];
            if (!writes_gradients(model_, step)) continue;
            Gradients& gradients = gradients_[static_cast<size_t>(bucket_of(model_, partition_, step))];
            gradients.last = i;
            reduces_ = true;
        }
        if (!reduces_) return;
        for (int bucket = 0; bucket <= partition_.last_bucket(); ++bucket) add_gradient_tensors(bucket);
        for (Step& step : plan_.steps) {
            if (!writes_gradients(model_, step)) continue;
            const auto bucket = static_cast<size_t>(bucket_of(model_, partition_, step));
            step.operand(Slot::ParameterGradients) = gradients_[bucket].tensor;
        }
    }

    void add_gradient_tensors(int bucket) {
        Gradients& gradients = gradients_[static_cast<size_t>(bucket)];
        if (partition_.bucket(bucket).is_empty()) return;
        CHECK(gradients.last >= 0, "a bucket that training does not reach", bucket);
        const int ranks = partition_.ranks;
        reduced_at_[static_cast<size_t>(gradients.last)] = bucket;
        if (plan_.places.gathers_gradients_apart()) {
            gradients.tensor = new_tensor("gradients", bucket, DType::F32, ranks, Consumer::BucketGradients);
        }
        if (plan_.parallel.exchanges && ranks > 1) {
            gradients.received = new_tensor("received", bucket, DType::F32, ranks - 1, Consumer::Communication);
        }
    }

    // ---- Parameters ----

    void find_runs() {
        for (int i = 0; i < static_cast<int>(plan_.steps.size()); ++i) {
            Step& step = plan_.steps[static_cast<size_t>(i)];
            if (!reads_parameters(step)) continue;
            const int bucket = bucket_of(model_, partition_, step);
            if (runs_.empty() || runs_.back().bucket != bucket) add_run(bucket, i);
            step.operand(Slot::Parameters) = runs_.back().tensor;
            step.operand(Slot::FrozenParameters) = runs_.back().frozen;
        }
    }

    /// Parameters stay until another layer's are read: the head lies between the last layer's forward and backward, and
    /// the classifier's tied weights between the final norm's.
    void add_run(int bucket, int first) {
        Run run;
        run.bucket = bucket;
        run.first = first;
        auto earlier = runs_.rbegin();
        while (earlier != runs_.rend() && earlier->bucket != bucket && !is_layer(earlier->bucket)) ++earlier;
        if (earlier != runs_.rend() && earlier->bucket == bucket) {
            run.tensor = earlier->tensor, run.frozen = earlier->frozen;
        } else {
            run.gather_before = earlier == runs_.rend() ? 0 : earlier->first;
            run.tensor = new_gathered("parameters", bucket, Buffer::Parameters);
            run.frozen = new_gathered("frozen", bucket, Buffer::Frozen);
        }
        runs_.push_back(run);
    }

    /// kNone where there is nothing to gather.
    int32_t new_gathered(const char* name, int bucket, Buffer buffer) {
        if (!plan_.places.in_pieces(buffer) || partition_of(buffer).bucket(bucket).is_empty()) return kNone;
        return new_tensor(name, bucket, plan_.places.format(buffer), partition_.ranks, Consumer::GatheredParameters,
                          buffer);
    }

    // ---- The list ----

    void write_steps() {
        const std::vector<Step> steps = std::exchange(plan_.steps, {});
        auto to_gather = runs_.begin(), to_read = runs_.begin();
        for (int i = 0; i < static_cast<int>(steps.size()); ++i) {
            const Step& step = steps[static_cast<size_t>(i)];
            phase_ = step.phase;
            for (; to_gather != runs_.end() && to_gather->gather_before <= i; ++to_gather) {
                if (to_gather->gather_before >= 0) gather(&*to_gather);
            }
            if (to_read != runs_.end() && to_read->first == i) wait_for_gather(*to_read++);
            const int reduced = reduced_at_[static_cast<size_t>(i)];
            plan_.steps.push_back(step);
            if (reduced != kNone) reduce(reduced);
        }
        wait_for_reduction();
        wait_for_share();
    }

    Step& add_step(StepKind kind, int bucket) {
        Step step;
        step.kind = kind, step.phase = phase_;
        step.layer = static_cast<int16_t>(partition_.layer_of(bucket)), step.bucket = static_cast<int16_t>(bucket);
        const bool of_parameters = kind == StepKind::Gather || kind == StepKind::WaitGather;
        if (!of_parameters) {
            step.when = plan_.reduces_every_micro_batch() ? When::Always : When::Last;
            const Gradients& gradients = gradients_[static_cast<size_t>(bucket)];
            step.operand(Slot::ParameterGradients) = gradients.tensor;
            const bool receives = kind == StepKind::Reduce || kind == StepKind::WaitReduce;
            if (receives) step.operand(Slot::Workspace) = gradients.received;
        }
        plan_.steps.push_back(step);
        return plan_.steps.back();
    }

    void add_gather_step(StepKind kind, const Run& run, Buffer buffer) {
        const int32_t tensor = run.tensor_of(buffer);
        if (tensor == kNone) return;
        Step& step = add_step(kind, run.bucket);
        step.buffer = buffer;
        step.operand(slot_of(buffer)) = tensor;
    }

    void gather(Run* run) {
        run->reductions_before = reductions_;
        for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen})
            add_gather_step(StepKind::Gather, *run, buffer);
    }

    void wait_for_gather(const Run& run) {
        if (run.gather_before < 0) return;
        if (run.reductions_before == reductions_) wait_for_reduction();
        for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen}) {
            add_gather_step(StepKind::WaitGather, run, buffer);
        }
    }

    void reduce(int bucket) {
        if (partition_.ranks == 1) {
            add_step(StepKind::AddGradients, bucket).elements = partition_.bucket_elements(bucket);
            return;
        }
        wait_for_reduction();
        add_step(StepKind::Reduce, bucket);
        under_way_ = bucket;
        ++reductions_;
    }

    /// Where sums are shared, that is the second half, beside the backward that hides the next bucket's first half.
    void wait_for_reduction() {
        wait_for_share();
        if (under_way_ == kNone) return;
        add_step(StepKind::WaitReduce, under_way_);
        if (plan_.places.shares_sums()) add_step(StepKind::Share, shared_ = under_way_);
        under_way_ = kNone;
    }

    void wait_for_share() {
        if (shared_ != kNone) add_step(StepKind::WaitShare, shared_);
        shared_ = kNone;
    }

    const Model& model_;
    Plan plan_;
    Partition partition_, frozen_;
    bool reduces_ = false;              ///< The plan trains.
    std::vector<Gradients> gradients_;  ///< By bucket.
    std::vector<Run> runs_;
    std::vector<int> reduced_at_;   ///< By step, the bucket.
    int reductions_ = 0;            ///< Begun so far ...
    int under_way_ = kNone;         ///< ... of which this bucket's is not waited for,
    int shared_ = kNone;            ///< and this one's sums are on their way to all ranks.
    Phase phase_ = Phase::Forward;  ///< Of the step that communication stands beside.
};

}  // namespace

bool reads_parameters(const Step& step) {
    return step.kind == StepKind::Compute && facts_of(step.op, step.pass).reads_parameters;
}

bool writes_gradients(const Model& model, const Step& step) {
    if (step.kind != StepKind::Compute || !facts_of(step.op, step.pass).writes_gradients) return false;
    const auto [weight, bias] = parameters_of(model, step);
    return model.trains(weight) || model.trains(bias);
}

std::array<int, 2> parameters_of(const Model& model, const Step& step) {
    if (step.row >= 0) {
        const OpRow& row = model.block[static_cast<size_t>(step.row)];
        return {model.parameter_index(step.layer, row.weight), model.parameter_index(step.layer, row.bias)};
    }
    switch (step.op) {
        case OpKind::Embedding: return {model.wte, model.wpe};
        case OpKind::Classifier: return {model.head, kNone};
        case OpKind::LayerNorm:
        case OpKind::RmsNorm: return {model.lnf_weight, model.lnf_bias};
        default: return {kNone, kNone};
    }
}

int bucket_of(const Model& model, const Partition& partition, const Step& step) {
    if (step.kind != StepKind::Compute) return kNone;
    const int weight = parameters_of(model, step)[0];
    return weight == kNone ? kNone : partition.bucket_of_row(weight);
}

Plan with_communication(const Model& model, Plan plan) {
    const std::string fault = plan.places.fault();
    CHECK(plan.parallel.ranks >= 1 && fault.empty(), plan.parallel.ranks, fault);
    if (plan.parallel.ranks == 1 && !plan.places.gathers_gradients_apart()) return plan;
    return Communication(model, std::move(plan)).insert();
}

}  // namespace llmc
