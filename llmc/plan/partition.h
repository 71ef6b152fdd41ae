// Partition: how the flat buffers of parameters, gradients and moments are cut among ranks. The parameter table becomes
// buckets (the embedding, every layer, the rest), each padded and cut into one piece per rank: the unit of reductions
// and gathers, and of ZeRO's shards (Rajbhandari et al. 2020). No tensor's shape needs to divide. Frozen rows, which
// lie in a buffer of their own, have a partition of their own; buckets have the same numbers in both, and may be empty.
//
// Buckets are cut into at most kNormChunks chunks of whole multiples of 128 elements, and a piece is a whole number of
// chunks. Chunks do not depend on the number of ranks, so what is summed by chunk (the gradient norm) does not either.
// Where state is kept in blocks of a row's elements, rows begin, and chunks are, at whole multiples of a block, so that
// pieces are cut only between blocks.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/places.h"

#include <cstdint>
#include <vector>

namespace llmc {

constexpr int64_t kNormChunks = 4096;

/// Elements [begin, end).
struct ElementRange {
    int64_t begin = 0, end = 0;
    int64_t count() const { return end - begin; }
};

struct Bucket {
    int first_row = 0, rows = 0;  ///< Of Model::parameters, among them those of the other partition.
    int64_t used = 0;             ///< Elements without the padding at its end.
    int64_t chunk = 0;            ///< Elements of a chunk.
    int64_t piece = 0;            ///< Elements of a rank's piece, padding included.
    int64_t offset = 0;           ///< In a whole flat buffer.
    int64_t shard_offset = 0;     ///< In a buffer of one rank's pieces.
    int64_t chunks() const { return (used + chunk - 1) / chunk; }
    bool is_empty() const { return used == 0; }
};

struct Partition {
    int ranks = 1;
    bool frozen = false;               ///< Of the frozen rows, in bytes; otherwise of the trainable ones.
    std::vector<Bucket> buckets;       ///< Embedding, layer 0, ..., layer L-1, final norm (and head).
    std::vector<int64_t> row_offsets;  ///< By row of Model::parameters: where it begins in its bucket.
    std::vector<int64_t> row_items;    ///< Elements of the buffer for one of the row; of frozen ones, bytes.
    std::vector<int64_t> row_counts;   ///< Elements of a row, without padding rows; of one in NF4, bytes.
    int64_t elements = 0;              ///< Of a whole flat buffer: the sum of ranks * piece.
    int64_t shard_elements = 0;        ///< Of one rank's pieces: the sum of piece.
    /// Chunks of the bucket whose pieces have the most: the stride of sums that are kept by rank, bucket and chunk.
    int64_t chunks_per_piece = 0;

    int embedding_bucket() const { return 0; }
    int layer_bucket(int layer) const { return 1 + layer; }
    int last_bucket() const { return static_cast<int>(buckets.size()) - 1; }
    /// The layer whose parameters a bucket holds; -1 for the embedding's and the head's.
    int layer_of(int bucket) const { return bucket > 0 && bucket < last_bucket() ? bucket - 1 : -1; }
    int bucket_of_row(int row) const;
    /// Whether a row lies in these buckets, or in those of the other partition.
    bool holds(const Model& model, int row) const {
        return model.parameters[static_cast<size_t>(row)].trainable != frozen;
    }
    const Bucket& bucket(int index) const { return buckets[static_cast<size_t>(index)]; }
    int64_t bucket_elements(int index) const { return ranks * bucket(index).piece; }
    /// Where a parameter row begins inside its bucket. It must be one that the partition holds; also for owned().
    int64_t row_in_bucket(const Model& model, int row) const;
    int64_t row_count(int row) const { return row_counts[static_cast<size_t>(row)]; }
    /// The part of a row, in elements as row_count() has them, that lies in a rank's piece; may be empty.
    ElementRange owned(const Model& model, int row, int rank) const;
};

/// Of the trainable rows, which begin at multiples of so many elements (Places::row_multiple()).
Partition make_partition(const Model& model, int ranks, int64_t row_multiple = 1);
/// Of the frozen rows, as they are stored; its elements are bytes.
Partition make_frozen_partition(const Model& model, int ranks, const Places& places);

}  // namespace llmc
