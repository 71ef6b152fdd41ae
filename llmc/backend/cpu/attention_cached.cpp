// Attention of new tokens over cached keys and values. A row is one (token, query head). A task is a block of rows that
// share a key/value head; it walks the cache in pieces with an online softmax, so that each piece is read from memory
// once per task: with one new token this is bound by reading the cache once.
#include "llmc/backend/cpu/attention_simd.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/documents.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/backend/cpu/vector_math.h"
#include "llmc/base/check.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace llmc::cpu {

namespace {

constexpr int64_t kRows = 16;          ///< Rows of a task.
constexpr int64_t kPositions = 64;     ///< Cached positions of a piece.
constexpr int64_t kMaxHeadSize = 256;  ///< The rows of a task, on the stack, then take 33 KiB.

/// One row of a task and the state of its online softmax.
struct Row {
    alignas(64) float query[kMaxHeadSize];  ///< Scaled.
    alignas(64) float out[kMaxHeadSize];    ///< Not yet divided by `sum`.
    float max, sum;
    int64_t first, positions;  ///< It sees [first, positions).
};

/// scores[0 .. keys) = the query times `keys` rows.
template <int keys, typename T>
void score_keys(float* scores, const float* query, const T* key, int64_t stride, int64_t HD) {
    Vec sum[keys] = {};
    int64_t d = 0;
    for (; d + kLanes <= HD; d += kLanes) {
        const Vec q = load(query + d);
#pragma GCC unroll 4
        for (int i = 0; i < keys; ++i) sum[i] += q * load_elements(key + i * stride + d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < keys; ++i) {
        scores[i] = sum_of(sum[i]);
        for (int64_t rest = d; rest < HD; ++rest) scores[i] += query[rest] * to_float(key[i * stride + rest]);
    }
}

/// out += the sum of `values` rows, weighted by probabilities.
template <int values, typename T>
void add_values(float* out, const float* probabilities, const T* value, int64_t stride, int64_t HD) {
    int64_t d = 0;
    for (; d + kLanes <= HD; d += kLanes) {
        Vec sum = load(out + d);
#pragma GCC unroll 4
        for (int i = 0; i < values; ++i) sum += probabilities[i] * load_elements(value + i * stride + d);
        store(out + d, sum);
    }
    for (; d < HD; ++d)
        for (int i = 0; i < values; ++i) out[d] += probabilities[i] * to_float(value[i * stride + d]);
}

/// Adds `count` cached positions, whose first key and value are given, to a row.
template <typename T>
void attend_piece(Row& row, const T* keys, const T* values, int64_t stride, int64_t count, int64_t HD) {
    alignas(64) float scores[kPositions];
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) score_keys<4>(scores + i, row.query, keys + i * stride, stride, HD);
    for (; i < count; ++i) score_keys<1>(scores + i, row.query, keys + i * stride, stride, HD);

    const float max = std::max(row.max, *std::max_element(scores, scores + count));
    const float correction = fast_exp(row.max - max);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; ++j) {
        scores[j] = fast_exp(scores[j] - max);
        sum += scores[j];
    }
    row.max = max;
    row.sum = row.sum * correction + sum;

    float* out = row.out;
#pragma omp simd
    for (int64_t d = 0; d < HD; ++d) out[d] *= correction;
    for (i = 0; i + 4 <= count; i += 4) add_values<4>(out, scores + i, values + i * stride, stride, HD);
    for (; i < count; ++i) add_values<1>(out, scores + i, values + i * stride, stride, HD);
}

