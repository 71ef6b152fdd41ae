// Causal attention in tiles with an online softmax (Dao et al. 2022, Dao 2023): scores exist only for one tile at a
// time. A task is a block of queries of one head. It packs the tiles itself and multiplies them by the register-blocked
// products of attention_tile.h; a library's GEMM on the same tiles is slower (dev/kernels/attention_cpu.cpp has the
// numbers). attention_backward.cpp is the other pass.
//
// In bf16, probabilities are rounded to bf16 before they are multiplied by the values, where the processor has bf16 dot
// products; sums and everything else are fp32.
#include "llmc/backend/cpu/attention_common.h"
#include "llmc/backend/cpu/attention_tile.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/vector_math.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace llmc::cpu {

namespace {

constexpr int64_t kForwardQueries = 384;  ///< Queries that share one packing of a key tile.
constexpr int64_t kScoreRows = 48;        ///< Of these, queries whose scores are held at a time.
static_assert(kForwardQueries % kScoreRows == 0 && kKeys % kScoreRows == 0 && kScoreRows % kRowPadding == 0);

template <typename Product>
struct ForwardBuffers {
    Unit* rows;          ///< A key or value tile, before it is rearranged.
    Unit* query_rows;    ///< kForwardQueries
    Unit* key_columns;   ///< kKeys
    Unit* value_panels;  ///< kKeys
    float* scores;       ///< (kScoreRows, kKeys), then the probabilities.
    float* out;          ///< (kForwardQueries, HD padded), the unnormalised sums.
    float* row_max;      ///< (kForwardQueries)
    float* row_sum;      ///< (kForwardQueries, kLanes), still to be added up.

