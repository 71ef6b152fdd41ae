#include "llmc/plan/update.h"

#include "llmc/base/dynamic_map.h"
#include "llmc/base/units.h"
#include "llmc/plan/add_tensor.h"
#include "llmc/plan/delay_update.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace llmc {
namespace {

int64_t updated_elements(const Partition& partition, bool updates_pieces, int bucket) {
    return updates_pieces ? partition.bucket(bucket).piece : partition.bucket_elements(bucket);
}

/// Writes the steps of the optimiser.
class Writer {
  public:
    Writer(const Model& model, Plan* plan, When when, int ahead)
        : model_(model), plan_(*plan), when_(when), ahead_(ahead) {
        for (int bucket = 0; bucket <= plan_.partition.last_bucket(); ++bucket) {
            if (!plan_.partition.bucket(bucket).is_empty()) buckets_.push_back(bucket);  // Something in it trains.
        }
        result_.complete_with.assign(plan_.partition.buckets.size(), kNone);
        result_.waits.resize(plan_.partition.buckets.size());
    }

    UpdateParts write() {
        places().updates_from_host() ? add_slices() : add_buckets();
        return std::move(result_);
    }

  private:
    const Places& places() const { return plan_.places; }
    bool on_host(Buffer buffer) const { return places()[buffer].exists && places().on_host(buffer); }

    void set(Step* step, StepKind kind, int bucket) const {
        step->kind = kind, step->phase = Phase::Update, step->when = when_;
        step->bucket = static_cast<int16_t>(bucket);
        step->layer = static_cast<int16_t>(plan_.partition.layer_of(bucket));
    }
    Step& add_step(StepKind kind, int bucket) {
        Step& step = result_.parts.back().emplace_back();
        set(&step, kind, bucket);
        return step;
    }
    void begin_part() { result_.parts.emplace_back(); }
    void complete(int bucket) {
        result_.complete_with[static_cast<size_t>(bucket)] = static_cast<int>(result_.parts.size()) - 1;
    }

    /// Where parameters are on the device: beside the update of other buckets.
    void gather(int bucket) {
        add_step(StepKind::Gather, bucket);
        set(&result_.waits[static_cast<size_t>(bucket)], StepKind::WaitGather, bucket);
    }

    // ---- Everything on the device ----

    void add_buckets() {
        for (const int bucket : buckets_) {
            begin_part();
            add_step(StepKind::Update, bucket).elements =
                updated_elements(plan_.partition, places().updates_pieces(), bucket);
            if (places().gathers_after_update()) gather(bucket);
            complete(bucket);
        }
    }

    // ---- Slice by slice ----

    struct Slice {
        int bucket = kNone;
        ElementRange range;
        bool is_first = false, is_last = false;  ///< Of its bucket.
    };
    /// A buffer in host memory, and its slots, which slices take in turn.
    struct Stream {
        Buffer buffer = Buffer::Parameters;
        bool comes = true, goes = true;
        std::vector<int32_t> slots;
        int32_t slot(size_t slice) const { return slots[slice % slots.size()]; }
    };

    /// Weights are what an update reads and writes; without a step that fetches them parameters are only written.
    bool reads_parameters() const { return !places()[Buffer::Masters].exists; }
    /// Parameters in host memory that other ranks want: each rank's piece comes and all go, whole buckets at a time.
    bool returns_buckets() const { return on_host(Buffer::Parameters) && places().gathers_after_update(); }

    int32_t new_tensor(const std::string& name, int layer, DType dtype, int64_t rows, int64_t cols, Consumer consumer) {
        return add_tensor(&plan_, name, layer, dtype, rows, cols, consumer);
    }

    void add_stream(Buffer buffer, const char* name, bool comes, bool goes) {
        if (!on_host(buffer)) return;
        Stream stream = {buffer, comes, goes, {}};
        const int64_t elements = slice_elements(model_, plan_.partition, places().updates_pieces());
        const DType format = places().format(buffer);
        const int64_t cols = format == DType::U8 ? blocks_slot(model_, plan_.partition, elements).bytes : elements;
        const int count = 1 + (comes ? ahead_ : 0) + (goes ? ahead_ : 0);
        for (int i = 0; i < count; ++i) {
            stream.slots.push_back(new_tensor(name, -1, format, 1, cols, Consumer::UpdateSlots));
        }
        streams_.push_back(std::move(stream));
    }

