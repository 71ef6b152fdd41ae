#include "llmc/plan/communicate.h"

#include "llmc/base/check.h"
#include "llmc/plan/add_tensor.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace llmc {
namespace {

class Communication {
  public:
    Communication(const Model& model, Plan plan)
        : model_(model),
          plan_(std::move(plan)),
          partition_(make_partition(model, plan_.parallel.ranks, plan_.places.row_multiple())),
          frozen_(make_frozen_partition(model, plan_.parallel.ranks, plan_.places)) {}

    Plan insert() {
        const size_t steps = plan_.steps.size();
        completed_at_.assign(steps, kNone);
        fetches_at_.resize(steps), fetched_at_.resize(steps);
        find_gradients();
        if (arrives(Buffer::Parameters) || arrives(Buffer::Frozen)) find_runs();
        if (!trains_ && runs_.empty()) return std::move(plan_);
        write_steps();
        plan_.partition = std::move(partition_);
        plan_.frozen = std::move(frozen_);
        return std::move(plan_);
    }

  private:
    /// Steps that read the parameters of one bucket, with none of another bucket between them.
    struct Run {
        int bucket = kNone;
        int first = 0;            ///< Step.
        int arrives_before = -1;  ///< Step; none where an earlier run's parameters are still there.
        int32_t tensor = kNone, frozen = kNone;
        /// Step before which a piece that has come from host memory is gathered.
        int passed_on_before() const { return (arrives_before + first + 1) / 2; }
        int32_t tensor_of(Buffer buffer) const { return buffer == Buffer::Frozen ? frozen : tensor; }
        int reductions_before = 0;  ///< Begun before its gather.
    };
    struct Gradients {
        int first = -1, last = -1;  ///< Steps that write them.
        int32_t tensor = kNone, received = kNone;
        int32_t kept = kNone;     ///< Those that are kept in host memory, where `tensor` is apart from them.
        int32_t partial = kNone;  ///< For a sum of earlier micro-batches, of which there may be several.
        int32_t home() const { return kept != kNone ? kept : tensor; }
    };

    bool is_layer(int bucket) const { return partition_.layer_of(bucket) >= 0; }
    const Partition& partition_of(Buffer buffer) const { return buffer == Buffer::Frozen ? frozen_ : partition_; }
    bool arrives(Buffer buffer) const { return plan_.places.arrive(buffer) && partition_of(buffer).elements > 0; }
    bool on_host(Buffer buffer) const { return plan_.places.on_host(buffer); }
    bool in_pieces(Buffer buffer) const { return plan_.places.in_pieces(buffer); }
    /// Gradients in host memory are those of earlier micro-batches, which this one's are added to.
    bool fetches_gradients() const { return on_host(Buffer::Gradients) && !plan_.parallel.rank_invariant; }
    bool folds() const { return plan_.parallel.rank_invariant && plan_.parallel.micro_batches > 1; }

    /// (pieces, elements of a piece of the bucket).
    int32_t new_tensor(const char* name, int bucket, DType dtype, int64_t pieces, Consumer consumer,
                       Buffer buffer = Buffer::Gradients) {
        return add_tensor(&plan_, name, partition_.layer_of(bucket), dtype, pieces,
                          partition_of(buffer).bucket(bucket).piece, consumer);
    }

    // ---- Gradients ----

    void find_gradients() {
        gradients_.resize(partition_.buckets.size());
        int bucket_before = kNone;
        for (int i = 0; i < static_cast<int>(plan_.steps.size()); ++i) {
            const Step& step = plan_.steps[static_cast<size_t>(i)];
            if (!writes_gradients(model_, step)) continue;
            const int bucket = bucket_of(model_, partition_, step);
            Gradients& gradients = gradients_[static_cast<size_t>(bucket)];
            gradients.last = i;
            trains_ = true;
            if (gradients.first >= 0) continue;
            gradients.first = i;
            if (fetches_gradients()) fetch_gradients(bucket, std::exchange(bucket_before, bucket));
        }
        if (!trains_) return;
        for (int bucket = 0; bucket <= partition_.last_bucket(); ++bucket) add_gradient_tensors(bucket);
        for (Step& step : plan_.steps) {
            if (!writes_gradients(model_, step)) continue;
            const auto bucket = static_cast<size_t>(bucket_of(model_, partition_, step));
            step.operand(Slot::ParameterGradients) = gradients_[bucket].tensor;
        }
    }

