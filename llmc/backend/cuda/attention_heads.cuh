// How the attention kernels see their operands: sizes, and the rows of one head inside (N, columns) tensors.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cuda/device.cuh"
#include "llmc/backend/cuda/elements.cuh"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

namespace llmc::cuda {

/// The bf16 kernels compute exponentials in base 2; a saved log-sum-exp is natural.
constexpr float kLog2e = 1.4426950408889634f;

/// What hides keys from a query beside their coming after it. What is not needed costs registers, of which heads of 128
/// leave none.
enum class Sight {
    Whole,      ///< Nothing.
    Window,     ///< They are out of its window.
    Documents,  ///< They are of another document, or out of its window.
};

/// Rows of one head in one sequence.
template <typename T>
struct HeadRows {
    T* data;
    int stride;
    __device__ __forceinline__ T* row(int position) const { return data + int64_t{position} * stride; }
};

struct AttentionSizes {
    int T, NH, NKV, HD;
    int out_columns, qkv_columns;
    int window;                ///< Keys a query sees, itself among them; kNoWindow: all before it.
    float scale;               ///< Of the scores.
    const int32_t* documents;  ///< (B, T): where the document of a slot begins; or null.
    bool aligned;              ///< Every head's rows begin at multiples of 16 bytes.

    static constexpr int kNoWindow = INT32_MAX / 2;
    static constexpr int kMaxT = INT32_MAX / 4;  ///< So that a position and a window add up to an int.
    /// The first key that a query sees, rounded down to a tile.
    __device__ __forceinline__ int first_key_tile(int query, int tile) const {
        return query < window ? 0 : (query - window + 1) / tile * tile;
    }
    /// Behind the last query that sees a key.
    __device__ __forceinline__ int end_seeing(int key) const { return min(T, key + window); }

    // With documents; slots beyond the sequence count as its last.
    __device__ __forceinline__ int document_start(int b, int slot) const {
        return documents[int64_t{b} * T + min(slot, T - 1)];
    }
    /// The first key that a query sees.
    __device__ __forceinline__ int first_seen(int b, int query) const {
        return max(document_start(b, query), query + 1 - window);
    }
    /// Behind the last query that sees a key: documents begin in the order of their slots.
    __device__ __forceinline__ int end_seeing_in_document(int b, int key) const {
        int low = min(key + 1, T), high = end_seeing(key);
        while (low < high) {
            const int middle = (low + high) / 2;
            if (document_start(b, middle) > key)
                high = middle;
            else
                low = middle + 1;
        }
        return low;
    }

    __device__ __forceinline__ int kv_head(int h) const { return h / (NH / NKV); }

    /// The backward's statistics are (B, NH, T rounded up to a multiple of kRowPadding) rows; see
    /// attention_backward.cu.
    static constexpr int kRowPadding = 64;
    __host__ __device__ int padded_T() const { return (T + kRowPadding - 1) / kRowPadding * kRowPadding; }
    __device__ __forceinline__ int64_t row_index(int b, int h) const { return (int64_t{b} * NH + h) * padded_T(); }

    /// Of sequence b: in (N, NH*HD) tensors, and the three parts of (N, QKV) ones.
    template <typename Element>
    __device__ __forceinline__ HeadRows<Element> out(Element* tensor, int b, int h) const {
        return {tensor + int64_t{b} * T * out_columns + h * HD, out_columns};
    }
    template <typename Element>
    __device__ __forceinline__ HeadRows<Element> query(Element* qkv, int b, int h) const {
        return {qkv + int64_t{b} * T * qkv_columns + h * HD, qkv_columns};
    }
    template <typename Element>
    __device__ __forceinline__ HeadRows<Element> key(Element* qkv, int b, int kv_head) const {
        return query(qkv, b, NH + kv_head);
    }
    template <typename Element>
    __device__ __forceinline__ HeadRows<Element> value(Element* qkv, int b, int kv_head) const {
        const HeadRows<Element> keys = key(qkv, b, kv_head);
        return {keys.data + NKV * HD, keys.stride};
    }
};

/// What the backward's kernels write in one go: the gradients of some key/value heads, and of the query heads that read
/// them.
template <typename T>
struct HeadGradients {
    T* queries;        ///< (N, qkv_columns), of all heads.
    T *keys, *values;  ///< Of head `first`; those of the next heads lie behind it.
    int columns;       ///< From a row of these to the next.
    int first, count;  ///< Key/value heads.
    int first_query;   ///< Of the query heads; a field, since kernels have no register for it.

