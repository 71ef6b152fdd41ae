// The parts of State that know formats: where blocks lie, what an update works on, and values to and from the host.
#include "llmc/base/dynamic_map.h"
#include "llmc/base/units.h"
#include "llmc/run/state.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace llmc {
namespace {

const DynamicMap& map_of(Kept what) { return what == Kept::MomentM ? signed_map() : unsigned_map(); }

int64_t blocks_in(int64_t elements) { return ceil_div(elements, kStateBlock); }

}  // namespace

Tensor State::in_buffer(Buffer which, int64_t offset, DType dtype, int64_t count) const {
    const Flat& flat = buffer(which);
    if (flat.data == nullptr) return {};
    return {dtype, flat.data + offset, count};
}

Tensor State::kept(Kept what, int index, const ElementRange& range) const {
    CHECK(keeps(what, index), model_.parameters[static_cast<size_t>(index)].name);
    const Buffer which = buffer_of(what, index);
    const Flat& flat = buffer(which);
    const Partition& partition = partition_of_row(index);
    const int bucket_index = partition.bucket_of_row(index);
    const Bucket& bucket = partition.bucket(bucket_index);
    const ElementRange here = held(index);
    CHECK(range.begin >= here.begin && range.end <= here.end, range.begin, range.end, here.begin, here.end);
    const int64_t in_bucket = partition.row_in_bucket(model_, index) + range.begin;
    const int64_t in_piece = in_bucket - (flat.in_pieces ? rank_ * bucket.piece : 0);
    if (which == Buffer::Frozen) {
        const DType dtype = dtype_of(format_of(index));
        const int64_t first = partition.row_in_bucket(model_, index) + range.begin * size_of(dtype);
        const int64_t base = flat.in_pieces ? bucket.shard_offset - rank_ * bucket.piece : bucket.offset;
        return in_buffer(which, base + first, dtype, range.count());
    }
    if (has_blocks(which)) {
        const BlocksLayout::OfBucket& blocks = blocks_.buckets[static_cast<size_t>(bucket_index)];
        if (in_blocks(model_.parameters[static_cast<size_t>(index)])) {
            return in_buffer(which, blocks.codes + in_piece, DType::U8, range.count());
        }
        const int64_t in_small = blocks_.small_offset[static_cast<size_t>(index)] + range.begin;
        return in_buffer(which, blocks.small + in_small * size_of(DType::F32), DType::F32, range.count());
    }
    const int64_t first = (flat.in_pieces ? bucket.shard_offset : bucket.offset) + in_piece;
    return in_buffer(which, first * size_of(flat.dtype), flat.dtype, range.count());
}

Tensor State::kept_scales(Kept what, int index, const ElementRange& range) const {
    const Buffer which = buffer_of(what, index);
    const Tensor codes = kept(what, index, range);
    if (codes.dtype != DType::U8 || !has_blocks(which)) return {};
    const auto bucket = static_cast<size_t>(partition_.bucket_of_row(index));
    const BlocksLayout::OfBucket& blocks = blocks_.buckets[bucket];
    const int64_t first = static_cast<char*>(codes.data) - (buffer(which).data + blocks.codes);
    CHECK(range.begin % kStateBlock == 0 && first % kStateBlock == 0, range.begin, first);
    return in_buffer(which, blocks.scales + first / kStateBlock * size_of(DType::F32), DType::F32,
                     blocks_in(range.count()));
}

void State::read_kept(Kept what, int index, const ElementRange& range, void* values) const {
    CHECK(what != Kept::Weights || !is_nf4(format_of(index)), index, "is in NF4");
    const Tensor from = kept(what, index, range);
    if (from.dtype == DType::F32) return backend_.copy_to_host(values, from);
    std::vector<float> wide(static_cast<size_t>(range.count()));
    if (from.dtype == DType::BF16) {
        std::vector<bf16> rounded(wide.size());
        backend_.copy_to_host(rounded.data(), from);
        std::transform(rounded.begin(), rounded.end(), wide.begin(), [](bf16 value) { return to_float(value); });
    } else {
        std::vector<uint8_t> codes(wide.size());
        std::vector<float> scales(static_cast<size_t>(blocks_in(range.count())));
        backend_.copy_to_host(codes.data(), from);
        backend_.copy_to_host(scales.data(), kept_scales(what, index, range));
        for (int64_t i = 0; i < range.count(); i += kStateBlock) {
            dequantise_block(&wide[static_cast<size_t>(i)], &codes[static_cast<size_t>(i)],
                             scales[static_cast<size_t>(i / kStateBlock)], std::min(kStateBlock, range.count() - i),
                             map_of(what));
        }
    }
    std::memcpy(values, wide.data(), wide.size() * sizeof(float));
}

