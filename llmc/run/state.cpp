#include "llmc/run/state.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/rng.h"
#include "llmc/base/units.h"
#include "llmc/plan/update.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace llmc {

DeviceBuffer::DeviceBuffer(Backend& backend, int64_t bytes, const std::string& what, Memory memory)
    : backend_(&backend), bytes_(bytes), memory_(memory) {
    if (bytes == 0) return;
    void* data = memory == Memory::Host ? backend.allocate_host(bytes, what) : backend.allocate(bytes, what);
    data_ = static_cast<char*>(data);
}

DeviceBuffer::~DeviceBuffer() {
    if (data_ == nullptr) return;
    memory_ == Memory::Host ? backend_->release_host(data_) : backend_->release(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
    return *this;
}

namespace {

/// Pinning takes a second for every few gigabytes: a line for each buffer of a run that has many.
class HostProgress {
  public:
    HostProgress(int64_t total, bool pins) : total_(total), says_(pins && total >= kMany) {
        if (says_) spdlog::info("memory  pinning {} of the host", format_bytes(total));
    }
    void add(int64_t bytes) {
        done_ += bytes;
        if (says_ && bytes > 0) spdlog::info("memory  {} of {} pinned", format_bytes(done_), format_bytes(total_));
    }

  private:
    static constexpr int64_t kMany = int64_t{8} << 30;
    int64_t total_, done_ = 0;
    bool says_;
};

}  // namespace

State::State(Backend& backend, const Model& model, const Places& places, int64_t T, int64_t arena_bytes, bool training,
             const Parallel& parallel, int rank)
    : backend_(backend),
      model_(model),
      places_(places),
      parallel_(parallel),
      rank_(rank),
      partition_(make_partition(model, parallel.ranks, places.row_multiple())),
      frozen_(make_frozen_partition(model, parallel.ranks, places)),
      blocks_(blocks_layout(model, partition_, places.updates_pieces())),
      slot_(blocks_slot(model, partition_, slice_elements(model, partition_, places.updates_pieces()))),
      scalars_layout_(scalars_layout(partition_, training)) {
    CHECK(rank >= 0 && rank < parallel.ranks, rank, parallel.ranks);
    CHECK(places.fault().empty(), places.fault());
    const std::string obstacle = backend.why_unsupported({1, T, model.config.NH, model.config.NKV, model.config.HD});
    if (!obstacle.empty()) fail("model {}: {}", model.config.name, obstacle);
    const StateBytes bytes = state_bytes(model, places, T, parallel, training);
    const StateBytes on_host = state_bytes(model, places, T, parallel, training, Memory::Host);
    HostProgress progress(on_host.total(), backend.on_gpu());
    const auto allocate = [&](Buffer buffer, int64_t StateBytes::*row) {
        const Place& place = places[buffer];
        const auto index = static_cast<size_t>(buffer);
        const int64_t of_buffer = (place.memory == Memory::Host ? on_host : bytes).*row;
        memory_[index] = DeviceBuffer(backend, of_buffer, std::string(name_of(buffer)), place.memory);
        if (place.memory == Memory::Host) progress.add(of_buffer);
        const bool in_pieces = place.spread == Spread::Pieces;
        const Partition& partition = partition_of(buffer);
        const int64_t elements = in_pieces ? partition.shard_elements : partition.elements;
        flat_[index] = {place.format, in_pieces, place.format == DType::U8 ? of_buffer : elements,
                        memory_[index].data()};
    };
    allocate(Buffer::Parameters, &StateBytes::parameters);
    allocate(Buffer::Gradients, &StateBytes::gradients);
    allocate(Buffer::MomentM, &StateBytes::moment_m);
    allocate(Buffer::MomentV, &StateBytes::moment_v);
    allocate(Buffer::Masters, &StateBytes::master);
    allocate(Buffer::Frozen, &StateBytes::frozen);
    partial_sum_memory_ = DeviceBuffer(backend, bytes.partial_sums + on_host.partial_sums, "sums of micro-batches",
                                       places[Buffer::Gradients].memory);
    rope_memory_ = DeviceBuffer(backend, bytes.rope_table, "RoPE table");
    scalar_memory_ = DeviceBuffer(backend, bytes.scalars, "scalars");
    arena_ = DeviceBuffer(backend, arena_bytes, "activations");
    if (bytes.rope_table > 0) {
        rope_table_ = Tensor(DType::F32, rope_memory_.data(), T, model.config.rotary_columns());
        backend.copy_to_device(rope_table_, llmc::rope_table(model.config, T).data());
    }
    if (training) {
        std::vector<int32_t> pieces;
        for (const Bucket& bucket : partition_.buckets) {
            pieces.push_back(static_cast<int32_t>(bucket.piece / bucket.chunk));
        }
        backend.copy_to_device(norm_pieces(), pieces.data());
    }
}

void State::reserve_host(int64_t bytes) {
    if (bytes <= host_.bytes()) return;
    host_ = {};
    host_ = DeviceBuffer(backend_, bytes, std::string(kHostMemoryRow), Memory::Host);
}

void State::initialise(uint64_t seed) {
    for (int index = 0; index < static_cast<int>(model_.parameters.size()); ++index) initialise_row(index, seed);
    round_masters();
}

void State::initialise_row(int index, uint64_t seed) {
    constexpr int64_t kPiece = 1 << 18;  // A large tensor is drawn in pieces, so that the host never holds it twice.
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    const ElementRange range = held(index);
    if (row.init == Init::Zeros) return;
    const auto drawn = [&](int64_t first, int64_t count) {
        std::vector<float> values(static_cast<size_t>(count), 1.0f);
        const auto draw = [&](auto fill) {
            fill(values.data(), count, row.stddev, seed, RngStream::Init, static_cast<uint32_t>(index),
                 static_cast<uint64_t>(first));
        };
        if (row.init == Init::Uniform) draw(fill_uniform);
        if (row.init == Init::Normal) draw(fill_normal);
        return values;
    };
    if (is_nf4(format_of(index))) return write_row(index, [&] { return drawn(0, row.used_rows * row.cols); });
    for (int64_t first = range.begin; first < range.end; first += kPiece) {
        const int64_t count = std::min(kPiece, range.end - first);
        write_kept(Kept::Weights, index, {first, first + count}, drawn(first, count).data());
    }
}

Tensor State::all(Buffer which) const {
    const Flat& flat = buffer(which);
    if (flat.data == nullptr) return {};
    return {flat.dtype, flat.data, flat.elements};
}

Tensor State::whole(Buffer which, int bucket) const {
    const Flat& flat = buffer(which);
    if (flat.data == nullptr || flat.in_pieces) return {};
    CHECK(!has_blocks(which), name_of(which));
    const Partition& partition = partition_of(which);
    char* data = flat.data + partition.bucket(bucket).offset * size_of(flat.dtype);
    return {flat.dtype, data, partition.bucket_elements(bucket)};
}

Tensor State::piece(Buffer which, int bucket) const {
    const Flat& flat = buffer(which);
    if (flat.data == nullptr) return {};
    const Bucket& b = partition_of(which).bucket(bucket);
    const int64_t first = flat.in_pieces ? b.shard_offset : b.offset + rank_ * b.piece;
    return {flat.dtype, flat.data + first * size_of(flat.dtype), b.piece};
}

Tensor State::row(Buffer which, int index) const {
    const Flat& flat = buffer(which);
    if (index == kNone || flat.data == nullptr || flat.in_pieces || places_.on_host(which)) return {};
    const Partition& partition = partition_of(which);
    if (!partition.holds(model_, index)) return {};
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    const Bucket& bucket = partition.bucket(partition.bucket_of_row(index));
    char* const first = flat.data + (bucket.offset + partition.row_in_bucket(model_, index)) * size_of(flat.dtype);
    if (which == Buffer::Frozen) return stored_tensor(row, format_of(index), first);
    return {flat.dtype, first, row.rows, row.cols};
}

Buffer State::buffer_of(Kept what, int index) const {
    switch (what) {
        case Kept::MomentM: return Buffer::MomentM;
        case Kept::MomentV: return Buffer::MomentV;
        case Kept::Weights: break;
    }
    if (!model_.trains(index)) return Buffer::Frozen;
    return buffer(Buffer::Masters).data != nullptr ? Buffer::Masters : Buffer::Parameters;
}

ElementRange State::held(int index) const {
    const bool in_pieces = model_.trains(index) ? places_.updates_pieces() : places_.in_pieces(Buffer::Frozen);
    if (in_pieces) return owned(index);
    return {0, partition_of_row(index).row_count(index)};
}

void State::round_masters() {
    if (!all(Buffer::Masters)) return;
    for (int b = 0; b <= partition_.last_bucket(); ++b) {
        if (partition_.bucket(b).is_empty()) continue;
        const bool in_pieces = places_.updates_pieces();
        const auto view = [&](Buffer which) { return in_pieces ? piece(which, b) : whole(which, b); };
        round_kept(view(Buffer::Parameters), view(Buffer::Masters),
                   places_.on_host(Buffer::Parameters) || places_.on_host(Buffer::Masters));
    }
}

/// Operations work on the device; what is in host memory is rounded here, piece by piece.
void State::round_kept(Tensor rounded, Tensor values, bool on_host) const {
    if (!on_host) return backend_.convert(rounded, values);
    constexpr int64_t kPiece = 1 << 20;
    std::vector<float> wide(static_cast<size_t>(std::min(kPiece, values.count())));
    std::vector<bf16> narrow(wide.size());
    for (int64_t first = 0; first < values.count(); first += kPiece) {
        const int64_t count = std::min(kPiece, values.count() - first);
        backend_.copy_to_host(wide.data(), values.row_range(first, count));
        std::transform(wide.begin(), wide.begin() + count, narrow.begin(), [](float value) { return to_bf16(value); });
        backend_.copy_to_device(rounded.row_range(first, count), narrow.data());
    }
}

Tensor stored_tensor(const ParameterRow& row, WeightFormat format, char* first) {
    if (is_nf4(format)) return {DType::U8, first, stored_bytes(row, format)};
    return {dtype_of(format), first, row.rows, row.cols};
}

Tensor State::partial_sum(int index) const {
    const int64_t bytes = memory_[static_cast<size_t>(Buffer::Gradients)].bytes();
    CHECK((index + 1) * bytes <= partial_sum_memory_.bytes(), index, partial_sum_memory_.bytes());
    return {DType::F32, partial_sum_memory_.data() + index * bytes, buffer(Buffer::Gradients).elements};
}

Tensor State::partial_sum(int index, int bucket) const {
    const Bucket& b = partition_.bucket(bucket);
    const bool in_pieces = places_.in_pieces(Buffer::Gradients);
    return partial_sum(index).row_range(in_pieces ? b.shard_offset : b.offset,
                                        in_pieces ? b.piece : partition_.bucket_elements(bucket));
}

Tensor State::scalars(int64_t offset, DType dtype, int64_t count) const {
    return {dtype, scalar_memory_.data() + offset, count};
}

Tensor State::loss_sum() const { return scalars(scalars_layout_.loss_sum, DType::F64, 1); }
Tensor State::loss_scale() const { return scalars(scalars_layout_.loss_scale, DType::F32, 1); }
Tensor State::controls() const { return scalars(scalars_layout_.controls, DType::F64, kNumControls); }
Tensor State::factors() const { return scalars(scalars_layout_.factors, DType::F32, kNumFactors); }
Tensor State::grad_norm() const { return scalars(scalars_layout_.grad_norm, DType::F64, 1); }
Tensor State::position() const { return scalars(scalars_layout_.position, DType::I32, 1); }

void State::set_position(int64_t position) {
    const auto value = static_cast<int32_t>(position);
    backend_.copy_to_device(this->position(), &value);
}

void State::set_loss_scale(float scale) { backend_.copy_to_device(loss_scale(), &scale); }

void State::set_control(UpdateControl control, double value) {
    backend_.copy_to_device(controls().row_range(static_cast<int64_t>(control), 1), &value);
}

Tensor State::norm_pieces() const {
    return scalars(scalars_layout_.norm_pieces, DType::I32, static_cast<int64_t>(partition_.buckets.size()));
}
Tensor State::norm_sums() const {
    return scalars(scalars_layout_.norm_sums, DType::F64, norm_layout(partition_).count());
}

Tensor State::own_norm_sums(int bucket) const {
    const NormLayout layout = norm_layout(partition_);
    const int64_t first = (rank_ * layout.buckets + bucket) * layout.stride;
    const Bucket& b = partition_.bucket(bucket);
    return scalars(scalars_layout_.norm_sums + first * size_of(DType::F64), DType::F64, b.piece / b.chunk);
}

int64_t State::allocated_bytes() const { return bytes_in(Memory::Device); }

int64_t State::allocated_host_bytes() const { return bytes_in(Memory::Host); }

int64_t State::bytes_in(Memory memory) const {
    int64_t bytes = 0;
    const auto add = [&](const DeviceBuffer& buffer) { bytes += buffer.memory() == memory ? buffer.bytes() : 0; };
    for (const DeviceBuffer* buffer : {&partial_sum_memory_, &rope_memory_, &scalar_memory_, &arena_, &host_})
        add(*buffer);
    for (const DeviceBuffer& buffer : memory_) add(buffer);
    return bytes;
}

}  // namespace llmc
