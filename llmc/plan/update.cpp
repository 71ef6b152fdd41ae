#include "llmc/plan/update.h"

#include "llmc/base/dynamic_map.h"
#include "llmc/base/units.h"
#include "llmc/plan/add_tensor.h"

#include <algorithm>
#include <array>
#include <utility>

namespace llmc {
namespace {

int64_t updated_elements(const Partition& partition, bool updates_pieces, int bucket) {
    return updates_pieces ? partition.bucket(bucket).piece : partition.bucket_elements(bucket);
}

class Update {
  public:
    Update(const Model& model, Plan plan) : model_(model), plan_(std::move(plan)) {
        if (plan_.partition.buckets.empty()) {
            plan_.partition =
                make_partition(model, plan_.parallel.ranks, /*frozen=*/false, plan_.places.row_multiple());
        }
        for (int bucket = 0; bucket <= plan_.partition.last_bucket(); ++bucket) {
            if (!plan_.partition.bucket(bucket).is_empty()) buckets_.push_back(bucket);  // Something in it trains.
        }
    }

    Plan append() {
        add_norm();
        places().updates_from_host() ? add_slices() : add_buckets();
        return std::move(plan_);
    }

  private:
    const Places& places() const { return plan_.places; }
    bool on_host(Buffer buffer) const { return places()[buffer].exists && places().on_host(buffer); }

    Step& add_step(StepKind kind, int bucket) {
        Step& step = plan_.steps.emplace_back();
        step.kind = kind, step.phase = Phase::Update, step.when = When::Last;
        step.bucket = static_cast<int16_t>(bucket);
        if (bucket >= 0) step.layer = static_cast<int16_t>(plan_.partition.layer_of(bucket));
        return step;
    }

    /// Of gradients in host memory it has the sums of squares already: they were on the device when they were complete.
    void add_norm() {
        for (const int bucket : buckets_) {
            if (on_host(Buffer::Gradients)) break;
            add_step(StepKind::SquareSums, bucket).elements = plan_.partition.bucket(bucket).piece;
        }
        if (plan_.parallel.ranks > 1) add_step(StepKind::GatherSums, kNone);
        add_step(StepKind::BeginUpdate, kNone);
    }

    // ---- Everything on the device ----

    void add_buckets() {
        const bool gathers = places().gathers_after_update();
        for (const int bucket : buckets_) {
            add_step(StepKind::Update, bucket).elements =
                updated_elements(plan_.partition, places().updates_pieces(), bucket);
            if (gathers) add_step(StepKind::Gather, bucket);
        }
        for (const int bucket : buckets_) {
            if (gathers) add_step(StepKind::WaitGather, bucket);
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
        const int count = comes && goes ? 3 : 2;
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
        fetch(0);
        for (size_t i = 0; i < slices_.size(); ++i) {
            if (i + 1 < slices_.size()) fetch(i + 1);
            update(i);
            if (i > 0) copy_out(StepKind::WaitCopyOut, i - 1);
            return_buckets(i);
        }
        copy_out(StepKind::WaitCopyOut, slices_.size() - 1);
        for (int turn = 0; turn < 2; ++turn) return_buckets(slices_.size());
        for (const int bucket : gathered_) add_step(StepKind::WaitGather, bucket);
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
    }

    /// What is gathered after the update of a bucket: where parameters are on the device beside the update of those
    /// after it; else it goes to host memory while they are updated, and is waited for a slice later.
    void return_buckets(size_t index) {
        if (!places().gathers_after_update()) return;
        const auto copy_bucket = [&](StepKind kind, int bucket) {
            Step& step = add_copy(kind, {bucket, {}}, Buffer::Parameters, {0, plan_.partition.bucket_elements(bucket)},
                                  returned_[static_cast<size_t>(bucket)]);
            step.own_piece = false;
        };
        if (returns_buckets()) {
            for (const int bucket : std::exchange(leaving_, {})) copy_bucket(StepKind::WaitCopyOut, bucket);
            for (const int bucket : std::exchange(gathered_, {})) {
                add_step(StepKind::WaitGather, bucket).operand(Slot::Parameters) =
                    returned_[static_cast<size_t>(bucket)];
                copy_bucket(StepKind::CopyOut, bucket);
                leaving_.push_back(bucket);
            }
        }
        if (index >= slices_.size() || !slices_[index].is_last) return;
        const int bucket = slices_[index].bucket;
        add_step(StepKind::Gather, bucket).operand(Slot::Parameters) = returned_[static_cast<size_t>(bucket)];
        gathered_.push_back(bucket);
    }

    const Model& model_;
    Plan plan_;
    std::vector<int> buckets_;
    std::vector<Stream> streams_;
    std::vector<Slice> slices_;
    std::vector<int32_t> returned_;        ///< By bucket: where its updated parameters are gathered.
    std::vector<int> gathered_, leaving_;  ///< Buckets whose gather, and whose way to host memory, is not waited for.
};

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

Plan with_update(const Model& model, Plan plan) { return Update(model, std::move(plan)).append(); }

}  // namespace llmc