    ForwardBuffers(Carver& carver, int64_t HD) {
        const int64_t units = row_units<Product>(HD), columns = PanelCut(HD).columns;
        rows = carver.take<Unit>(kKeys * units);
        query_rows = carver.take<Unit>(kForwardQueries * units);
        key_columns = carver.take<Unit>(kKeys * units);
        value_panels = carver.take<Unit>(kKeys / Product::kPerUnit * columns);
        scores = carver.take<float>(kScoreRows * kKeys);
        out = carver.take<float>(kForwardQueries * columns);
        row_max = carver.take<float>(kForwardQueries);
        row_sum = carver.take<float>(kForwardQueries * kLanes);
    }
};

/// Raises a row's maximum to that of new scores and scales what was summed before to it. `out` has `out_columns`.
void raise_maximum(const float* scores, int64_t columns, float* row_max, float* row_sum, float* out,
                   int64_t out_columns) {
    Vec largest = broadcast(*row_max);
    for (int64_t c = 0; c < columns; c += kLanes) largest = maximum(load(scores + c), largest);
    const float new_max = largest_of(largest);
    if (new_max == *row_max) return;
    const float correction = fast_exp(*row_max - new_max);
    *row_max = new_max;
    store(row_sum, load(row_sum) * correction);
    for (int64_t d = 0; d < out_columns; d += kLanes) store(out + d, load(out + d) * correction);
}

/// Turns one row of scores into unnormalised probabilities of type Product::Element, in place.
template <typename Product>
void exponentiate(float* scores, int64_t columns, float row_max, float* row_sum) {
    auto* probabilities = reinterpret_cast<typename Product::Element*>(scores);
    Vec sum = load(row_sum);
    for (int64_t c = 0; c < columns; c += kLanes) {
        const Vec p = exp_of_nonpositive(load(scores + c) - row_max);
        sum += p;
        store_elements(probabilities + c, p);
    }
    store(row_sum, sum);
}

/// What scores are relative to: their maximum, if the row has seen any.
inline float reference_of(float row_max) { return row_max == -kInfinity ? 0 : row_max; }

/// Adds one key tile to kScoreRows queries, from row `first` of the block. `diagonal` as in attention_tile.h.
template <typename Product>
void forward_tile(const ForwardBuffers<Product>& buffers, int64_t first, int64_t rows, int64_t keys, int64_t diagonal,
                  const AttentionShape& shape) {
    const int64_t units = row_units<Product>(shape.HD), columns = PanelCut(shape.HD).columns;
    float* out = buffers.out + first * columns;
    float* row_max = buffers.row_max + first;
    float* row_sum = buffers.row_sum + first * kLanes;
    scores_tile<Product>(buffers.scores, kKeys, buffers.query_rows + first * units, units, buffers.key_columns, rows,
                         keys, ceil_div(shape.HD, Product::kPerUnit), shape.score_scale(), diagonal);
    // Two loops: the rows of each are independent, so that the processor works on several at once.
    for (int64_t row = 0; row < rows; ++row) {
        float* scores = buffers.scores + row * kKeys;
        const int64_t written = written_columns(row / kMicroRows * kMicroRows, keys, diagonal);
        mask_row(scores, shape.first_seen(row + diagonal), std::min(keys, row + diagonal + 1), written, -kInfinity);
        raise_maximum(scores, written, row_max + row, row_sum + row * kLanes, out + row * columns, columns);
    }
    for (int64_t row = 0; row < rows; ++row) {
        exponentiate<Product>(buffers.scores + row * kKeys,
                              written_columns(row / kMicroRows * kMicroRows, keys, diagonal),
                              reference_of(row_max[row]), row_sum + row * kLanes);
    }
    accumulate_over_keys<Product>(out, reinterpret_cast<const Unit*>(buffers.scores), kKeys, buffers.value_panels,
                                  kKeys / Product::kPerUnit, rows, keys, shape.HD, diagonal);
}

/// Queries first_query .. first_query + count - 1 of head h of the shape.T rows from `first_row` on.
template <typename T>
void forward_block(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, int64_t first_row, int64_t h,
                   int64_t first_query, const ForwardBuffers<typename ProductFor<T>::Type>& buffers) {
    using Product = typename ProductFor<T>::Type;
    const int64_t T_ = shape.T, HD = shape.HD, columns = PanelCut(HD).columns;
    const int64_t kv_head = h / (shape.NH / shape.NKV);
    const int64_t count = std::min(kForwardQueries, T_ - first_query);
    const auto queries = head_of<const T>(qkv, first_row, query_column(shape, h));
    const auto keys = head_of<const T>(qkv, first_row, key_column(shape, kv_head));
    const auto values = head_of<const T>(qkv, first_row, value_column(shape, kv_head));

    pack_rows<Product>(buffers.query_rows, queries.row(first_query), queries.stride, count, HD);
    std::fill_n(buffers.out, round_up(count, kMicroRows) * columns, 0.0f);
    std::fill_n(buffers.row_max, round_up(count, kMicroRows), -kInfinity);
    std::fill_n(buffers.row_sum, round_up(count, kMicroRows) * kLanes, 0.0f);
    for (int64_t first_key = first_key_tile(shape, first_query); first_key < first_query + count; first_key += kKeys) {
        const int64_t key_count = std::min(kKeys, T_ - first_key);
        pack_rows<Product>(buffers.rows, keys.row(first_key), keys.stride, key_count, HD);
        pack_columns<Product>(buffers.key_columns, buffers.rows, key_count, HD);
        pack_rows<Product>(buffers.rows, values.row(first_key), values.stride, key_count, HD);
        pack_panels<Product>(buffers.value_panels, buffers.rows, key_count, HD, kKeys / Product::kPerUnit);
        const int64_t end = std::min(count, shape.end_seeing(first_key + key_count - 1) - first_query);
        for (int64_t row = std::max<int64_t>(0, first_key - first_query); row < end; row += kScoreRows) {
            const int64_t rows = round_up(std::min(kScoreRows, end - row), kMicroRows);
            forward_tile<Product>(buffers, row, rows, key_count, first_query + row - first_key, shape);
        }
    }

    const auto out_head = head_of<T>(out, first_row, h * HD);
    const auto lse_head = head_of<float>(lse, first_row, h);
    for (int64_t row = 0; row < count; ++row) {
        const float sum = sum_of(load(buffers.row_sum + row * kLanes));
        store_row(out_head.row(first_query + row), buffers.out + row * columns, HD, 1.0f / sum);
        *lse_head.row(first_query + row) = buffers.row_max[row] + std::log(sum);
    }
}

template <typename T>
int64_t forward_bytes(const AttentionShape& shape) {
    Carver carver(nullptr);
    ForwardBuffers<typename ProductFor<T>::Type> buffers(carver, shape.HD);
    return carver.bytes();
}

template <typename T>
void forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, Tensor workspace, int threads) {
    // The blocks of a head follow each other, so that its keys and values stay in a cache; the longest comes first.
    std::vector<AttentionTask> tasks;
    for (const DocumentRows& document : documents_in(shape.documents, shape.B, shape.T)) {
        for (int64_t h = 0; h < shape.NH; ++h) {
            for (int64_t block = ceil_div(document.count, kForwardQueries) - 1; block >= 0; --block)
                tasks.push_back({document, h, block * kForwardQueries});
        }
    }
    const auto count = static_cast<int64_t>(tasks.size());
    const int64_t bytes = forward_bytes<T>(shape);
    char* memory = static_cast<char*>(workspace.data);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
        Carver carver(memory + omp_get_thread_num() * bytes);
        const ForwardBuffers<typename ProductFor<T>::Type> buffers(carver, shape.HD);
        const AttentionTask& task = tasks[static_cast<size_t>(i)];
        forward_block<T>(out, lse, qkv, shape_of(shape, task.document), task.document.first, task.head, task.first,
                         buffers);
    }
}

}  // namespace

void CpuBackend::attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, Tensor workspace) {
    check_shape(shape, qkv, out, lse);
    CHECK(workspace.bytes() >= attention_forward_workspace(qkv.dtype, shape), workspace.bytes());
    if (qkv.dtype == DType::F32)
        forward<float>(out, lse, qkv, shape, workspace, threads_);
    else
        forward<bf16>(out, lse, qkv, shape, workspace, threads_);
}

int64_t CpuBackend::attention_forward_workspace(DType activations, const AttentionShape& shape) const {
    return threads_ * (activations == DType::F32 ? forward_bytes<float>(shape) : forward_bytes<bf16>(shape));
}

}  // namespace llmc::cpu
