#include "llmc/plan/formats.h"

#include "llmc/base/dynamic_map.h"
#include "llmc/base/error.h"
#include "llmc/base/units.h"
#include "llmc/plan/step.h"

#include <algorithm>

namespace llmc {
namespace {

constexpr int64_t kItem = size_of(DType::F32);

}  // namespace

Places with_formats(Places places, const StateFormats& formats) {
    for (const Buffer moment : {Buffer::MomentM, Buffer::MomentV}) places[moment].format = formats.moments;
    places[Buffer::Masters].exists = places[Buffer::Masters].exists && formats.masters;
    places[Buffer::Gradients].format = formats.gradients;
    return places;
}

StateFormats formats_of(const Places& places) {
    const bool could = places.format(Buffer::Parameters) != DType::F32;
    return {places.format(Buffer::MomentM), !could || places[Buffer::Masters].exists, places.format(Buffer::Gradients)};
}

std::string_view format_name(DType format) { return format == DType::U8 ? "8bit" : name_of(format); }

DType format_named(std::string_view name, const std::string& what) {
    for (const DType format : {DType::F32, DType::BF16, DType::U8}) {
        if (format_name(format) == name) return format;
    }
    fail("{}: '{}' is no format that this program knows (fp32, bf16, 8bit)", what, name);
}

std::string describe(const StateFormats& formats) {
    std::string text;
    const auto add = [&](bool is_other, std::string_view what, std::string_view format) {
        if (is_other) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", what, format);
    };
    add(formats.moments != DType::F32, "moments", format_name(formats.moments));
    add(!formats.masters, "masters", "none");
    add(formats.gradients != DType::F32, "gradients", format_name(formats.gradients));
    return text;
}

bool in_blocks(const ParameterRow& row) { return row.used_rows * row.cols >= kSmallestRowIn8Bits; }

BlocksLayout blocks_layout(const Model& model, const Partition& partition, bool in_pieces) {
    BlocksLayout layout;
    layout.small_offset.assign(model.parameters.size(), 0);
    const auto place = [&](int64_t bytes) {
        const int64_t offset = layout.bytes;
        layout.bytes += round_up(bytes, kPlanAlignment);
        return offset;
    };
    for (int b = 0; b <= partition.last_bucket(); ++b) {
        const Bucket& bucket = partition.bucket(b);
        BlocksLayout::OfBucket of_bucket;
        of_bucket.elements = in_pieces ? bucket.piece : partition.bucket_elements(b);
        for (int row = bucket.first_row; row < bucket.first_row + bucket.rows; ++row) {
            const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
            if (!partition.holds(model, row) || in_blocks(parameter)) continue;
            layout.small_offset[static_cast<size_t>(row)] = of_bucket.small_elements;
            of_bucket.small_elements += round_up(parameter.count(), kPlanAlignment / kItem);
        }
        of_bucket.codes = place(of_bucket.elements);
        of_bucket.scales = place(of_bucket.elements / kStateBlock * kItem);
        of_bucket.small = place(of_bucket.small_elements * kItem);
        layout.buckets.push_back(of_bucket);
    }
    return layout;
}

BlocksSlot blocks_slot(const Model& model, const Partition& partition, int64_t elements) {
    BlocksSlot slot;
    slot.scales = round_up(elements, kPlanAlignment);
    slot.small = slot.scales + round_up(ceil_div(elements, kStateBlock) * kItem, kPlanAlignment);
    int64_t small_elements = 0;
    for (const BlocksLayout::OfBucket& bucket : blocks_layout(model, partition, /*in_pieces=*/false).buckets) {
        small_elements = std::max(small_elements, bucket.small_elements);
    }
    slot.bytes = slot.small + round_up(small_elements * kItem, kPlanAlignment);
    return slot;
}

int64_t buffer_bytes(const Model& model, const Partition& partition, const Place& place) {
    if (!place.exists) return 0;
    const bool in_pieces = place.spread == Spread::Pieces;
    if (place.format == DType::U8 && !partition.frozen) return blocks_layout(model, partition, in_pieces).bytes;
    const int64_t elements = in_pieces ? partition.shard_elements : partition.elements;
    return round_up(elements * size_of(place.format), kPlanAlignment);
}

}  // namespace llmc
