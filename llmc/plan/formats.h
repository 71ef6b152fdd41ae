// Formats of what an update keeps beside the parameters: --moments, --masters and --gradients as fillings of the table
// of places, and how moments in 8-bit blocks lie in memory.
//
//   moments    fp32; bf16, rounded stochastically; 8bit: blocks of kStateBlock elements of a row (base/dynamic_map.h),
//              but rows of less than kSmallestRowIn8Bits elements in fp32
//   masters    fp32; none: bf16 parameters are the weights, rounded stochastically. fp32 parameters have none anyway
//   gradients  fp32; bf16: a micro-batch's are fp32 in a tensor of the plan and are added to those that are kept,
//              rounded stochastically
#pragma once

#include "llmc/plan/partition.h"
#include "llmc/plan/places.h"

#include <string>
#include <string_view>
#include <vector>

namespace llmc {

struct StateFormats {
    DType moments = DType::F32;  ///< U8: 8-bit blocks.
    bool masters = true;         ///< Where parameters are rounded.
    DType gradients = DType::F32;
    bool operator==(const StateFormats&) const = default;
};

/// The table with these formats, which is then to be asked for its fault().
Places with_formats(Places places, const StateFormats& formats);
StateFormats formats_of(const Places& places);

/// As options, checkpoints and people write them: "fp32", "bf16", "8bit".
std::string_view format_name(DType format);
/// The format of that name; fails on others, naming `what`.
DType format_named(std::string_view name, const std::string& what);

/// "moments 8bit, masters none, gradients bf16"; of what is not fp32, "" if everything is.
std::string describe(const StateFormats& formats);

/// Whether a row is large enough for 8-bit blocks.
bool in_blocks(const ParameterRow& row);

/// Where a buffer of moments in 8-bit blocks has what, in bytes: bucket after bucket, and of a bucket its codes (one
/// byte for every element of the bucket, or of a rank's piece of it), the largest magnitudes of the blocks (fp32), and
/// its small rows (fp32), of which every rank has room for all.
struct BlocksLayout {
    struct OfBucket {
        int64_t codes = 0, scales = 0, small = 0;
        int64_t elements = 0, small_elements = 0;
    };
    std::vector<OfBucket> buckets;
    std::vector<int64_t> small_offset;  ///< By parameter row: where a small one begins in its bucket's, in elements.
    int64_t bytes = 0;
};
BlocksLayout blocks_layout(const Model& model, const Partition& partition, bool in_pieces);

/// The same of some elements of a bucket that have come to a slot (update.h), codes first: where scales and small rows
/// begin, with room for those of any bucket.
struct BlocksSlot {
    int64_t scales = 0, small = 0, bytes = 0;
};
BlocksSlot blocks_slot(const Model& model, const Partition& partition, int64_t elements);

/// Bytes of a flat buffer of the partition in this place, and 0 of one that does not exist.
int64_t buffer_bytes(const Model& model, const Partition& partition, const Place& place);

}  // namespace llmc
