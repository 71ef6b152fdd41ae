#include "llmc/run/executor.h"

#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/gradients.h"
#include "llmc/plan/stored_row.h"

#include <algorithm>
#include <utility>

namespace llmc {
namespace {

/// The steps from there on are the update's, and no others come between them.
size_t begin_of_update(const Plan& plan) {
    const auto last = std::find_if(plan.steps.rbegin(), plan.steps.rend(),
                                   [](const Step& step) { return step.phase != Phase::Update; });
    return static_cast<size_t>(plan.steps.rend() - last);
}

}  // namespace

Executor::Executor(State& state, const Plan& plan, const Layout& layout, Comm* comm, const OptimizerSettings& optimizer)
    : state_(state),
      backend_(state.backend()),
      model_(state.model()),
      plan_(plan),
      layout_(layout),
      rows_(plan.shape.N()),
      update_begin_(begin_of_update(plan)),
      comm_(comm),
      optimizer_(optimizer),
      tree_(state),
      to_zero_(ranges_to_zero(model_, plan)),
      copies_(plan.tensors.size()),
      gathers_(plan.tensors.size()),
      by_bucket_(plan.partition.buckets.size()) {
    CHECK(plan.parallel.ranks == 1 || comm != nullptr, "a plan that communicates");
    state.reserve_host(plan.host_bytes);
    for (const PlanTensor& tensor : plan.tensors)
        if (tensor.consumer == Consumer::KeyValueCache) cache_rows_ = tensor.rows;
    const auto find_inputs = [this](const Step& step) {
        if (step.kind != StepKind::Compute) return;
        if (step.op == OpKind::Embedding && step.pass == Pass::Forward) tokens_ = step.operand(Slot::Tokens);
        if (step.operand(Slot::Documents) >= 0) documents_ = step.operand(Slot::Documents);
        if (step.operand(Slot::MaskRows) >= 0) mask_rows_ = step.operand(Slot::MaskRows);
        if (step.op == OpKind::ScoredRows) {
            (step.pass == Pass::Forward ? scored_rows_ : scored_places_) = step.operand(Slot::Rows);
        }
        if (step.op == OpKind::Classifier) logits_ = step.operand(Slot::Logits);
        if (step.op == OpKind::CrossEntropy)
            targets_ = step.operand(Slot::Tokens), losses_ = step.operand(Slot::Losses);
    };
    for (const Step& step : plan.steps) {
        for (const Step& part : parts_of(step)) find_inputs(part);
    }
}

Executor::~Executor() {
    for (const auto& [turn, walked] : walked_) backend_.forget(&walked);
}

/// A view of the arena. Tensors with one row per token shrink to the rows of this run.
Tensor Executor::tensor(int32_t id) const {
    if (id < 0) return {};
    const PlanTensor& tensor = plan_.tensors[static_cast<size_t>(id)];
    const Consumer consumer = tensor.consumer;
    const bool other_rows = consumer == Consumer::KeyValueCache || consumer == Consumer::Workspace ||
                            consumer == Consumer::GatheredParameters || consumer == Consumer::BucketGradients ||
                            consumer == Consumer::Communication || consumer == Consumer::UpdateSlots ||
                            consumer == Consumer::UnpackedWeights;
    const bool per_token = tensor.rows == plan_.shape.N() && !other_rows;
    const int64_t rows = per_token ? rows_ : tensor.rows;
    return {tensor.dtype, state_.arena() + layout_.offsets[static_cast<size_t>(id)], rows, tensor.cols};
}

Tensor Executor::touched(int32_t id) {
    if (id < 0) return {};
    const int64_t end = layout_.offsets[static_cast<size_t>(id)] + plan_.tensors[static_cast<size_t>(id)].bytes;
    high_water_bytes_ = std::max(high_water_bytes_, end);
    return tensor(id);
}

void Executor::run(const RunArguments& arguments, std::vector<double>* seconds) {
    arguments_ = arguments;
    rows_ = arguments.rows > 0 ? arguments.rows : plan_.shape.N();
    CHECK(rows_ <= plan_.shape.N(), rows_, plan_.shape.N());
    CHECK(arguments.scored < 0 || plan_.shape.partly_scored, "a plan of all rows", arguments.scored);
    if (cache_rows_ > 0) {
        CHECK(arguments.first_position + rows_ <= cache_rows_, arguments.first_position, rows_, cache_rows_);
        state_.set_position(arguments.first_position);
    }
    turn_ = arguments.turn;
    CHECK(turn_.first || !has_pending_update_, "a micro-batch that would overwrite gradients of a pending update");
    CHECK(!holds_update_, "an update was held back and not released");
    turn_.pending = std::exchange(has_pending_update_, false);
    const bool holds = arguments.holds_update && turn_.last;
    CHECK(!holds || seconds == nullptr, "only whole plans are timed");
    part_ = holds ? Part::MicroBatch : Part::All;
    seconds != nullptr ? walk_timed(seconds) : walk_or_repeat();
    holds_update_ = holds;
    has_pending_update_ = plan_.delays_update() && turn_.last && !holds;
}

void Executor::release_update() {
    if (!holds_update_) return;
    part_ = Part::Update;
    walk_or_repeat();
    holds_update_ = false;
    has_pending_update_ = plan_.delays_update();
}

void Executor::flush() {
    if (!has_pending_update_) return;
    turn_ = kFlush;
    part_ = Part::All;
    walk();
    has_pending_update_ = false;
}

std::span<const Step> Executor::steps_of(Part part) const {
    const std::span<const Step> all(plan_.steps);
    switch (part) {
        case Part::MicroBatch: return all.first(update_begin_);
        case Part::Update: return all.subspan(update_begin_);
        case Part::All: break;
    }
    return all;
}

void Executor::walk() {
    for (const Step& step : steps_of(part_)) {
        if (runs_now(step)) run_named(step);
    }
}

/// The steps of this turn, by a recording where there is one. An update is the same whatever rows came before it.
void Executor::walk_or_repeat() {
    const int64_t turn = (turn_.first ? 1 : 0) + (turn_.last ? 2 : 0) + (turn_.pending ? 4 : 0);
    // Of generation's counts of rows two come again and again: those of a prompt's pieces, and one token.
    if (rows_ != plan_.shape.N() && rows_ != 1) return walk();
    const bool has_rows = part_ != Part::Update;
    bool& walked = walked_[{turn, static_cast<int64_t>(part_), has_rows ? rows_ : 0, has_rows ? rows_of_head() : 0}];
    // The first walk may load kernels, which no recording likes.
    if (walked && can_repeat()) return backend_.repeat(&walked, [this] { walk(); });
    walk();
    walked = true;
}

/// Rows that the head's chunks have: whole chunks, so that it depends on a row's number alone what it is computed with.
/// The first runs without rows, too: what it writes others add to.
int64_t Executor::rows_of_head() const {
    const int64_t chunk = plan_.logits_chunk_tokens;
    if (arguments_.scored < 0 || chunk == 0) return rows_;
    return std::min(rows_, std::max(chunk, round_up(arguments_.scored, chunk)));
}

bool Executor::runs_now(const Step& step) const {
    const bool is_empty = step.kind == StepKind::Compute && step.is_of_chunk() && step.first_token > 0 &&
                          step.first_token >= rows_of_head();
    return !is_empty && runs(step, turn_);
}

void Executor::walk_timed(std::vector<double>* seconds) {
    std::vector<TimeMark> marks = {backend_.mark()};
    for (const Step& step : plan_.steps) {
        if (!runs_now(step)) continue;
        run_named(step);
        marks.push_back(backend_.mark());
    }
    seconds->clear();
    size_t done = 0;
    for (const Step& step : plan_.steps) {
        const bool ran = runs_now(step);
        seconds->push_back(ran ? backend_.seconds_between(marks[done], marks[done + 1]) : 0);
        done += ran ? 1 : 0;
    }
}

/// A recording likes no streams of other libraries, and the tree of sums has another shape in every micro-batch.
bool Executor::can_repeat() const {
    const std::span<const Step> steps = steps_of(part_);
    return std::none_of(steps.begin(), steps.end(), [&](const Step& step) {
        const bool varies =
            step.is_communication() || step.kind == StepKind::GatherSums || step.kind == StepKind::FoldGradients;
        return varies && runs(step, turn_);
    });
}

const OpRow* Executor::row_of(const Step& step) const {
    return step.row >= 0 ? &model_.block[static_cast<size_t>(step.row)] : nullptr;
}

/// A device's failure says in which operation.
void Executor::run_named(const Step& step) {
    try {
        run_step(step);
    } catch (const Error& error) {
        throw Error(error.exit_code(), fmt::format("{}: {}", describe_step(model_, step), error.what()));
    }
}

int64_t Executor::host_high_water_bytes() const {
    int64_t bytes = 0;
    for (const int64_t reach : host_reach_) bytes += round_up(reach, kPlanAlignment);
    return bytes;
}

void Executor::run_copy(const Step& step) {
    const bool waits = step.kind == StepKind::WaitCopyOut || step.kind == StepKind::WaitFetch;
    if (waits) return wait_for_copies(step);
    if (step.is_copy_of_state()) return copy_state(step);
    const Tensor tensor = touched(step.copied());
    char* host = state_.host() + step.host_offset;
    int64_t& reach = host_reach_[static_cast<size_t>(Buffer::Boundaries)];
    reach = std::max(reach, step.host_offset + plan_.tensor(step.copied()).bytes);
    copies_[static_cast<size_t>(step.copied())].push_back(
        step.kind == StepKind::CopyOut ? backend_.copy_out(host, tensor) : backend_.copy_in(tensor, host));
}

void Executor::wait_for_copies(const Step& step) {
    for (const CopyTicket copy : std::exchange(copies_[static_cast<size_t>(step.copied())], {})) {
        backend_.wait_copy(copy);
    }
}

/// Where the elements of a step are in a tensor: a slot has them alone, a tensor of a bucket all of it.
char* Executor::place_in(int32_t id, const Step& step) {
    const Tensor tensor = touched(id);
    const bool has_bucket = plan_.tensor(id).consumer != Consumer::UpdateSlots;
    const bool of_piece = has_bucket && step.own_piece && tensor.shape[0] == plan_.parallel.ranks;
    const Tensor from = of_piece ? own_piece(tensor) : tensor;
    return static_cast<char*>(from.data) + (has_bucket ? step.first_element : 0) * size_of(tensor.dtype);
}

void Executor::copy_state(const Step& step) {
    const auto kept = state_.kept_spans(step.buffer, step.bucket, step.own_piece,
                                        {step.first_element, step.first_element + step.elements});
    char* here = place_in(step.copied(), step);
    std::vector<CopyTicket>& copies = copies_[static_cast<size_t>(step.copied())];
    for (const KeptSpan& span : kept) {
        const Tensor part(DType::U8, here + span.offset, span.bytes);
        copies.push_back(step.kind == StepKind::CopyOut ? backend_.copy_out(span.kept, part)
                                                        : backend_.copy_in(part, span.kept));
        int64_t& reach = host_reach_[static_cast<size_t>(step.buffer)];
        reach = std::max(reach, state_.reach(step.buffer, span.kept + span.bytes));
    }
}

/// This rank's piece of a tensor that holds a bucket.
Tensor Executor::own_piece(const Tensor& bucket_tensor) const {
    const int64_t piece = bucket_tensor.count() / plan_.parallel.ranks;
    const Tensor mine =
        Tensor(bucket_tensor.dtype, bucket_tensor.data, plan_.parallel.ranks, piece).row_range(state_.rank(), 1);
    return {mine.dtype, mine.data, mine.count()};
}

/// Where they are kept, or have come to from there: all that is kept of a bucket, or this rank's piece.
Tensor Executor::kept_gradients(const Step& step, bool own) {
    const Tensor here = touched(step.operand(Slot::KeptGradients));
    if (!here) return own ? state_.own_gradients(step.bucket) : state_.bucket_gradients(step.bucket);
    const bool is_whole = !plan_.places.in_pieces(Buffer::Gradients);
    return own && is_whole ? own_piece(here) : Tensor(here.dtype, here.data, here.count());
}

/// In a tensor of the plan, where they are not kept whole on the device.
Tensor Executor::gradients_of_bucket(const Step& step) {
    const Tensor of_plan = touched(step.operand(Slot::ParameterGradients));
    return of_plan ? of_plan : state_.bucket_gradients(step.bucket);
}

void Executor::begin(CommTicket* ticket, CommTicket begun) {
    *ticket = begun;
    overlaps_ ? void(++under_way_) : comm_->wait(begun);
}

void Executor::finish(CommTicket ticket) {
    if (!overlaps_) return;
    --under_way_;
    comm_->wait(ticket);
}

void Executor::run_communication(const Step& step) {
    const Slot slot = slot_of(step.buffer);
    const Tensor of_plan = touched(step.operand(slot));
    const Tensor workspace = touched(step.operand(Slot::Workspace));
    CommTicket& of_bucket = by_bucket_[static_cast<size_t>(step.bucket)];
    CommTicket& gather = of_plan ? gathers_[static_cast<size_t>(step.operand(slot))] : of_bucket;
    switch (step.kind) {
        case StepKind::Gather:
            // From host memory, or an update, it is there already.
            if (of_plan && !state_.places().on_host(step.buffer)) {
                backend_.convert(own_piece(of_plan), state_.own_parameters(step.bucket, step.buffer));
            }
            return begin(&gather, comm_->begin_all_gather(of_plan ? of_plan : state_.bucket_parameters(step.bucket)));
        case StepKind::WaitGather: return finish(gather);
        case StepKind::Reduce:
            return begin(&of_bucket, comm_->begin_reduce_scatter(gradients_of_bucket(step), workspace));
        case StepKind::WaitReduce: {
            finish(of_bucket);
            if (!plan_.places.gathers_gradients_apart()) return;  // Reduced where they are kept.
            return join_gradients(kept_gradients(step, /*own=*/true),
                                  own_piece(touched(step.operand(Slot::ParameterGradients))), adds(step, turn_),
                                  state_.piece_ranges(step.bucket));
        }
        case StepKind::Share: {
            const Tensor sums = kept_gradients(step, /*own=*/false);
            return begin(&of_bucket, comm_->begin_all_gather(sums));
        }
        case StepKind::WaitShare: return finish(of_bucket);
        default: break;
    }
    CHECK(false, "no communication");
}

/// Gradients of a micro-batch become, or are added to, those that are kept.
void Executor::join_gradients(Tensor kept, Tensor gradients, bool adds, std::span<const ParameterRange> rows) {
    if (kept.dtype != DType::F32) {
        return backend_.add_rounded(kept, adds, gradients, rows, optimizer_.seed, state_.controls());
    }
    adds ? backend_.add(kept, gradients) : backend_.convert(kept, gradients);
}

void Executor::zero_gradients(const Step& step) {
    const Tensor gradients = gradients_of_bucket(step);
    for (const ElementRange& range : to_zero_[static_cast<size_t>(step.bucket)]) {
        backend_.zero(Tensor(gradients.dtype, gradients.as<float>() + range.begin, range.count()));
    }
}

void Executor::run_update(const Step& step) {
    const Partition& partition = plan_.partition;
    switch (step.kind) {
        case StepKind::ZeroGradients: return zero_gradients(step);
        case StepKind::AddGradients:
            return join_gradients(kept_gradients(step, /*own=*/false), touched(step.operand(Slot::ParameterGradients)),
                                  adds(step, turn_), state_.bucket_ranges(step.bucket));
        case StepKind::FoldGradients:
            if (step.bucket < 0) return tree_.push(turn_);
            return tree_.push(turn_, step.bucket, kept_gradients(step, /*own=*/false),
                              touched(step.operand(Slot::Workspace)));
        case StepKind::SquareSums:
            return backend_.square_sums(state_.own_norm_sums(step.bucket), kept_gradients(step, /*own=*/true),
                                        partition.bucket(step.bucket).chunk);
        case StepKind::GatherSums: return comm_->wait(comm_->begin_all_gather(state_.norm_sums()));
        case StepKind::BeginUpdate:
            backend_.global_norm(state_.grad_norm(), state_.norm_sums(), state_.norm_pieces(), norm_layout(partition));
            return backend_.begin_update(state_.factors(), state_.controls(), state_.grad_norm(), optimizer_);
        case StepKind::Update: return update(step);
        default: break;
    }
    CHECK(false, "no part of an update");
}

void Executor::update(const Step& step) {
    UpdateSlots here = {};
    for (const Buffer buffer :
         {Buffer::Parameters, Buffer::Masters, Buffer::Gradients, Buffer::MomentM, Buffer::MomentV}) {
        const int32_t slot = step.operand(update_slot_of(buffer));
        if (slot >= 0) here[static_cast<size_t>(buffer)] = place_in(slot, step);
    }
    const ElementRange range = {step.first_element, step.first_element + step.elements};
    for (const UpdateViews& views : state_.update_views(step.bucket, range, here)) {
        if (views.ranges.empty()) continue;  // Nothing but padding.
        backend_.update(views.operands, views.ranges, optimizer_, state_.factors());
    }
}

Tensor Executor::row_of_bucket(const Tensor& bucket_tensor, int index) const {
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    const Partition& partition = plan_.partition_of(state_.buffer_of_row(index));
    char* first =
        static_cast<char*>(bucket_tensor.data) + partition.row_in_bucket(model_, index) * size_of(bucket_tensor.dtype);
    if (!partition.frozen) return {bucket_tensor.dtype, first, row.rows, row.cols};
    return stored_tensor(row, stored_format(model_, plan_.places, index), first);
}

/// As it is stored, where it has come to or is kept. A weight that the step does not read may be nowhere.
Tensor Executor::stored_row(const Step& step, int index) {
    const Tensor gathered = touched(step.operand(slot_of(state_.buffer_of_row(index))));
    if (index == kNone) return {};
    return gathered ? row_of_bucket(gathered, index) : state_.parameter(index);
}

/// As an operation reads it.
Tensor Executor::parameter(const Step& step, int index, Slot unpacked) {
    const Tensor stored = stored_row(step, index), here = touched(step.operand(unpacked));
    return here ? here : stored;
}

void Executor::unpack(const Step& step) {
    const Tensor stored = stored_row(step, step.parameter), out = touched(step.operand(Slot::Out));
    const WeightFormat format = stored_format(model_, plan_.places, step.parameter);
    if (!is_nf4(format)) return backend_.convert(out, stored);
    const ParameterRow& row = model_.parameters[static_cast<size_t>(step.parameter)];
    for (const StoredPart& part : nf4_parts(row, format)) {
        const int64_t count = part.rows * row.cols;
        const auto at = [&](int64_t offset, DType dtype, int64_t elements) {
            return Tensor(dtype, static_cast<char*>(stored.data) + part.offset + offset, elements);
        };
        Nf4Operands x;
        x.codes = at(part.layout.codes, DType::U8, nf4_bytes(count));
        if (format == WeightFormat::Nf4) {
            x.absmax = at(part.layout.absmax, DType::F32, nf4_blocks(count));
        } else {
            x.absmax = at(part.layout.absmax, DType::U8, nf4_blocks(count));
            x.nested_absmax = at(part.layout.nested_absmax, DType::F32, nf4_nested_blocks(count));
            x.offset = at(part.layout.offset, DType::F32, 1);
        }
        backend_.dequantize_nf4(out.row_range(part.first_row, part.rows), x);
    }
}

Tensor Executor::gradient(const Step& step, int index) {
    const Tensor bucket = touched(step.operand(Slot::ParameterGradients));
    if (!model_.trains(index)) return {};
    return bucket ? row_of_bucket(bucket, index) : state_.gradient(index);
}

void Executor::run_step(const Step& step) {
    if (step.is_communication()) return run_communication(step);
    if (under_way_ > 0) comm_->progress();
    if (step.is_of_bucket()) return run_update(step);
    if (step.kind == StepKind::Fused) return run_fused(step);
    if (step.kind == StepKind::Unpack) return unpack(step);
    step.kind == StepKind::Compute ? run_operation(step) : run_copy(step);
}

}  // namespace llmc
