#include "llmc/plan/verify_update.h"

#include "llmc/plan/communicate.h"
#include "llmc/plan/gradients.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {
namespace {

bool all_of(const std::vector<bool>& flags) {
    return std::all_of(flags.begin(), flags.end(), [](bool flag) { return flag; });
}

/// Steps about all buckets at once have none of their own.
bool is_of_all_buckets(StepKind kind) {
    return kind == StepKind::FoldGradients || kind == StepKind::GatherSums || kind == StepKind::BeginUpdate;
}

}  // namespace

UpdateCheck::UpdateCheck(const Model& model, const Plan& plan) : model_(model), plan_(plan) {
    for (const ParameterRow& row : model.parameters) written_.push_back(!row.trainable);
    zeroed_.assign(plan.partition.buckets.size(), false);
    for (const Bucket& bucket : plan.partition.buckets) squared_.push_back(bucket.is_empty());
    const std::vector<bool> none(squared_.size(), true);
    update_ = {squared_, plan.places.gathers_after_update() ? squared_ : none, std::vector<int64_t>(none.size(), 0)};
    pending_ = update_;
    for (const auto& ranges : ranges_to_zero(model, plan)) needs_zeroing_.push_back(!ranges.empty());
}

const std::string& UpdateCheck::name_of(int parameter) const {
    return model_.parameters[static_cast<size_t>(parameter)].name;
}

std::string UpdateCheck::fault_of(const Step& step, bool lacks_operands) {
    if (updating_ && step.phase != Phase::Update) return "comes after the update has begun";
    const bool known = step.bucket >= 0 && step.bucket < static_cast<int>(zeroed_.size());
    if (step.is_of_bucket() && !is_of_all_buckets(step.kind) && !known) return "is about a bucket there is not";
    if (step.when != when_of(step)) return "runs in the wrong micro-batches";
    for (const std::string& fault : {too_early(step), borrowed(step)}) {
        if (!fault.empty()) return fault;
    }
    if (std::string fault = lacks_operands ? "" : useless(step); !fault.empty()) return fault;
    if (writes_gradients(model_, step)) return write(step);
    switch (step.kind) {
        case StepKind::ZeroGradients: return zero(step);
        case StepKind::FoldGradients: return fold(step);
        case StepKind::AddGradients:
        case StepKind::WaitReduce: {
            const bool kept = plan_.parallel.rank_invariant;
            return step.adds == (kept ? Adds::Never : Adds::AfterFirst) ? "" : "adds where it has to overwrite";
        }
        case StepKind::SquareSums:
        case StepKind::GatherSums:
        case StepKind::BeginUpdate:
        case StepKind::Update: return update(step);
        case StepKind::Gather:
            if (step.phase != Phase::Update || progress_of(step).updated[static_cast<size_t>(step.bucket)]) return "";
            return "comes before the update of its bucket";
        case StepKind::WaitGather:
            if (step.phase == Phase::Update) progress_of(step).gathered[static_cast<size_t>(step.bucket)] = true;
            return "";
        default: return "";
    }
}

/// While an update is pending its buckets have the parameters before it, and their gradients are still to be applied.
std::string UpdateCheck::too_early(const Step& step) {
    if (!plan_.delays_update() || step.phase == Phase::Update) return "";
    const bool writes = writes_gradients(model_, step) || step.kind == StepKind::ZeroGradients;
    const bool reads = reads_parameters(step);
    const bool brings = (step.kind == StepKind::Fetch || step.kind == StepKind::Gather) && step.bucket >= 0 &&
                        step.buffer == Buffer::Parameters;
    if (!writes && !reads && !brings) return "";
    const bool is_of_row = step.kind == StepKind::Compute || step.kind == StepKind::Unpack;
    const int bucket = is_of_row ? bucket_of(model_, plan_.partition, step) : step.bucket;
    if (!is_pending(bucket)) return "";
    if (!writes || reads) return fmt::format("wants parameters of bucket {} before their update", bucket);
    return fmt::format("overwrites gradients of bucket {} that are not applied yet", bucket);
}

