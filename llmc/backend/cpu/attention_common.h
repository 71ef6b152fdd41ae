// What the two passes of attention share: tile sizes, views of heads, and how a thread's workspace is divided.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cpu/attention_tile.h"
#include "llmc/backend/cpu/documents.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace llmc::cpu {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr int64_t kKeys = 192;  ///< Keys of a tile, in both passes.
static_assert(kKeys % kPanel == 0 && kKeys % kRowPadding == 0);

/// Hands out pieces of a thread's workspace. Without memory, it only counts.
class Carver {
  public:
    explicit Carver(char* memory) : memory_(memory) {}
    /// `count` 32-bit numbers.
    template <typename Number>
    Number* take(int64_t count) {
        static_assert(sizeof(Number) == 4);
        char* piece = memory_ ? memory_ + bytes_ : nullptr;
        bytes_ += round_up(count * 4, 64);
        return reinterpret_cast<Number*>(piece);
    }
    int64_t bytes() const { return bytes_; }

  private:
    char* memory_;
    int64_t bytes_ = 0;
};

/// Where the rows of one head begin in (N, NH*HD) and (N, QKV) tensors of type T.
template <typename T>
struct HeadView {
    T* data;
    int64_t stride;
    T* row(int64_t position) const { return data + position * stride; }
};

template <typename T>
HeadView<T> head_of(Tensor tensor, int64_t first_row, int64_t column) {
    return {tensor.as<T>() + first_row * tensor.shape[1] + column, tensor.shape[1]};
}

/// The columns of a (N, QKV) tensor at which query head h, and its key and value heads, begin.
inline int64_t query_column(const AttentionShape& s, int64_t h) { return h * s.HD; }
inline int64_t key_column(const AttentionShape& s, int64_t kv_head) { return (s.NH + kv_head) * s.HD; }
inline int64_t value_column(const AttentionShape& s, int64_t kv_head) { return (s.NH + s.NKV + kv_head) * s.HD; }

/// A tile's work: of a head in a document, from the position `first` on.
struct AttentionTask {
    DocumentRows document;
    int64_t head, first;
};

/// The sizes of one document.
inline AttentionShape shape_of(const AttentionShape& shape, const DocumentRows& document) {
    AttentionShape alone = shape;
    alone.B = 1, alone.T = document.count;
    return alone;
}

template <typename T>
void store_row(T* to, const float* from, int64_t HD, float scale) {
#pragma omp simd
    for (int64_t d = 0; d < HD; ++d) to[d] = from_float<T>(scale * from[d]);
}

/// The first key tile that the query at `position` sees.
inline int64_t first_key_tile(const AttentionShape& shape, int64_t position) {
    return shape.first_seen(position) / kKeys * kKeys;
}

/// Overwrites the parts of a row of scores that its query does not see, but that products read: columns from `seen` on,
/// and those before `hidden`.
inline void mask_row(float* row, int64_t hidden, int64_t seen, int64_t written, float value) {
    for (int64_t column = 0; column < std::min(hidden, written); ++column) row[column] = value;
    for (int64_t column = seen; column < written; ++column) row[column] = value;
}

inline void check_shape(const AttentionShape& shape, Tensor qkv, Tensor out, Tensor lse) {
    const int64_t N = shape.B * shape.T;
    CHECK(shape.HD >= 1 && shape.NKV >= 1 && shape.NH % shape.NKV == 0, shape.HD, shape.NH, shape.NKV);
    CHECK(qkv.shape[0] == N && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1], N);
    CHECK(out.shape[0] == N && out.shape[1] == shape.NH * shape.HD && out.dtype == qkv.dtype, out.shape[0], N);
    CHECK(lse.shape[0] == N && lse.shape[1] == shape.NH, lse.shape[0], lse.shape[1], N);
}

}  // namespace llmc::cpu