void State::write_kept(Kept what, int index, const ElementRange& range, const void* values) {
    CHECK(what != Kept::Weights || !is_nf4(format_of(index)), index, "is in NF4");
    const Tensor to = kept(what, index, range);
    if (to.dtype == DType::F32) return backend_.copy_to_device(to, values);
    std::vector<float> wide(static_cast<size_t>(range.count()));
    std::memcpy(wide.data(), values, wide.size() * sizeof(float));
    if (to.dtype == DType::BF16) {
        std::vector<bf16> rounded(wide.size());
        std::transform(wide.begin(), wide.end(), rounded.begin(), [](float value) { return to_bf16(value); });
        return backend_.copy_to_device(to, rounded.data());
    }
    std::vector<uint8_t> codes(wide.size());
    std::vector<float> scales;
    for (int64_t i = 0; i < range.count(); i += kStateBlock) {
        scales.push_back(quantise_block(&codes[static_cast<size_t>(i)], &wide[static_cast<size_t>(i)],
                                        std::min(kStateBlock, range.count() - i), map_of(what)));
    }
    backend_.copy_to_device(to, codes.data());
    backend_.copy_to_device(kept_scales(what, index, range), scales.data());
}

void State::write_row(int index, const ValuesOf& values, const Nf4Source& source) {
    const ElementRange range = held(index);
    if (range.count() <= 0) return;
    if (!is_nf4(format_of(index))) {
        const std::vector<float> all = values();
        return write_kept(Kept::Weights, index, range, all.data() + range.begin);
    }
    const ParameterRow& row = model_.parameters[static_cast<size_t>(index)];
    const std::vector<std::byte> stored = pack_row(row, format_of(index), values, source);
    backend_.copy_to_device(kept(Kept::Weights, index, range), stored.data() + range.begin);
}

/// Of ranges of a bucket what lies in some elements of it, counted from the first of those.
std::vector<ParameterRange> State::inside(const ElementRange& of_bucket,
                                          const std::vector<ParameterRange>& ranges) const {
    std::vector<ParameterRange> here;
    for (ParameterRange range : ranges) {
        const int64_t from = std::max(of_bucket.begin, range.offset);
        const int64_t to = std::min(of_bucket.end, range.offset + range.count);
        if (from >= to) continue;
        range.first += from - range.offset;
        range.offset = from - of_bucket.begin, range.count = to - from;
        here.push_back(range);
    }
    return here;
}

/// All of a bucket, or this rank's piece of it, in elements of the bucket.
ElementRange State::range_of_bucket(int bucket, bool whole) const {
    if (whole) return {0, partition_.bucket_elements(bucket)};
    const int64_t piece = partition_.bucket(bucket).piece;
    return {rank_ * piece, (rank_ + 1) * piece};
}

std::vector<ParameterRange> State::rows_and_gaps(int bucket, bool whole) const {
    std::vector<ParameterRange> ranges = parameter_ranges(model_, partition_, bucket, /*by_row=*/true);
    for (size_t i = 0; i < ranges.size(); ++i) {
        const int64_t end = i + 1 < ranges.size() ? ranges[i + 1].offset : partition_.bucket_elements(bucket);
        ranges[i].count = end - ranges[i].offset;
    }
    return inside(range_of_bucket(bucket, whole), ranges);
}

/// Of a bucket's rows in fp32 beside 8-bit blocks, those elements that lie in a range of it.
ElementRange State::small_elements(int bucket, const ElementRange& of_bucket) const {
    ElementRange small;
    for (const ParameterRange& row : parameter_ranges(model_, partition_, bucket, /*by_row=*/true)) {
        const int64_t from = std::max(of_bucket.begin, row.offset);
        const int64_t to = std::min(of_bucket.end, row.offset + row.count);
        if (from >= to || in_blocks(model_.parameters[static_cast<size_t>(row.row)])) continue;
        const int64_t shift = blocks_.small_offset[static_cast<size_t>(row.row)] - row.offset;
        if (small.count() == 0) small.begin = from + shift;
        small.end = to + shift;
    }
    return small;
}

std::vector<KeptSpan> State::kept_spans(Buffer which, int bucket, bool own_piece, const ElementRange& range) const {
    const Flat& flat = buffer(which);
    const Bucket& b = partition_of(which).bucket(bucket);
    CHECK(flat.data != nullptr && (own_piece || !flat.in_pieces), name_of(which));
    const int64_t in_bucket = range.begin + (own_piece ? rank_ * b.piece : 0);
    const int64_t first = flat.in_pieces ? range.begin : in_bucket;
    if (!has_blocks(which)) {
        const int64_t begin = (flat.in_pieces ? b.shard_offset : b.offset) + first;
        return {{flat.data + begin * size_of(flat.dtype), 0, range.count() * size_of(flat.dtype)}};
    }
    const BlocksLayout::OfBucket& blocks = blocks_.buckets[static_cast<size_t>(bucket)];
    constexpr int64_t kItem = size_of(DType::F32);
    std::vector<KeptSpan> spans = {
        {flat.data + blocks.codes + first, 0, range.count()},
        {flat.data + blocks.scales + first / kStateBlock * kItem, slot_.scales, blocks_in(range.count()) * kItem}};
    const ElementRange small = small_elements(bucket, {in_bucket, in_bucket + range.count()});
    if (small.count() > 0) {
        spans.push_back({flat.data + blocks.small + small.begin * kItem, slot_.small, small.count() * kItem});
    }
    return spans;
}