    void add_slices() {
        if (!returns_buckets()) add_stream(Buffer::Parameters, "weights", reads_parameters(), true);
        add_stream(Buffer::Masters, "masters", true, true);
        add_stream(Buffer::MomentM, "m", true, true);
        add_stream(Buffer::MomentV, "v", true, true);
        add_stream(Buffer::Gradients, "gradients", true, false);
        for (const int bucket : buckets_) {
            const std::vector<ElementRange> ranges = slices_of_bucket(model_, plan_, bucket);
            for (const ElementRange& range : ranges) {
                slices_.push_back({bucket, range, range.begin == ranges.front().begin, range.end == ranges.back().end});
            }
        }
        returned_.assign(plan_.partition.buckets.size(), kNone);
        const auto ahead = static_cast<size_t>(ahead_);
        for (size_t i = 0; i < slices_.size() + ahead; ++i) {
            begin_part();
            for (size_t next = i == 0 ? 0 : i + ahead; next <= i + ahead; ++next) fetch(next);
            if (i < slices_.size()) update(i);
            if (i >= ahead) wait_for_copies(i - ahead);
            return_buckets(i);
        }
        while (!gathered_.empty() || !leaving_.empty()) return_buckets(slices_.size());
    }

    Step& add_copy(StepKind kind, const Slice& slice, Buffer buffer, const ElementRange& range, int32_t tensor) {
        Step& step = add_step(kind, slice.bucket);
        step.buffer = buffer;
        step.first_element = range.begin, step.elements = range.count();
        step.own_piece = places().updates_pieces();
        const bool out = kind == StepKind::CopyOut || kind == StepKind::WaitCopyOut;
        step.operand(out ? Slot::In : Slot::Out) = tensor;
        return step;
    }

    void copy_in(StepKind kind, size_t index) {
        const Slice& slice = slices_[index];
        for (const Stream& stream : streams_) {
            if (stream.comes) add_copy(kind, slice, stream.buffer, slice.range, stream.slot(index));
        }
        if (!returns_buckets() || !slice.is_first || !reads_parameters()) return;
        const ElementRange piece = {0, plan_.partition.bucket(slice.bucket).piece};
        add_copy(kind, slice, Buffer::Parameters, piece, returned_[static_cast<size_t>(slice.bucket)]);
    }

    void fetch(size_t index) {
        if (index >= slices_.size()) return;
        const Slice& slice = slices_[index];
        if (returns_buckets() && slice.is_first) {
            returned_[static_cast<size_t>(slice.bucket)] = new_tensor(
                "updated", plan_.partition.layer_of(slice.bucket), places().format(Buffer::Parameters),
                plan_.parallel.ranks, plan_.partition.bucket(slice.bucket).piece, Consumer::GatheredParameters);
        }
        copy_in(StepKind::Fetch, index);
    }

    void copy_out(StepKind kind, size_t index) {
        for (const Stream& stream : streams_) {
            if (!stream.goes) continue;
            add_copy(kind, slices_[index], stream.buffer, slices_[index].range, stream.slot(index));
        }
    }

    void update(size_t index) {
        const Slice& slice = slices_[index];
        copy_in(StepKind::WaitFetch, index);
        Step& step = add_step(StepKind::Update, slice.bucket);
        step.first_element = slice.range.begin, step.elements = slice.range.count();
        step.own_piece = places().updates_pieces();
        for (const Stream& stream : streams_) step.operand(update_slot_of(stream.buffer)) = stream.slot(index);
        if (returns_buckets()) step.operand(Slot::Parameters) = returned_[static_cast<size_t>(slice.bucket)];
        if (step.operand(Slot::Parameters) >= 0 && !reads_parameters()) step.adds = Adds::Never;
        copy_out(StepKind::CopyOut, index);
        if (slice.is_last && !on_host(Buffer::Parameters)) complete(slice.bucket);
    }

    void wait_for_copies(size_t index) {
        if (index >= slices_.size()) return;
        copy_out(StepKind::WaitCopyOut, index);
        const bool goes = on_host(Buffer::Parameters) && !returns_buckets();
        if (goes && slices_[index].is_last) complete(slices_[index].bucket);
    }