    /// A bucket ahead, where they are written into; else while the micro-batch's are.
    void fetch_gradients(int bucket, int bucket_before) {
        const auto first_of = [&](int of) { return static_cast<size_t>(gradients_[static_cast<size_t>(of)].first); };
        const bool apart = plan_.places.gathers_gradients_apart();
        const int begun_with = apart || bucket_before == kNone ? bucket : bucket_before;
        fetches_at_[first_of(begun_with)].push_back(bucket);
        if (!apart) fetched_at_[first_of(bucket)].push_back(bucket);
    }

    void add_gradient_tensors(int bucket) {
        Gradients& gradients = gradients_[static_cast<size_t>(bucket)];
        if (partition_.bucket(bucket).is_empty()) return;
        CHECK(gradients.last >= 0, "a bucket that training does not reach", bucket);
        const int ranks = partition_.ranks;
        completed_at_[static_cast<size_t>(gradients.last)] = bucket;
        const Place& place = plan_.places[Buffer::Gradients];
        const int64_t kept_pieces = in_pieces(Buffer::Gradients) ? 1 : ranks;
        if (plan_.places.gradients_are_elsewhere()) {
            gradients.tensor = new_tensor("gradients", bucket, DType::F32, ranks, Consumer::BucketGradients);
        }
        if (on_host(Buffer::Gradients) && plan_.places.gathers_gradients_apart()) {
            gradients.kept = new_tensor("kept gradients", bucket, place.format, kept_pieces, Consumer::BucketGradients);
        }
        if (on_host(Buffer::Gradients) && folds()) {
            gradients.partial = new_tensor("partial sum", bucket, DType::F32, kept_pieces, Consumer::BucketGradients);
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
            run.arrives_before = earlier == runs_.rend() ? 0 : earlier->first;
            run.tensor = new_arrival("parameters", bucket, Buffer::Parameters);
            run.frozen = new_arrival("frozen", bucket, Buffer::Frozen);
        }
        runs_.push_back(run);
    }

    /// kNone where there is nothing to come.
    int32_t new_arrival(const char* name, int bucket, Buffer buffer) {
        if (!plan_.places.arrive(buffer) || partition_of(buffer).bucket(bucket).is_empty()) return kNone;
        return new_tensor(name, bucket, plan_.places.format(buffer), partition_.ranks, Consumer::GatheredParameters,
                          buffer);
    }

    // ---- The list ----

    void write_steps() {
        std::vector<Step> steps = std::exchange(plan_.steps, {});
        plan_.steps.reserve(steps.size() + steps.size() / 4);
        std::vector<Run> arriving;
        std::copy_if(runs_.begin(), runs_.end(), std::back_inserter(arriving),
                     [](const Run& run) { return run.arrives_before >= 0; });
        auto to_begin = arriving.begin(), to_pass_on = arriving.begin(), to_read = arriving.begin();
        for (int i = 0; i < static_cast<int>(steps.size()); ++i) {
            Step& step = steps[static_cast<size_t>(i)];
            phase_ = step.phase;
            for (; to_begin != arriving.end() && to_begin->arrives_before <= i; ++to_begin) begin_arrival(&*to_begin);
            for (; to_pass_on != arriving.end() && to_pass_on->passed_on_before() <= i; ++to_pass_on) {
                pass_on(&*to_pass_on);
            }
            for (; to_read != arriving.end() && to_read->first <= i; ++to_read) wait_for_arrival(*to_read);
            for (const int bucket : fetches_at_[static_cast<size_t>(i)]) copy_gradients(StepKind::Fetch, bucket);
            for (const int bucket : fetched_at_[static_cast<size_t>(i)]) copy_gradients(StepKind::WaitFetch, bucket);
            plan_.steps.push_back(std::move(step));
            const int completed = completed_at_[static_cast<size_t>(i)];
            if (completed != kNone) reduce(completed);
        }
        wait_for_reduction();
        wait_for_share();
        wait_for_store();
    }

    Step& add_step(StepKind kind, int bucket) {
        Step& step = plan_.steps.emplace_back();
        step.kind = kind, step.phase = phase_;
        step.layer = static_cast<int16_t>(partition_.layer_of(bucket)), step.bucket = static_cast<int16_t>(bucket);
        return step;
    }