    __device__ __forceinline__ HeadRows<T> key(const AttentionSizes& sizes, int b, int kv_head) const {
        return {keys + int64_t{b} * sizes.T * columns + (kv_head - first) * sizes.HD, columns};
    }
    __device__ __forceinline__ HeadRows<T> value(const AttentionSizes& sizes, int b, int kv_head) const {
        return {values + int64_t{b} * sizes.T * columns + (kv_head - first) * sizes.HD, columns};
    }
    __device__ __forceinline__ HeadRows<T> query(const AttentionSizes& sizes, int b, int h) const {
        return sizes.query(queries, b, h);
    }
};

/// Grids have a dimension for sequences, which has fewer blocks than there may be sequences. Calls
/// run(shape of a part, its first row, its rows) for parts of them that fit.
template <typename Run>
void for_each_part(const AttentionShape& shape, const Run& run) {
    for (int64_t first = 0; first < shape.B; first += kMaxGridRows) {
        AttentionShape part = shape;
        part.B = std::min(kMaxGridRows, shape.B - first);
        const int64_t row = first * shape.T, rows = part.B * shape.T;
        if (shape.documents) part.documents = Tensor(shape.documents.dtype, shape.documents.as<int32_t>() + row, rows);
        run(part, row, rows);
    }
}

/// Checks the operands' shapes and what the kernels rely on.
inline AttentionSizes attention_sizes(const AttentionShape& shape, std::initializer_list<Tensor> qkvs,
                                      std::initializer_list<Tensor> outs, Tensor lse) {
    constexpr int64_t kMaxHeadSize = 128;
    CHECK(shape.HD >= 1 && shape.HD <= kMaxHeadSize, shape.HD);
    CHECK(shape.NKV >= 1 && shape.NH % shape.NKV == 0 && shape.NH <= kMaxGridRows, shape.NH, shape.NKV);
    CHECK(shape.T <= AttentionSizes::kMaxT && shape.B <= kMaxGridRows, shape.T, shape.B);
    CHECK(shape.qkv_columns() <= INT32_MAX, shape.qkv_columns());
    const int64_t N = shape.B * shape.T;
    bool aligned = true;
    const auto check = [&](Tensor operand, int64_t columns) {
        CHECK(operand.shape[0] == N && operand.shape[1] == columns, operand.shape[0], operand.shape[1], N, columns);
        aligned = aligned && shape.HD * size_of(operand.dtype) % 16 == 0 && all_aligned({operand.data});
    };
    for (const Tensor& qkv : qkvs) check(qkv, shape.qkv_columns());
    for (const Tensor& out : outs) check(out, shape.NH * shape.HD);
    CHECK(lse.shape[0] == N && lse.shape[1] == shape.NH, lse.shape[0], lse.shape[1]);
    AttentionSizes sizes;
    sizes.T = static_cast<int>(shape.T);
    sizes.NH = static_cast<int>(shape.NH);
    sizes.NKV = static_cast<int>(shape.NKV);
    sizes.HD = static_cast<int>(shape.HD);
    sizes.out_columns = static_cast<int>(shape.NH * shape.HD);
    sizes.qkv_columns = static_cast<int>(shape.qkv_columns());
    sizes.window = shape.window == 0 || shape.window >= shape.T ? sizes.kNoWindow : static_cast<int>(shape.window);
    sizes.scale = shape.score_scale();
    sizes.aligned = aligned;
    CHECK(!shape.documents || shape.documents.count() == N, shape.documents.count(), N);
    sizes.documents = elements_of<const int32_t>(shape.documents);
    return sizes;
}

inline Sight sight_of(const AttentionSizes& sizes) {
    if (sizes.documents != nullptr) return Sight::Documents;
    return sizes.window != AttentionSizes::kNoWindow ? Sight::Window : Sight::Whole;
}

/// Calls work(std::integral_constant<int, kHD>) with the smallest of the head sizes that holds HD.
template <int kSmallest, typename Work>
void with_head_size(int64_t HD, Work work) {
    if (kSmallest <= 32 && HD <= 32)
        work(std::integral_constant < int, kSmallest <= 32 ? 32 : 64 > ());
    else if (HD <= 64)
        work(std::integral_constant<int, 64>());
    else
        work(std::integral_constant<int, 128>());
}

}  // namespace llmc::cuda