    /// What is gathered after the update of a bucket: where parameters are on the device beside the update of those
    /// after it; else it goes to host memory while they are updated, and is waited for a slice later.
    void return_buckets(size_t index) {
        if (!places().gathers_after_update()) return;
        const bool ends = index < slices_.size() && slices_[index].is_last;
        if (!returns_buckets()) return ends ? gather(slices_[index].bucket) : void();
        const auto copy_bucket = [&](StepKind kind, int bucket) {
            Step& step = add_copy(kind, {bucket, {}}, Buffer::Parameters, {0, plan_.partition.bucket_elements(bucket)},
                                  returned_[static_cast<size_t>(bucket)]);
            step.own_piece = false;
        };
        for (const int bucket : std::exchange(leaving_, {})) {
            copy_bucket(StepKind::WaitCopyOut, bucket);
            complete(bucket);
        }
        for (const int bucket : std::exchange(gathered_, {})) {
            add_step(StepKind::WaitGather, bucket).operand(Slot::Parameters) = returned_[static_cast<size_t>(bucket)];
            copy_bucket(StepKind::CopyOut, bucket);
            leaving_.push_back(bucket);
        }
        if (!ends) return;
        const int bucket = slices_[index].bucket;
        add_step(StepKind::Gather, bucket).operand(Slot::Parameters) = returned_[static_cast<size_t>(bucket)];
        gathered_.push_back(bucket);
    }

    const Model& model_;
    Plan& plan_;
    const When when_;
    const int ahead_;
    UpdateParts result_;
    std::vector<int> buckets_;
    std::vector<Stream> streams_;
    std::vector<Slice> slices_;
    std::vector<int32_t> returned_;        ///< By bucket: where its updated parameters are gathered.
    std::vector<int> gathered_, leaving_;  ///< Buckets whose gather, and whose way to host memory, is not waited for.
};

/// Of gradients in host memory it has the sums of squares already: they were on the device when they were complete.
void append_norm(Plan* plan) {
    const auto add_step = [&](StepKind kind, int bucket) -> Step& {
        Step& step = plan->steps.emplace_back();
        step.kind = kind, step.phase = Phase::Update, step.when = When::Last;
        step.bucket = static_cast<int16_t>(bucket);
        if (bucket >= 0) step.layer = static_cast<int16_t>(plan->partition.layer_of(bucket));
        return step;
    };
    for (int bucket = 0; bucket <= plan->partition.last_bucket(); ++bucket) {
        if (plan->places.on_host(Buffer::Gradients)) break;
        if (plan->partition.bucket(bucket).is_empty()) continue;
        add_step(StepKind::SquareSums, bucket).elements = plan->partition.bucket(bucket).piece;
    }
    if (plan->parallel.ranks > 1) add_step(StepKind::GatherSums, kNone);
    add_step(StepKind::BeginUpdate, kNone);
}

}  // namespace

int64_t slice_elements(const Model& model, const Partition& partition, bool updates_pieces) {
    constexpr int64_t kMost = int64_t{1} << 24, kPerLayer = 8;
    int64_t largest = 0;
    for (int layer = 0; layer < model.config.L; ++layer) {
        largest = std::max(largest, updated_elements(partition, updates_pieces, partition.layer_bucket(layer)));
    }
    return std::clamp(round_up(ceil_div(largest, kPerLayer), kStateBlock), kStateBlock, kMost);
}

std::vector<ElementRange> slices_of_bucket(const Model& model, const Plan& plan, int bucket) {
    const bool pieces = plan.places.updates_pieces();
    const int64_t size = slice_elements(model, plan.partition, pieces);
    const int64_t end = updated_elements(plan.partition, pieces, bucket);
    std::vector<ElementRange> slices;
    for (int64_t first = 0; first < end; first += size) slices.push_back({first, std::min(end, first + size)});
    return slices;
}

UpdateParts update_parts(const Model& model, Plan* plan, When when, int ahead) {
    return Writer(model, plan, when, ahead).write();
}

Plan with_update(const Model& model, Plan plan) {
    if (plan.partition.buckets.empty()) {
        plan.partition = make_partition(model, plan.parallel.ranks, plan.places.row_multiple());
    }
    if (plan.delays_update()) plan = with_pending_update(model, std::move(plan));
    append_norm(&plan);
    UpdateParts update = update_parts(model, &plan, plan.delays_update() ? When::Flush : When::Last, /*ahead=*/1);
    size_t steps = plan.steps.size() + update.waits.size();
    for (const std::vector<Step>& part : update.parts) steps += part.size();
    plan.steps.reserve(steps);
    for (std::vector<Step>& part : update.parts) std::move(part.begin(), part.end(), std::back_inserter(plan.steps));
    std::copy_if(update.waits.begin(), update.waits.end(), std::back_inserter(plan.steps),
                 [](const Step& wait) { return wait.bucket >= 0; });
    return plan;
}

}  // namespace llmc