    Step& add_gradient_step(StepKind kind, int bucket) {
        Step& step = add_step(kind, bucket);
        const Gradients& gradients = gradients_[static_cast<size_t>(bucket)];
        const bool receives = kind == StepKind::Reduce || kind == StepKind::WaitReduce;
        const bool joins = kind == StepKind::WaitReduce || kind == StepKind::AddGradients;
        const bool shares = kind == StepKind::Share || kind == StepKind::WaitShare;
        step.when = plan_.reduces_every_micro_batch() ? When::Always : When::Last;
        if (!shares) {
            step.operand(Slot::ParameterGradients) = gradients.tensor;
        } else if (on_host(Buffer::Gradients)) {  // What is kept, as far as it is here.
            step.operand(Slot::KeptGradients) = gradients.home();
        }
        if (joins) step.operand(Slot::KeptGradients) = gradients.kept;
        if (receives) step.operand(Slot::Workspace) = gradients.received;
        return step;
    }

    /// Between a tensor and what is kept of a bucket in host memory.
    Step& add_copy(StepKind kind, int bucket, Buffer buffer, int32_t tensor) {
        Step& step = add_step(kind, bucket);
        const bool out = kind == StepKind::CopyOut || kind == StepKind::WaitCopyOut;
        step.buffer = buffer;
        step.own_piece = in_pieces(buffer);
        const int64_t piece = partition_of(buffer).bucket(bucket).piece;
        step.elements = step.own_piece ? piece : partition_.ranks * piece;
        step.operand(out ? Slot::In : Slot::Out) = tensor;
        return step;
    }

    // Parameters arrive from host memory, from the other ranks, or from both: then each rank's piece comes first, and
    // is gathered half way between.

    bool arrives_by(StepKind kind, Buffer buffer, const Run& run) const {
        if (run.tensor_of(buffer) == kNone) return false;
        return kind == StepKind::Gather ? in_pieces(buffer) : on_host(buffer);
    }

    void add_gather_step(StepKind kind, const Run& run, Buffer buffer) {
        Step& step = add_step(kind, run.bucket);
        step.buffer = buffer;
        step.operand(slot_of(buffer)) = run.tensor_of(buffer);
    }

    void begin_gather(Run* run, Buffer buffer) {
        run->reductions_before = reductions_;
        add_gather_step(StepKind::Gather, *run, buffer);
    }

