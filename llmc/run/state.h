// The buffers of one rank: parameters, gradients, the optimiser's moments, master weights, frozen parameters, the
// arena. Each is one contiguous allocation, made before the first step and never again. A flat buffer is whole (all
// buckets of the partition, in order) or this rank's piece of every bucket, as the table of places says.
#pragma once

#include "llmc/plan/formats.h"
#include "llmc/plan/stored_row.h"
#include "llmc/run/memory.h"

#include <array>
#include <string>

namespace llmc {

/// One allocation of a backend on the device, or in memory of the host, released with the object.
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    DeviceBuffer(Backend& backend, int64_t bytes, const std::string& what, Memory memory = Memory::Device);
    ~DeviceBuffer();
    DeviceBuffer(DeviceBuffer&& other) noexcept;
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

    char* data() const { return data_; }
    int64_t bytes() const { return bytes_; }
    Memory memory() const { return memory_; }

  private:
    Backend* backend_ = nullptr;
    char* data_ = nullptr;
    int64_t bytes_ = 0;
    Memory memory_ = Memory::Device;
};

/// What is kept for every parameter, in the format of its place; of frozen ones the weights alone.
enum class Kept : uint8_t { Weights, MomentM, MomentV };

/// The buffers of a bucket, or of this rank's piece of it, that an update touches; elements correspond.
struct UpdateViews {
    UpdateOperands operands;
    std::vector<ParameterRange> ranges;  ///< In elements of these tensors.
};

/// By buffer, where the elements of an update are that are kept in host memory; null of those on the device.
using UpdateSlots = std::array<char*, kNumBuffers>;

/// Bytes of what is kept, and where in a tensor they belong that they come to or go from.
struct KeptSpan {
    char* kept = nullptr;
    int64_t offset = 0, bytes = 0;
};

class State {
  public:
    /// Allocates everything, zeroed, on the device or in host memory, as the table of places says. `arena_bytes` is the
    /// largest arena of the plans that will run.
    State(Backend& backend, const Model& model, const Places& places, int64_t T, int64_t arena_bytes, bool training,
          const Parallel& parallel = {}, int rank = 0);

    /// Memory of the host, besides, for a plan that copies tensors out. Executors ask for it when they are made, which
    /// is before the first of them runs; their plans share it.
    void reserve_host(int64_t bytes);

    /// Draws the initial parameters that this rank keeps: counter-based, so the values depend on the seed, the tensor's
    /// place in the table and the element only.
    void initialise(uint64_t seed);
    /// The same of one row; round_masters() is for afterwards.
    void initialise_row(int index, uint64_t seed);

    /// A parameter tensor by row of Model::parameters, as it is stored (one in NF4 as its bytes), and its gradient;
    /// empty for kNone, and where they are in pieces or in host memory.
    Tensor parameter(int index) const { return row(buffer_of_row(index), index); }
    Tensor gradient(int index) const { return row(Buffer::Gradients, index); }

    /// How a row's weights are stored. Where that is NF4, ranges of the row, here and below, are of its bytes, and are
    /// read and written whole alone, by write_row().
    WeightFormat format_of(int index) const { return stored_format(model_, places_, index); }
    /// The part of a row for which this rank keeps weights and moments, in elements of the row.
    ElementRange held(int index) const;
    /// The same for writing a checkpoint, which every rank writes a piece of.
    ElementRange owned(int index) const { return partition_of_row(index).owned(model_, index, rank_); }
    /// Whether there is such a thing for a row: frozen ones have no moments, and an optimiser may have no second ones.
    bool keeps(Kept what, int index) const {
        return (what == Kept::Weights || model_.trains(index)) && buffer(buffer_of(what, index)).data != nullptr;
    }
    /// A range inside held(), of the master weights where there are some, in its format: fp32, bf16, or codes (uint8)
    /// of 8-bit blocks, of which ranges begin at a whole block and end there or at the row's end.
    Tensor kept(Kept what, int index, const ElementRange& range) const;
    /// The largest magnitudes of such a range's blocks, fp32; empty for the other formats.
    Tensor kept_scales(Kept what, int index, const ElementRange& range) const;
    /// The same to and from fp32 values of the host, which may be unaligned; rounded to what they are kept in.
    void read_kept(Kept what, int index, const ElementRange& range, void* values) const;
    void write_kept(Kept what, int index, const ElementRange& range, const void* values);
    /// All of a row's values on the host into what this rank keeps of it; quantised where it is stored so, but for
    /// parts that `source` has in NF4.
    void write_row(int index, const ValuesOf& values, const Nf4Source& source = {});
    /// After fp32 weights were loaded: rounds those this rank keeps into its parameters. Nothing to do in fp32.
    void round_masters();

    /// Whole buckets, one rank's piece after the other. Empty where they are in pieces.
    Tensor bucket_parameters(int bucket, Buffer which = Buffer::Parameters) const { return whole(which, bucket); }
    Tensor bucket_gradients(int bucket) const { return whole(Buffer::Gradients, bucket); }
    /// This rank's piece of a bucket; of Buffer::Parameters or Buffer::Frozen.
    Tensor own_parameters(int bucket, Buffer which = Buffer::Parameters) const { return piece(which, bucket); }
    Tensor own_gradients(int bucket) const { return piece(Buffer::Gradients, bucket); }
    /// What an update of these elements of what a rank updates of a bucket works on. Rows whose moments are kept in
    /// another format than the rest's are views of their own. `here`: by buffer, where on the device they are of what
    /// is kept in host memory.
    std::vector<UpdateViews> update_views(int bucket, const ElementRange& range, const UpdateSlots& here = {}) const;
    /// Elements of a bucket of a buffer, of all of it or of this rank's piece, as they lie in what is kept of it and in
    /// a tensor that they come to.
    std::vector<KeptSpan> kept_spans(Buffer which, int bucket, bool own_piece, const ElementRange& range) const;
    /// Row by row, this rank's piece of a bucket, or all of it, in elements of that; with the gaps behind rows.
    std::vector<ParameterRange> piece_ranges(int bucket) const { return rows_and_gaps(bucket, /*whole=*/false); }
    std::vector<ParameterRange> bucket_ranges(int bucket) const { return rows_and_gaps(bucket, /*whole=*/true); }

