// The gradient norm as many ranks make it: each sums the squares of its own pieces of all buckets, the sums are
// gathered, and of all of them every rank makes the norm. Here one backend does the work of all ranks.
#pragma once

#include "tests/backend/backend_testing.h"

#include <algorithm>
#include <vector>

namespace llmc {

/// Gradients of one bucket, without what pads it for the ranks.
struct NormBucket {
    int64_t chunk = 0;  ///< Elements of a chunk.
    Values gradients;   ///< A whole number of chunks.
    int64_t chunks() const { return static_cast<int64_t>(gradients.size()) / chunk; }
};

class NormOverRanks {
  public:
    NormOverRanks(int64_t ranks, const std::vector<NormBucket>& buckets)
        : layout_(layout_of(ranks, buckets)),
          sums_(DType::F64, layout_.ranks * layout_.buckets, layout_.stride),
          norm_(DType::F64, 1),
          pieces_(pieces_of(ranks, buckets)) {
        for (const NormBucket& bucket : buckets) {
            Values padded = bucket.gradients;
            padded.resize(static_cast<size_t>(ranks * ceil_div(bucket.chunks(), ranks) * bucket.chunk), 0.0);
            gradients_.emplace_back(DType::F32, static_cast<int64_t>(padded.size()), 1, padded);
        }
    }

    /// `on(buffer)` is the tensor to use for a buffer.
    void run(Backend& backend, auto on) const {
        for (int64_t rank = 0; rank < layout_.ranks; ++rank)
            for (int64_t bucket = 0; bucket < layout_.buckets; ++bucket) {
                const TestBuffer& gradients = gradients_[static_cast<size_t>(bucket)];
                const int64_t piece = gradients.count() / layout_.ranks;
                const int64_t chunks = pieces_.tensor().as<int32_t>()[bucket];
                const Tensor row = on(sums_).row_range(rank * layout_.buckets + bucket, 1);
                backend.square_sums(Tensor(DType::F64, row.data, chunks), on(gradients).row_range(rank * piece, piece),
                                    piece / chunks);
            }
        backend.global_norm(on(norm_), on(sums_), on(pieces_), layout_);
    }
    double norm() const { return norm_.values()[0]; }
    Values sums() const { return sums_.values(); }
    bool intact() const {
        return sums_.intact() && norm_.intact() &&
               std::all_of(gradients_.begin(), gradients_.end(), [](const TestBuffer& b) { return b.intact(); });
    }

  private:
    static std::vector<int32_t> pieces_of(int64_t ranks, const std::vector<NormBucket>& buckets) {
        std::vector<int32_t> pieces;
        for (const NormBucket& bucket : buckets)
            pieces.push_back(static_cast<int32_t>(ceil_div(bucket.chunks(), ranks)));
        return pieces;
    }
    static NormLayout layout_of(int64_t ranks, const std::vector<NormBucket>& buckets) {
        const std::vector<int32_t> pieces = pieces_of(ranks, buckets);
        return {ranks, static_cast<int64_t>(buckets.size()), *std::max_element(pieces.begin(), pieces.end())};
    }

    NormLayout layout_;
    TestBuffer sums_, norm_, pieces_;  ///< Sums beyond a bucket's stay NaN: the norm may not look at them.
    std::vector<TestBuffer> gradients_;
};

/// Buckets with chunks of all lengths, and numbers of chunks that no number of ranks divides.
inline std::vector<NormBucket> norm_buckets() {
    std::vector<NormBucket> buckets;
    const std::vector<std::pair<int64_t, int64_t>> sizes = {{128, 1}, {128, 1031}, {4096, 13}, {4224, 7}, {131072, 2}};
    for (const auto& [chunk, chunks] : sizes)
        buckets.push_back(
            {chunk, random_buffer(DType::F32, chunk * chunks, 1, 0.01, static_cast<uint32_t>(chunks)).values()});
    return buckets;
}

inline double plain_norm(const std::vector<NormBucket>& buckets) {
    double sum = 0;
    for (const NormBucket& bucket : buckets) sum += dot(bucket.gradients, bucket.gradients);
    return std::sqrt(sum);
}

/// The norm of one bucket, on one rank.
void norm_of(Backend& backend, auto on, const TestBuffer& norm, const TestBuffer& gradients, const TestBuffer& sums,
             const TestBuffer& pieces) {
    backend.square_sums(on(sums), on(gradients), gradients.count() / sums.count());
    backend.global_norm(on(norm), on(sums), on(pieces), {1, 1, sums.count()});
}

constexpr int64_t kChunkLengths[] = {128, 256, 1152, 4096, 4224, 70016, 300032};

}  // namespace llmc