    void begin_arrival(Run* run) {
        for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen}) {
            if (arrives_by(StepKind::Fetch, buffer, *run)) {
                add_copy(StepKind::Fetch, run->bucket, buffer, run->tensor_of(buffer));
            } else if (arrives_by(StepKind::Gather, buffer, *run)) {
                begin_gather(run, buffer);
            }
        }
    }

    void pass_on(Run* run) {
        for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen}) {
            const bool both = arrives_by(StepKind::Fetch, buffer, *run) && arrives_by(StepKind::Gather, buffer, *run);
            if (!both) continue;
            add_copy(StepKind::WaitFetch, run->bucket, buffer, run->tensor_of(buffer));
            begin_gather(run, buffer);
        }
    }

    void wait_for_arrival(const Run& run) {
        for (const Buffer buffer : {Buffer::Parameters, Buffer::Frozen}) {
            if (arrives_by(StepKind::Gather, buffer, run)) {
                if (run.reductions_before == reductions_) wait_for_reduction();
                add_gather_step(StepKind::WaitGather, run, buffer);
            } else if (arrives_by(StepKind::Fetch, buffer, run)) {
                add_copy(StepKind::WaitFetch, run.bucket, buffer, run.tensor_of(buffer));
            }
        }
    }

    /// Of those that are kept: there before this update's first micro-batch has written them they are not.
    void copy_gradients(StepKind kind, int bucket) {
        Step& step = add_copy(kind, bucket, Buffer::Gradients, gradients_[static_cast<size_t>(bucket)].home());
        if (kind == StepKind::Fetch || kind == StepKind::WaitFetch) step.when = When::AfterFirst;
        if ((kind == StepKind::CopyOut || kind == StepKind::WaitCopyOut) && folds()) step.when = When::Last;
    }

    void wait_for_kept(int bucket) {
        const bool is_apart = gradients_[static_cast<size_t>(bucket)].kept != kNone;
        if (is_apart && fetches_gradients()) copy_gradients(StepKind::WaitFetch, bucket);
    }

    /// A bucket's gradients of this micro-batch are written.
    void reduce(int bucket) {
        if (partition_.ranks == 1) {
            wait_for_kept(bucket);
            if (plan_.places.gathers_gradients_apart()) {
                add_gradient_step(StepKind::AddGradients, bucket).elements = partition_.bucket_elements(bucket);
            }
            return store(bucket);
        }
        wait_for_reduction();
        add_gradient_step(StepKind::Reduce, bucket);
        under_way_ = bucket;
        ++reductions_;
    }

    /// Where sums are shared, that is the second half, beside the backward that hides the next bucket's first half.
    void wait_for_reduction() {
        wait_for_share();
        const int bucket = std::exchange(under_way_, kNone);
        if (bucket == kNone) return;
        wait_for_kept(bucket);
        add_gradient_step(StepKind::WaitReduce, bucket);
        if (!plan_.places.shares_sums()) return store(bucket);
        add_gradient_step(StepKind::Share, shared_ = bucket);
    }

    void wait_for_share() {
        const int bucket = std::exchange(shared_, kNone);
        if (bucket == kNone) return;
        add_gradient_step(StepKind::WaitShare, bucket);
        store(bucket);
    }

    /// What is kept in host memory goes there, after what the norm needs of it.
    void store(int bucket) {
        if (!on_host(Buffer::Gradients)) return;
        const Gradients& gradients = gradients_[static_cast<size_t>(bucket)];
        if (folds()) {
            Step& fold = add_step(StepKind::FoldGradients, bucket);
            fold.operand(Slot::KeptGradients) = gradients.home();
            fold.operand(Slot::Workspace) = gradients.partial;
        }
        Step& sums = add_step(StepKind::SquareSums, bucket);
        sums.when = When::Last;
        sums.elements = partition_.bucket(bucket).piece;
        sums.operand(Slot::KeptGradients) = gradients.home();
        wait_for_store();
        copy_gradients(StepKind::CopyOut, stored_ = bucket);
    }

    void wait_for_store() {
        const int bucket = std::exchange(stored_, kNone);
        if (bucket != kNone) copy_gradients(StepKind::WaitCopyOut, bucket);
    }

    const Model& model_;
    Plan plan_;
    Partition partition_, frozen_;
    bool trains_ = false;
    std::vector<Gradients> gradients_;  ///< By bucket.
    std::vector<Run> runs_;
    // By step: the bucket whose last writer it is, and those whose kept gradients begin to come, and are there, before.
    std::vector<int> completed_at_;
    std::vector<std::vector<int>> fetches_at_, fetched_at_;
    int reductions_ = 0;            ///< Begun so far ...
    int under_way_ = kNone;         ///< ... of which this bucket's is not waited for,
    int shared_ = kNone;            ///< and this one's sums are on their way to all ranks.
    int stored_ = kNone;            ///< This one's are on their way to host memory.
    Phase phase_ = Phase::Forward;  ///< Of the step that communication stands beside.
};

}  // namespace

bool reads_parameters(const Step& step) {
    if (step.kind == StepKind::Unpack) return true;
    return step.kind == StepKind::Compute && facts_of(step.op, step.pass).reads_parameters;
}

bool writes_gradients(const Model& model, const Step& step) {
    if (step.kind != StepKind::Compute || !facts_of(step.op, step.pass).writes_gradients) return false;
    const auto [weight, bias] = parameters_of(model, step);
    return model.trains(weight) || model.trains(bias);
}

std::array<int, 2> parameters_of(const Model& model, const Step& step) {
    if (step.kind == StepKind::Unpack) return {step.parameter, kNone};
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
    if (step.kind != StepKind::Compute && step.kind != StepKind::Unpack) return kNone;
    const int weight = parameters_of(model, step)[0];
    return weight == kNone ? kNone : partition.bucket_of_row(weight);
}

Plan with_communication(const Model& model, Plan plan) {
    const std::string fault = plan.places.fault();
    CHECK(plan.parallel.ranks >= 1 && fault.empty(), plan.parallel.ranks, fault);
    const Places& places = plan.places;
    const bool at_hand =
        !places.gradients_are_elsewhere() && !places.arrive(Buffer::Parameters) && !places.arrive(Buffer::Frozen);
    if (plan.parallel.ranks == 1 && at_hand) return plan;
    return Communication(model, std::move(plan)).insert();
}

}  // namespace llmc
