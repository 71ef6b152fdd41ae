#include "llmc/plan/partition.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <algorithm>

namespace llmc {
namespace {

/// Elements: buckets, pieces and chunks start at multiples, of 256 bytes in bf16 and of 512 in fp32.
constexpr int64_t kChunkMultiple = 128;

/// The elements of the partition's rows in [first_row, end_row), which lie one after the other.
ElementRange elements_of(const Partition& partition, const Model& model, int first_row, int end_row) {
    const int rows = static_cast<int>(model.parameters.size());
    const auto offset_of = [&](int row) {
        while (row < rows && !partition.holds(model, row)) ++row;
        if (row < rows) return model.parameters[static_cast<size_t>(row)].offset;
        return partition.frozen ? model.frozen_elements : model.parameter_elements;
    };
    return {offset_of(first_row), offset_of(end_row)};
}

void add_bucket(Partition* partition, const Model& model, int first_row, int end_row, int64_t row_multiple) {
    Bucket bucket;
    bucket.first_row = first_row;
    bucket.rows = end_row - first_row;
    for (int row = first_row; row < end_row; ++row) {
        if (!partition->holds(model, row)) continue;
        partition->row_offsets[static_cast<size_t>(row)] = bucket.used;
        bucket.used += round_up(elements_of(*partition, model, row, row + 1).count(), row_multiple);
    }
    const int64_t multiple = std::max(kChunkMultiple, row_multiple);
    bucket.chunk = std::max(multiple, round_up(ceil_div(bucket.used, kNormChunks), multiple));
    bucket.piece = bucket.chunk * ceil_div(bucket.chunks(), partition->ranks);
    bucket.offset = partition->elements;
    bucket.shard_offset = partition->shard_elements;
    partition->elements += partition->ranks * bucket.piece;
    partition->shard_elements += bucket.piece;
    partition->chunks_per_piece = std::max(partition->chunks_per_piece, bucket.piece / bucket.chunk);
    partition->buckets.push_back(bucket);
}

}  // namespace

int Partition::bucket_of_row(int row) const {
    const auto after = std::upper_bound(buckets.begin(), buckets.end(), row,
                                        [](int r, const Bucket& candidate) { return r < candidate.first_row; });
    CHECK(row >= 0 && after != buckets.begin(), row);
    return static_cast<int>(after - buckets.begin()) - 1;
}

int64_t Partition::row_in_bucket(const Model& model, int row) const {
    CHECK(holds(model, row), row);
    return row_offsets[static_cast<size_t>(row)];
}

ElementRange Partition::owned(const Model& model, int row, int rank) const {
    const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
    const int64_t piece = bucket(bucket_of_row(row)).piece;
    const int64_t used = parameter.used_rows * parameter.cols;
    const int64_t first = rank * piece - row_in_bucket(model, row);  // Of the rank's piece, in elements of the row.
    return {std::clamp<int64_t>(first, 0, used), std::clamp<int64_t>(first + piece, 0, used)};
}

Partition make_partition(const Model& model, int ranks, bool frozen, int64_t row_multiple) {
    CHECK(ranks >= 1 && row_multiple >= 1, ranks, row_multiple);
    Partition partition;
    partition.ranks = ranks;
    partition.frozen = frozen;
    partition.row_offsets.assign(model.parameters.size(), 0);
    const int rows = static_cast<int>(model.parameters.size());
    const int end_of_layers = model.parameter_index(static_cast<int>(model.config.L), 0);
    add_bucket(&partition, model, 0, model.first_layer_parameter, row_multiple);
    for (int layer = 0; layer < model.config.L; ++layer) {
        add_bucket(&partition, model, model.parameter_index(layer, 0), model.parameter_index(layer + 1, 0),
                   row_multiple);
    }
    add_bucket(&partition, model, end_of_layers, rows, row_multiple);
    return partition;
}

}  // namespace llmc