/// Rows [first, first + count) of one key/value head; row r is token r / group and query head r % group of the group.
template <typename T>
void attend_rows(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                 int64_t first_position, int64_t kv_head, int64_t first, int64_t count) {
    const int64_t HD = shape.HD, group = shape.NH / shape.NKV, stride = shape.NKV * HD;
    const float scale = shape.score_scale();
    const auto head = [&](int64_t r) { return kv_head * group + r % group; };
    Row rows[kRows];
    for (int64_t i = 0; i < count; ++i) {
        const int64_t token = (first + i) / group;
        const T* query = qkv.as<T>() + token * shape.qkv_columns() + head(first + i) * HD;
        for (int64_t d = 0; d < HD; ++d) {
            rows[i].query[d] = scale * to_float(query[d]);
            rows[i].out[d] = 0;
        }
        rows[i].max = -std::numeric_limits<float>::infinity();
        rows[i].sum = 0;
        rows[i].first = shape.first_seen(first_position + token);
        rows[i].positions = first_position + token + 1;
    }
    const T* keys = k_cache.as<T>() + kv_head * HD;
    const T* values = v_cache.as<T>() + kv_head * HD;
    const int64_t first_piece = rows[0].first / kPositions * kPositions;
    for (int64_t piece = first_piece; piece < rows[count - 1].positions; piece += kPositions) {
        for (int64_t i = 0; i < count; ++i) {
            const int64_t begin = std::max(piece, rows[i].first);
            const int64_t seen = std::min(piece + kPositions, rows[i].positions) - begin;
            if (seen > 0) attend_piece(rows[i], keys + begin * stride, values + begin * stride, stride, seen, HD);
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        T* to = out.as<T>() + (first + i) / group * shape.NH * HD + head(first + i) * HD;
        const float inverse_sum = 1.0f / rows[i].sum;
        for (int64_t d = 0; d < HD; ++d) to[d] = from_float<T>(rows[i].out[d] * inverse_sum);
    }
}

template <typename T>
void run(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape, int64_t first_position) {
    const int64_t columns = shape.NKV * shape.HD;
    for (int64_t token = 0; token < shape.T; ++token) {
        const T* keys = qkv.as<T>() + token * shape.qkv_columns() + shape.NH * shape.HD;
        std::copy_n(keys, columns, k_cache.as<T>() + (first_position + token) * columns);
        std::copy_n(keys + columns, columns, v_cache.as<T>() + (first_position + token) * columns);
    }
    const int64_t rows = shape.T * (shape.NH / shape.NKV), row_blocks = ceil_div(rows, kRows);
    const int64_t bytes = 2 * (first_position + shape.T) * columns * size_of(qkv.dtype) * row_blocks;
    // The longest tasks, the last rows, come first.
#pragma omp parallel for schedule(dynamic, 1) if (bytes >= kParallelBytes)
    for (int64_t task = 0; task < row_blocks * shape.NKV; ++task) {
        const int64_t first = (row_blocks - 1 - task / shape.NKV) * kRows;
        attend_rows<T>(out, k_cache, v_cache, qkv, shape, first_position, task % shape.NKV, first,
                       std::min(kRows, rows - first));
    }
}

}  // namespace

void CpuBackend::attention_cached(Tensor out, Tensor k_cache, Tensor v_cache, Tensor qkv, const AttentionShape& shape,
                                  FirstPosition first, Tensor /*workspace*/) {
    const int64_t first_position = value_of(first);
    CHECK(shape.B == 1 && shape.HD <= kMaxHeadSize && shape.NH % shape.NKV == 0, shape.B, shape.HD, shape.NH,
          shape.NKV);
    CHECK(qkv.shape[0] == shape.T && qkv.shape[1] == shape.qkv_columns(), qkv.shape[0], qkv.shape[1], shape.T);
    CHECK(out.shape[0] == shape.T && out.shape[1] == shape.NH * shape.HD, out.shape[0], out.shape[1]);
    CHECK(first_position >= 0 && first_position + shape.T <= k_cache.shape[0], first_position, k_cache.shape[0]);
    CHECK(k_cache.shape == v_cache.shape && k_cache.shape[1] == shape.NKV * shape.HD, k_cache.shape[1]);
    if (qkv.dtype == DType::F32)
        run<float>(out, k_cache, v_cache, qkv, shape, first_position);
    else
        run<bf16>(out, k_cache, v_cache, qkv, shape, first_position);
}

}  // namespace llmc::cpu