/// What a delayed update has on the device is there only where it runs.
std::string UpdateCheck::borrowed(const Step& step) {
    if (!plan_.delays_update()) return "";
    const bool is_of_update = step.when == When::Pending || step.when == When::Flush;
    for (const int32_t tensor : step.operands) {
        if (tensor < 0) continue;
        if (is_of_update) of_update_.emplace(tensor, step.when);
        const auto found = of_update_.find(tensor);
        if (found == of_update_.end() || found->second == step.when) continue;
        return fmt::format("uses {} of an update that may not be pending", plan_.tensor(tensor).name);
    }
    return "";
}

std::string UpdateCheck::fault_of_end() const {
    if (!trains_) return "";
    if (plan_.delays_update() && !all_of(pending_.updated)) return "never applies a pending update to some bucket";
    if (!all_of(update_.updated)) {
        return plan_.delays_update() ? "never flushes the update of some bucket" : "never updates some bucket";
    }
    if (!all_of(update_.gathered)) return "never gathers some updated bucket";
    const bool folds = plan_.parallel.rank_invariant && plan_.parallel.micro_batches > 1;
    const int wanted = !folds ? 0 : plan_.places.on_host(Buffer::Gradients) ? trained_buckets() : 1;
    const bool right = folded_buckets_ + (folded_ ? 1 : 0) == wanted;
    return right ? "" : "does not add up its micro-batches in the order it promises";
}

Adds UpdateCheck::first_adds() const {
    const bool once = plan_.places.gathers_gradients_apart() || plan_.parallel.rank_invariant;
    return once ? Adds::Never : Adds::AfterFirst;
}

When UpdateCheck::when_of(const Step& step) const {
    const bool is_norm = step.kind == StepKind::SquareSums && plan_.places.on_host(Buffer::Gradients);
    const bool is_of_norm =
        step.kind == StepKind::SquareSums || step.kind == StepKind::GatherSums || step.kind == StepKind::BeginUpdate;
    const bool is_optimiser = step.phase == Phase::Update && !is_of_norm;
    if (is_optimiser && plan_.delays_update()) return begun_ ? When::Flush : When::Pending;
    if (step.phase == Phase::Update || is_norm) return When::Last;
    if (step.is_copy_of_state() && step.buffer == Buffer::Gradients) {
        const bool folds = plan_.parallel.rank_invariant && plan_.parallel.micro_batches > 1;
        const bool in = step.kind == StepKind::Fetch || step.kind == StepKind::WaitFetch;
        return in ? When::AfterFirst : folds ? When::Last : When::Always;
    }
    if (step.kind == StepKind::ZeroGradients) return first_adds() == Adds::Never ? When::Always : When::First;
    const bool reduces = step.kind >= StepKind::Reduce && step.kind <= StepKind::WaitShare;
    return reduces && !plan_.reduces_every_micro_batch() ? When::Last : When::Always;
}

/// What a backward step makes, and what it reads for it, something must want.
std::string UpdateCheck::useless(const Step& step) const {
    if (step.kind != StepKind::Compute || step.pass == Pass::Forward || step.op == OpKind::CrossEntropy) return "";
    if (step.operand(Slot::DIn) < 0 && !writes_gradients(model_, step)) return "makes gradients that nobody wants";
    if (step.pass != Pass::BackwardWeight) return "";
    const bool product = model_.trains(parameters_of(model_, step)[0]);
    if (product == !step.is_only_bias()) return "";
    return product ? "has no input for the gradient of its weight"
                   : "reads an input for the gradient of a frozen weight";
}

std::string UpdateCheck::write(const Step& step) {
    trains_ = true;
    const int bucket = bucket_of(model_, plan_.partition, step);
    const auto zeroed = [&] { return zeroed_.empty() || zeroed_[static_cast<size_t>(bucket)]; };
    const std::vector<WrittenRow> rows = rows_written(model_, plan_, step);
    for (const WrittenRow& row : rows) {
        const bool first = !written_[static_cast<size_t>(row.parameter)];
        if (step.adds != (first ? first_adds() : Adds::Always)) {
            const char* why = first ? "does not begin" : "overwrites";
            return fmt::format("{} the gradients of {}", why, name_of(row.parameter));
        }
        const bool whole = row.elements == model_.parameters[static_cast<size_t>(row.parameter)].count();
        if (!whole && !zeroed()) return fmt::format("leaves a part of {} that nobody zeroes", name_of(row.parameter));
    }
    for (const WrittenRow& row : rows) written_[static_cast<size_t>(row.parameter)] = true;
    if (step.op != OpKind::Embedding || !model_.trains(model_.wte)) return "";
    // Adds to rows here and there.
    if (!written_[static_cast<size_t>(model_.wte)] && !zeroed()) return "adds to gradients that nobody has written";
    written_[static_cast<size_t>(model_.wte)] = true;
    return "";
}

