#include "llmc/run/state.h"

#include "llmc/base/error.h"
#include "llmc/base/rng.h"

#include <algorithm>
#include <utility>

namespace llmc {

DeviceBuffer::DeviceBuffer(Backend& backend, int64_t bytes, const std::string& what)
    : backend_(&backend), bytes_(bytes) {
    if (bytes > 0) data_ = static_cast<char*>(backend.allocate(bytes, what));
}

DeviceBuffer::~DeviceBuffer() {
    if (data_ != nullptr) backend_->release(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

State::State(Backend& backend, const Model& model, DType dtype, int64_t T, int64_t arena_bytes, bool training,
             const Parallel& parallel, int rank)
    : backend_(backend),
      model_(model),
      dtype_(dtype),
      parallel_(parallel),
      rank_(rank),
      partition_(make_partition(model, parallel.ranks)),
      scalars_layout_(scalars_layout(partition_)) {
    CHECK(rank >= 0 && rank < parallel.ranks, rank, parallel.ranks);
    const std::string obstacle = backend.why_unsupported({1, T, model.config.NH, model.config.NKV, model.config.HD});
    if (!obstacle.empty()) fail("model {}: {}", model.config.name, obstacle);
    const StateBytes bytes = state_bytes(model, dtype, T, parallel, training);
    parameter_memory_ = DeviceBuffer(backend, bytes.parameters, "parameters");
    gradient_memory_ = DeviceBuffer(backend, bytes.gradients, "gradients");
    partial_sum_memory_ = DeviceBuffer(backend, bytes.partial_sums, "sums of micro-batches");
    moment_memory_ = DeviceBuffer(backend, bytes.moments, "AdamW moments");
    master_memory_ = DeviceBuffer(backend, bytes.master, "master weights");
    rope_memory_ = DeviceBuffer(backend, bytes.rope_table, "RoPE table");
    scalar_memory_ = DeviceBuffer(backend, bytes.scalars, "scalars");
    arena_ = DeviceBuffer(backend, arena_bytes, "activations");
    parameters_ = make_flat(parameter_memory_, dtype, 3);
    gradients_ = make_flat(gradient_memory_, DType::F32, 2);
    master_ = make_flat(master_memory_, DType::F32, 1);
    m_ = make_flat(moment_memory_, DType::F32, 1);
    v_ = make_flat(moment_memory_, DType::F32, 1, bytes.moments / 2);
    if (bytes.rope_table > 0) {
        rope_table_ = Tensor(DType::F32, rope_memory_.data(), T, model.config.HD);
        backend.copy_to_device(rope_table_, llmc::rope_table(model.config, T).data());
    }
    if (bytes.scalars > 0) {
        std::vector<int32_t> pieces;
        for (const Bucket& bucket : partition_.buckets) {
            pieces.push_back(static_cast<int32_t>(bucket.piece / bucket.chunk));
        }
        backend.copy_to_device(norm_pieces(), pieces.data());
    }
}

State::Flat State::make_flat(const DeviceBuffer& memory, DType dtype, int first_sharded_stage,
                             int64_t first_byte) const {
    if (memory.data() == nullptr) return {};
    const bool sharded = parallel_.zero >= first_sharded_stage;
    return {dtype, sharded, sharded ? partition_.shard_elements : partition_.elements, memory.data() + first_byte};
}

void State::reserve_host(int64_t bytes) {
    if (bytes <= host_bytes_) return;
    host_.reset();
    void* memory = backend_.allocate_host(bytes, std::string(kHostMemoryRow));
    host_ = std::unique_ptr<char, ReleaseHost>(static_cast<char*>(memory), {&backend_});
    host_bytes_ = bytes;
}

void State::initialise(uint64_t seed) {
    constexpr int64_t kPiece = 1 << 18;  // A large tensor is drawn in pieces, so that the host never holds it twice.
    std::vector<float> values;
    for (int index = 0; index < static_cast<int>(model_.parameters.size()); ++index) {
        const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
        const ElementRange range = held(index);
        if (row.init == Init::Zeros) continue;
        for (int64_t first = range.begin; first < range.end; first += kPiece) {
            const int64_t count = std::min(kPiece, range.end - first);
            values.assign(static_cast<size_t>(count), 1.0f);
            if (row.init == Init::Normal) {
                fill_normal(values.data(), count, row.stddev, seed, RngStream::Init, static_cast<uint32_t>(index),
                            static_cast<uint64_t>(first));
            }
            backend_.copy_to_device(kept(Kept::Weights, index, {first, first + count}), values.data());
        }
    }
    round_masters();
}

Tensor State::all(const Flat& flat) const {
    if (flat.data == nullptr) return {};
    return {flat.dtype, flat.data, flat.elements};
}

Tensor State::whole(const Flat& flat, int bucket) const {
    if (flat.data == nullptr || flat.sharded) return {};
    char* data = flat.data + partition_.bucket(bucket).offset * size_of(flat.dtype);
    return {flat.dtype, data, partition_.bucket_elements(bucket)};
}

Tensor State::piece(const Flat& flat, int bucket) const {
    if (flat.data == nullptr) return {};
    const Bucket& b = partition_.bucket(bucket);
    const int64_t first = flat.sharded ? b.shard_offset : b.offset + rank_ * b.piece;
    return {flat.dtype, flat.data + first * size_of(flat.dtype), b.piece};
}

Tensor State::row(const Flat& flat, int index) const {
    if (index == kNone || flat.data == nullptr) return {};
    CHECK(!flat.sharded, index);
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    const Bucket& bucket = partition_.bucket(partition_.bucket_of_row(index));
    const int64_t first = bucket.offset + partition_.row_in_bucket(model_, index);
    return {flat.dtype, flat.data + first * size_of(flat.dtype), row.rows, row.cols};
}

Tensor State::parameter(int index) const { return row(parameters_, index); }
Tensor State::gradient(int index) const { return row(gradients_, index); }

ElementRange State::held(int index) const {
    if (parallel_.zero > 0) return owned(index);
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    return {0, row.used_rows * row.cols};
}

Tensor State::kept(Kept what, int index, const ElementRange& range) const {
    const Flat& weights = master_.data != nullptr ? master_ : parameters_;
    const Flat& flat = what == Kept::Weights ? weights : what == Kept::MomentM ? m_ : v_;
    const int bucket_index = partition_.bucket_of_row(index);
    const Bucket& bucket = partition_.bucket(bucket_index);
    const ElementRange here = held(index);
    CHECK(range.begin >= here.begin && range.end <= here.end, range.begin, range.end, here.begin, here.end);
    const int64_t in_bucket = partition_.row_in_bucket(model_, index) + range.begin;
    const int64_t first =
        flat.sharded ? bucket.shard_offset + in_bucket - rank_ * bucket.piece : bucket.offset + in_bucket;
    return {flat.dtype, flat.data + first * size_of(flat.dtype), range.count()};
}

void State::round_masters() {
    if (master_.data == nullptr) return;
    for (int b = 0; b <= partition_.last_bucket(); ++b) {
        const UpdateViews views = update_views(b);
        backend_.convert(views.parameters, views.master);
    }
}

Tensor State::bucket_parameters(int bucket) const { return whole(parameters_, bucket); }
Tensor State::bucket_gradients(int bucket) const { return whole(gradients_, bucket); }
Tensor State::own_parameters(int bucket) const { return piece(parameters_, bucket); }
Tensor State::own_gradients(int bucket) const { return piece(gradients_, bucket); }

UpdateViews State::update_views(int bucket) const {
    UpdateViews views;
    const bool sharded = parallel_.zero > 0;
    const auto view = [&](const Flat& flat) { return sharded ? piece(flat, bucket) : whole(flat, bucket); };
    views.parameters = view(parameters_);
    views.master = view(master_);
    views.m = view(m_);
    views.v = view(v_);
    views.gradients = view(gradients_);
    const int64_t first = sharded ? rank_ * partition_.bucket(bucket).piece : 0;
    const int64_t end = first + views.parameters.count();
    for (const ParameterRange& range : parameter_ranges(model_, partition_, bucket)) {
        const int64_t from = std::max(first, range.offset), to = std::min(end, range.offset + range.count);
        if (from < to) views.ranges.push_back({from - first, to - from, range.decay});
    }
    return views;
}

Tensor State::partial_sum(int index) const {
    const int64_t bytes = gradient_memory_.bytes();
    CHECK((index + 1) * bytes <= partial_sum_memory_.bytes(), index, partial_sum_memory_.bytes());
    return {DType::F32, partial_sum_memory_.data() + index * bytes, gradients_.elements};
}

Tensor State::scalars(int64_t offset, DType dtype, int64_t count) const {
    return {dtype, scalar_memory_.data() + offset, count};
}

Tensor State::loss_sum() const { return scalars(scalars_layout_.loss_sum, DType::F64, 1); }
Tensor State::grad_norm() const { return scalars(scalars_layout_.grad_norm, DType::F64, 1); }
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

int64_t State::allocated_bytes() const {
    int64_t bytes = 0;
    for (const DeviceBuffer* memory : {&parameter_memory_, &gradient_memory_, &partial_sum_memory_, &moment_memory_,
                                       &master_memory_, &rope_memory_, &scalar_memory_, &arena_}) {
        bytes += memory->bytes();
    }
    return bytes;
}

std::vector<ParameterRange> parameter_ranges(const Model& model, const Partition& partition, int bucket) {
    std::vector<ParameterRange> ranges;
    const Bucket& b = partition.bucket(bucket);
    for (int index = b.first_row; index < b.first_row + b.rows; ++index) {
        // A row begins where the last range ends, up to an alignment gap of zeros that may be updated as well.
        const ParameterRow& row = model.parameters[static_cast<size_t>(index)];
        const int64_t first = partition.row_in_bucket(model, index);
        const bool extends = !ranges.empty() && ranges.back().decay == row.decay;
        if (!extends) ranges.push_back({first, 0, row.decay});
        ranges.back().count = first + row.count() - ranges.back().offset;
    }
    return ranges;
}

}  // namespace llmc
