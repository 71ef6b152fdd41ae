#include "llmc/plan/partition.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"
#include "llmc/plan/stored_row.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace llmc {
namespace {

/// Elements: buckets, pieces and chunks start at multiples, of 256 bytes in bf16 and of 512 in fp32 and of frozen rows.
constexpr int64_t kChunkMultiple = 128;
constexpr int64_t kFrozenChunkMultiple = 512;

/// The trainable elements of rows [first_row, end_row), which lie one after the other.
int64_t trainable_elements(const Model& model, int first_row, int end_row) {
    const int rows = static_cast<int>(model.parameters.size());
    const auto offset_of = [&](int row) {
        while (row < rows && !model.trains(row)) ++row;
        return row < rows ? model.parameters[static_cast<size_t>(row)].offset : model.parameter_elements;
    };
    return offset_of(end_row) - offset_of(first_row);
}

/// Fills a partition bucket by bucket; `elements` gives those of a row, gaps behind it included.
class Buckets {
  public:
    Buckets(const Model& model, Partition* partition, int64_t multiple, std::function<int64_t(int row)> elements)
        : model_(model), partition_(*partition), multiple_(multiple), elements_(std::move(elements)) {
        partition_.row_offsets.assign(model.parameters.size(), 0);
        partition_.row_items.assign(model.parameters.size(), 1);
        for (const ParameterRow& row : model.parameters) partition_.row_counts.push_back(row.used_rows * row.cols);
    }

    void add_all() {
        const int L = static_cast<int>(model_.config.L);
        add(0, model_.first_layer_parameter);
        for (int layer = 0; layer < L; ++layer) {
            add(model_.parameter_index(layer, 0), model_.parameter_index(layer + 1, 0));
        }
        add(model_.parameter_index(L, 0), static_cast<int>(model_.parameters.size()));
    }

  private:
    void add(int first_row, int end_row) {
        Bucket bucket;
        bucket.first_row = first_row;
        bucket.rows = end_row - first_row;
        for (int row = first_row; row < end_row; ++row) {
            if (!partition_.holds(model_, row)) continue;
            partition_.row_offsets[static_cast<size_t>(row)] = bucket.used;
            bucket.used += elements_(row);
        }
        bucket.chunk = std::max(multiple_, round_up(ceil_div(bucket.used, kNormChunks), multiple_));
        bucket.piece = bucket.chunk * ceil_div(bucket.chunks(), partition_.ranks);
        bucket.offset = partition_.elements;
        bucket.shard_offset = partition_.shard_elements;
        partition_.elements += partition_.ranks * bucket.piece;
        partition_.shard_elements += bucket.piece;
        partition_.chunks_per_piece = std::max(partition_.chunks_per_piece, bucket.piece / bucket.chunk);
        partition_.buckets.push_back(bucket);
    }

    const Model& model_;
    Partition& partition_;
    int64_t multiple_;
    std::function<int64_t(int row)> elements_;
};

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
    const int64_t piece = bucket(bucket_of_row(row)).piece, count = row_count(row);
    const int64_t item = row_items[static_cast<size_t>(row)];  // Which a piece's begin is a multiple of.
    const int64_t first = rank * piece - row_in_bucket(model, row);
    return {std::clamp<int64_t>(first / item, 0, count), std::clamp<int64_t>((first + piece) / item, 0, count)};
}

Partition make_partition(const Model& model, int ranks, int64_t row_multiple) {
    CHECK(ranks >= 1 && row_multiple >= 1, ranks, row_multiple);
    Partition partition;
    partition.ranks = ranks;
    Buckets(model, &partition, std::max(kChunkMultiple, row_multiple), [&](int row) {
        return round_up(trainable_elements(model, row, row + 1), row_multiple);
    }).add_all();
    return partition;
}

Partition make_frozen_partition(const Model& model, int ranks, const Places& places) {
    CHECK(ranks >= 1, ranks);
    Partition partition;
    partition.ranks = ranks;
    partition.frozen = true;
    Buckets buckets(model, &partition, kFrozenChunkMultiple, [&](int row) {
        const ParameterRow& parameter = model.parameters[static_cast<size_t>(row)];
        return round_up(stored_bytes(parameter, stored_format(model, places, row)), kStoredAlignment);
    });
    for (int row = 0; row < static_cast<int>(model.parameters.size()); ++row) {
        if (model.trains(row)) continue;
        const WeightFormat format = stored_format(model, places, row);
        partition.row_items[static_cast<size_t>(row)] = size_of(dtype_of(format));
        if (!is_nf4(format)) continue;
        partition.row_counts[static_cast<size_t>(row)] =
            stored_bytes(model.parameters[static_cast<size_t>(row)], format);
    }
    buckets.add_all();
    return partition;
}

}  // namespace llmc