std::string UpdateCheck::zero(const Step& step) {
    if (zeroed_[static_cast<size_t>(step.bucket)]) return "comes twice";
    zeroed_[static_cast<size_t>(step.bucket)] = true;
    const Bucket& bucket = plan_.partition.bucket(step.bucket);
    for (int row = bucket.first_row; row < bucket.first_row + bucket.rows; ++row) {
        if (model_.trains(row) && written_[static_cast<size_t>(row)])
            return fmt::format("comes after {} was written", name_of(row));
    }
    return "";
}

int UpdateCheck::trained_buckets() const {
    const auto& buckets = plan_.partition.buckets;
    return static_cast<int>(
        std::count_if(buckets.begin(), buckets.end(), [](const Bucket& bucket) { return !bucket.is_empty(); }));
}

std::string UpdateCheck::fold(const Step& step) {
    if (step.bucket >= 0) {
        ++folded_buckets_;
        const bool apart = plan_.places.on_host(Buffer::Gradients);
        if (!apart || squared_[static_cast<size_t>(step.bucket)]) return "comes where it does not belong";
        return all_written(step.bucket) ? "" : "comes before the micro-batch is complete";
    }
    if (folded_) return "comes twice";
    folded_ = true;
    return all_of(written_) ? "" : "comes before the micro-batch is complete";
}

bool UpdateCheck::all_written(int index) const {
    const Bucket& bucket = plan_.partition.bucket(index);
    const auto first = written_.begin() + bucket.first_row;
    return std::all_of(first, first + bucket.rows, [](bool written) { return written; }) &&
           (!needs_zeroing_[static_cast<size_t>(index)] || zeroed_[static_cast<size_t>(index)]);
}

std::string UpdateCheck::update(const Step& step) {
    if (step.kind == StepKind::Update) return apply(step);
    updating_ = updating_ || step.phase == Phase::Update;
    const auto bucket = static_cast<size_t>(std::max<int>(0, step.bucket));
    if (plan_.delays_update() && step.kind == StepKind::BeginUpdate && !all_of(pending_.updated)) {
        return "comes while the update before is pending";
    }
    switch (step.kind) {
        case StepKind::SquareSums:
            if (squared_[bucket]) return "comes twice";
            if (!all_written(step.bucket)) return "comes before the bucket's gradients are complete";
            squared_[bucket] = true;
            return begun_ ? "comes after the norm" : "";
        case StepKind::GatherSums:
            sums_gathered_ = true;
            return all_of(squared_) ? "" : "comes before all sums of squares are there";
        default:
            if (begun_) return "comes twice";
            begun_ = true;
            if (!all_of(squared_) || (plan_.parallel.ranks > 1 && !sums_gathered_)) {
                return "comes before all sums of squares are there";
            }
            return "";
    }
}

std::string UpdateCheck::apply(const Step& step) {
    if (step.when != When::Pending && !begun_) return "comes before the norm";
    updating_ = updating_ || step.when != When::Pending;
    Progress& progress = progress_of(step);
    const auto bucket = static_cast<size_t>(step.bucket);
    const bool pieces = plan_.places.updates_pieces();
    const int64_t all =
        pieces ? plan_.partition.bucket(step.bucket).piece : plan_.partition.bucket_elements(step.bucket);
    if (progress.updated[bucket]) return "comes twice";
    if (step.first_element != progress.elements[bucket]) return "does not begin where the one before it ended";
    progress.elements[bucket] += step.elements;
    if (progress.elements[bucket] > all) return "is about more than there is";
    progress.updated[bucket] = progress.elements[bucket] == all;
    return "";
}

}  // namespace llmc