    /// All that is kept here of a flat buffer; empty where there is none.
    Tensor all(Buffer buffer) const;
    Tensor all_gradients() const { return all(Buffer::Gradients); }
    /// A sum of earlier micro-batches' gradients, as large as all_gradients(); see partial_sum_count().
    Tensor partial_sum(int index) const;
    /// What it has of a bucket.
    Tensor partial_sum(int index, int bucket) const;

    Tensor rope_table() const { return rope_table_; }
    Tensor loss_sum() const;    ///< (1) fp64.
    Tensor loss_scale() const;  ///< (1) fp32: factor of every token's loss gradient.
    Tensor controls() const;    ///< (kNumControls) fp64; see UpdateControl.
    Tensor factors() const;     ///< (kNumFactors) fp32; see Factor.
    Tensor grad_norm() const;   ///< (1) fp64.
    Tensor position() const;    ///< (1) int32: of the first new token, in generation; see FirstPosition.
    void set_position(int64_t position);
    void set_loss_scale(float scale);
    void set_control(UpdateControl control, double value);
    Tensor norm_pieces() const;
    Tensor norm_sums() const;
    /// Where the sums of squares of own_gradients(bucket) belong in norm_sums().
    Tensor own_norm_sums(int bucket) const;
    char* arena() const { return arena_.data(); }
    char* host() const { return host_.data(); }  ///< Of reserve_host().

    const Model& model() const { return model_; }
    Backend& backend() const { return backend_; }
    DType dtype() const { return places_.activations(); }
    const Places& places() const { return places_; }
    const Partition& partition() const { return partition_; }  ///< Of the trainable rows.
    const Partition& partition_of(Buffer which) const { return which == Buffer::Frozen ? frozen_ : partition_; }
    /// Where a row lies: Buffer::Parameters or Buffer::Frozen. kNone counts as trainable.
    Buffer buffer_of_row(int index) const {
        return index == kNone || model_.trains(index) ? Buffer::Parameters : Buffer::Frozen;
    }
    const Parallel& parallel() const { return parallel_; }
    int rank() const { return rank_; }
    /// Sum of all allocations on the device.
    int64_t allocated_bytes() const;
    /// Sum of all allocations in host memory.
    int64_t allocated_host_bytes() const;
    /// How far into the memory of a flat buffer an address reaches.
    int64_t reach(Buffer which, const char* end) const { return end - buffer(which).data; }

  private:
    /// Whether moments in 8-bit blocks lie in a buffer; that of frozen rows has bytes, too.
    bool has_blocks(Buffer which) const { return which != Buffer::Frozen && buffer(which).dtype == DType::U8; }
    /// A flat buffer: all buckets, or this rank's pieces of them; elements of that of frozen rows are bytes.
    struct Flat {
        DType dtype = DType::F32;
        bool in_pieces = false;
        int64_t elements = 0;
        char* data = nullptr;
    };
    static constexpr int kNumFlat = kNumBuffers - 1;  ///< Boundaries are tensors of plans.
    const Flat& buffer(Buffer which) const { return flat_[static_cast<size_t>(which)]; }
    Buffer buffer_of(Kept what, int index) const;
    const Partition& partition_of_row(int index) const { return partition_of(buffer_of_row(index)); }
    Tensor whole(Buffer which, int bucket) const;
    Tensor piece(Buffer which, int bucket) const;
    Tensor row(Buffer which, int index) const;
    Tensor scalars(int64_t offset, DType dtype, int64_t count) const;
    std::vector<ParameterRange> inside(const ElementRange& of_bucket, const std::vector<ParameterRange>& ranges) const;
    ElementRange range_of_bucket(int bucket, bool whole) const;
    std::vector<ParameterRange> rows_and_gaps(int bucket, bool whole) const;
    int64_t bytes_in(Memory memory) const;
    UpdateOperands update_operands(int bucket, const ElementRange& range, const UpdateSlots& here) const;
    Tensor updated(Buffer which, int bucket, const ElementRange& range, const UpdateSlots& here) const;
    ElementRange small_elements(int bucket, const ElementRange& of_bucket) const;
    void round_kept(Tensor rounded, Tensor values, bool on_host) const;
    Tensor in_buffer(Buffer which, int64_t offset, DType dtype, int64_t count) const;

    Backend& backend_;
    const Model& model_;
    Places places_;
    Parallel parallel_;
    int rank_;
    Partition partition_, frozen_;
    BlocksLayout blocks_;  ///< Of moments, where they are in 8-bit blocks ...
    BlocksSlot slot_;      ///< ... and in a slot of the update.
    ScalarsLayout scalars_layout_;
    std::array<DeviceBuffer, kNumFlat> memory_;
    std::array<Flat, kNumFlat> flat_;
    DeviceBuffer partial_sum_memory_, rope_memory_, scalar_memory_, arena_, host_;
    Tensor rope_table_;
};

/// A row as it is stored, from its first byte on.
Tensor stored_tensor(const ParameterRow& row, WeightFormat format, char* first);

/// The rows of a bucket as ranges with one weight decay each, in elements of the bucket; neighbours merged, unless each
/// row is to be a range.
std::vector<ParameterRange> parameter_ranges(const Model& model, const Partition& partition, int bucket,
                                             bool by_row = false);

}  // namespace llmc