/// Elements of what this rank updates of a bucket: where they have come to, or where they are kept.
Tensor State::updated(Buffer which, int bucket, const ElementRange& range, const UpdateSlots& here) const {
    const Flat& flat = buffer(which);
    if (flat.data == nullptr) return {};
    if (char* slot = here[static_cast<size_t>(which)]) return {flat.dtype, slot, range.count()};
    CHECK(!places_.on_host(which), name_of(which), "is not on the device");
    const Tensor all = places_.updates_pieces() ? piece(which, bucket) : whole(which, bucket);
    return all.row_range(range.begin, range.count());
}

UpdateOperands State::update_operands(int bucket, const ElementRange& range, const UpdateSlots& here) const {
    const auto view = [&](Buffer which) { return updated(which, bucket, range, here); };
    UpdateOperands operands;
    operands.parameters = view(Buffer::Parameters), operands.master = view(Buffer::Masters);
    operands.gradients = view(Buffer::Gradients);
    operands.controls = controls();
    if (places_.format(Buffer::MomentM) != DType::U8) {
        operands.m = view(Buffer::MomentM), operands.v = view(Buffer::MomentV);
        return operands;
    }
    const BlocksLayout::OfBucket& blocks = blocks_.buckets[static_cast<size_t>(bucket)];
    const int64_t scales = blocks_in(range.count()), first_scale = range.begin / kStateBlock * size_of(DType::F32);
    const auto codes_of = [&](Buffer which) {
        if (char* slot = here[static_cast<size_t>(which)]) return Tensor(DType::U8, slot, range.count());
        return in_buffer(which, blocks.codes + range.begin, DType::U8, range.count());
    };
    const auto scales_of = [&](Buffer which) {
        if (char* slot = here[static_cast<size_t>(which)]) return Tensor(DType::F32, slot + slot_.scales, scales);
        return in_buffer(which, blocks.scales + first_scale, DType::F32, scales);
    };
    operands.m = codes_of(Buffer::MomentM), operands.m_scales = scales_of(Buffer::MomentM);
    operands.v = codes_of(Buffer::MomentV), operands.v_scales = scales_of(Buffer::MomentV);
    return operands;
}

std::vector<UpdateViews> State::update_views(int bucket, const ElementRange& range, const UpdateSlots& here) const {
    const std::vector<ParameterRange> rows = parameter_ranges(model_, partition_, bucket, places_.updates_by_row());
    const int64_t base = range_of_bucket(bucket, /*whole=*/!places_.updates_pieces()).begin;
    const ElementRange of_bucket = {base + range.begin, base + range.end};
    UpdateViews all = {update_operands(bucket, range, here), inside(of_bucket, rows)};
    if (places_.format(Buffer::MomentM) != DType::U8) return {std::move(all)};

    const BlocksLayout::OfBucket& blocks = blocks_.buckets[static_cast<size_t>(bucket)];
    const ElementRange come = small_elements(bucket, of_bucket);
    const auto small_of = [&](Buffer which) {
        if (char* slot = here[static_cast<size_t>(which)]) return Tensor(DType::F32, slot + slot_.small, come.count());
        return in_buffer(which, blocks.small + come.begin * size_of(DType::F32), DType::F32, come.count());
    };
    UpdateViews small = {all.operands, {}};
    small.operands.m = small_of(Buffer::MomentM), small.operands.v = small_of(Buffer::MomentV);
    small.operands.m_scales = small.operands.v_scales = {};
    std::vector<ParameterRange> large;
    for (ParameterRange part : all.ranges) {
        const auto row = static_cast<size_t>(part.row);
        if (in_blocks(model_.parameters[row])) {
            large.push_back(part);
            continue;
        }
        part.moments_shift = blocks_.small_offset[row] + part.first - part.offset - come.begin;
        small.ranges.push_back(part);
    }
    all.ranges = std::move(large);
    return {std::move(all), std::move(small)};
}

std::vector<ParameterRange> parameter_ranges(const Model& model, const Partition& partition, int bucket, bool by_row) {
    std::vector<ParameterRange> ranges;
    const Bucket& b = partition.bucket(bucket);
    for (int index = b.first_row; index < b.first_row + b.rows; ++index) {
        // A row begins where the last range ends, up to an alignment gap of zeros that may be updated as well.
        if (!partition.holds(model, index)) continue;
        const ParameterRow& row = model.parameters[static_cast<size_t>(index)];
        const int64_t first = partition.row_in_bucket(model, index);
        const bool extends = !by_row && !ranges.empty() && ranges.back().decay == row.decay;
        if (!extends) ranges.push_back({first, 0, row.decay, by_row ? index : 0});
        ranges.back().count = first + row.count() - ranges.back().offset;
    }
    return ranges;
}

}  // namespace llmc
