// The backward pass of causal attention: the scores of a tile are computed once more, and turned into probabilities by
// the saved log-sum-exp (Dao et al. 2022). attention.cpp is the forward pass.
//
// A task is a key/value head of a document with its query heads. If there are too few of those for the threads, or a
// sequence is too long for the accumulators, the pass runs instead as two kinds of smaller tasks, one for the gradients
// of keys and values, one for those of queries, at the price of computing the scores twice. Both ways add the same
// numbers in the same order, so they give the same bits.
//
// In the place of qkv: in one sweep, a task writes a row of its heads when it has read it for the last time. In two,
// for some heads at a time, the gradients of keys and values wait in the workspace, since the tasks for queries read
// those; such a task has packed its queries, which no other reads, when it writes over them.
//
// In bf16, probabilities and their gradients are rounded to bf16 before they are multiplied, where the processor has
// bf16 dot products; sums and everything else are fp32.
#include "llmc/backend/cpu/attention_common.h"
#include "llmc/backend/cpu/attention_tile.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace llmc::cpu {

namespace {

constexpr int64_t kQueries = 96;  ///< Queries of a tile.
static_assert(kKeys % kQueries == 0 && kQueries % kRowPadding == 0);

/// The pass runs in one sweep only if a thread's fp32 gradient of the queries is at most this large.
constexpr int64_t kMaxQueryGradientBytes = 16 << 20;

template <typename Product>
struct BackwardBuffers {
    Unit* rows;         ///< A key or value tile, before it is rearranged.
    Unit* key_columns;  ///< kKeys, as are the next two.
    Unit* key_panels;
    Unit* value_columns;
    Unit* query_rows;  ///< kQueries, as are the next three.
    Unit* query_panels;
    Unit* d_out_rows;
    Unit* d_out_panels;
    float* lse;           ///< (kQueries)
    float* delta;         ///< (kQueries), the row sums of d_out * out.
    float* scores;        ///< (kQueries, kKeys), then the probabilities as units of neighbouring rows.
    float* d_scores;      ///< (kQueries, kKeys), likewise.
    Unit* d_scores_rows;  ///< (kQueries, kKeys) in rows form; fp32 uses d_scores.
    float* d_keys;        ///< (kKeys, HD padded)
    float* d_values;      ///< (kKeys, HD padded)
    float* d_queries;     ///< (query_rows of the constructor, HD padded)

    BackwardBuffers(Carver& carver, int64_t HD, int64_t query_rows_held) {
        const int64_t units = row_units<Product>(HD), columns = PanelCut(HD).columns;
        const auto take_units = [&](int64_t count) { return carver.template take<Unit>(count); };
        const auto take_floats = [&](int64_t count) { return carver.template take<float>(count); };
        rows = take_units(kKeys * units);
        key_columns = take_units(kKeys * units);
        key_panels = take_units(kKeys / Product::kPerUnit * columns);
        value_columns = take_units(kKeys * units);
        query_rows = take_units(kQueries * units);
        query_panels = take_units(kQueries / Product::kPerUnit * columns);
        d_out_rows = take_units(kQueries * units);
        d_out_panels = take_units(kQueries / Product::kPerUnit * columns);
        lse = take_floats(kQueries);
        delta = take_floats(kQueries);
        scores = take_floats(kQueries * kKeys);
        d_scores = take_floats(kQueries * kKeys);
        d_scores_rows = Product::kPerUnit == 1 ? reinterpret_cast<Unit*>(d_scores)
                                               : take_units(kQueries * kKeys / Product::kPerUnit);
        d_keys = take_floats(kKeys * columns);
        d_values = take_floats(kKeys * columns);
        d_queries = take_floats(query_rows_held * columns);
    }
};

/// Scores and d(probabilities) of neighbouring rows become probabilities and d(scores), as units for products over the
/// queries; in bf16, d_scores_rows also receives d(scores) as units for products over the keys. `row` is the first of
/// them.
template <typename Product>
void gradient_of_scores(const BackwardBuffers<Product>& buffers, int64_t row, int64_t columns) {
    float* scores = buffers.scores + row * kKeys;
    float* d_scores = buffers.d_scores + row * kKeys;
    const float lse = buffers.lse[row], delta = buffers.delta[row];
    if constexpr (Product::kPerUnit == 1) {
        for (int64_t c = 0; c < columns; c += kLanes) {
            const Vec p = exp_of_nonpositive(load(scores + c) - lse);
            store(scores + c, p);
            store(d_scores + c, p * (load(d_scores + c) - delta));
        }
    } else {
        using RowPair = typename Product::RowPair;
        const float odd_lse = buffers.lse[row + 1], odd_delta = buffers.delta[row + 1];
        auto* d_even_row = reinterpret_cast<bf16*>(buffers.d_scores_rows) + row * kKeys;
        bf16* d_odd_row = d_even_row + kKeys;
        for (int64_t c = 0; c < columns; c += kLanes) {
            const Vec p = exp_of_nonpositive(load(scores + c) - lse);
            const Vec odd_p = exp_of_nonpositive(load(scores + kKeys + c) - odd_lse);
            const Vec d = p * (load(d_scores + c) - delta);
            const Vec odd_d = odd_p * (load(d_scores + kKeys + c) - odd_delta);
            RowPair(p, odd_p).store_units(scores + c);
            const RowPair rounded(d, odd_d);
            rounded.store_units(d_scores + c);
            rounded.store_rows(d_even_row + c, d_odd_row + c);
        }
    }
}

/// One tile: from the packed keys and queries to what they add to the gradients. Either d_queries, or d_keys and
/// d_values, may be null. d_queries and d_keys still lack the factor of the scores.
template <typename Product>
void backward_tile(const BackwardBuffers<Product>& buffers, float* d_queries, float* d_keys, float* d_values,
                   int64_t queries, int64_t keys, int64_t diagonal, const AttentionShape& shape) {
    const int64_t HD = shape.HD, units = row_units<Product>(HD), depth = ceil_div(HD, Product::kPerUnit);
    const int64_t rows = round_up(queries, kMicroRows);
    constexpr int64_t per_unit = Product::kPerUnit;
    scores_tile<Product>(buffers.scores, kKeys, buffers.query_rows, units, buffers.key_columns, rows, keys, depth,
                         shape.score_scale(), diagonal);
    scores_tile<Product>(buffers.d_scores, kKeys, buffers.d_out_rows, units, buffers.value_columns, rows, keys, depth,
                         1.0f, diagonal);
    for (int64_t row = 0; row < rows; row += per_unit) {
        const int64_t written = written_columns(row / kMicroRows * kMicroRows, keys, diagonal);
        for (int64_t masked = row; masked < row + per_unit; ++masked) {
            const int64_t hidden = shape.first_seen(masked + diagonal), seen = std::min(keys, masked + diagonal + 1);
            mask_row(buffers.scores + masked * kKeys, hidden, seen, written, -kInfinity);
            mask_row(buffers.d_scores + masked * kKeys, hidden, seen, written, 0.0f);
        }
        gradient_of_scores<Product>(buffers, row, written);
    }
    if (d_queries) {
        accumulate_over_keys<Product>(d_queries, buffers.d_scores_rows, kKeys / per_unit, buffers.key_panels,
                                      kKeys / per_unit, rows, keys, HD, diagonal);
    }
    if (d_keys) {
        accumulate_over_queries<Product>(d_values, reinterpret_cast<const Unit*>(buffers.scores), kKeys * per_unit,
                                         buffers.d_out_panels, kQueries / per_unit, rows, keys, HD, diagonal);
        accumulate_over_queries<Product>(d_keys, reinterpret_cast<const Unit*>(buffers.d_scores), kKeys * per_unit,
                                         buffers.query_panels, kQueries / per_unit, rows, keys, HD, diagonal);
    }
}

/// Where the gradients of keys and values go: in (N, columns) rows, those of the head `first_head` at the columns
/// `keys` and `values`, other heads behind it.
struct KeyGradients {
    Tensor rows;
    int64_t keys, values, first_head;
};

/// The backward pass in the shape.T rows from `first_row` on: the operands, and the three kinds of task.
template <typename T>
class Backward {
  public:
    using Product = typename ProductFor<T>::Type;
    using Buffers = BackwardBuffers<Product>;

    Backward(Tensor d_qkv, const KeyGradients& d_keys, Tensor d_out, Tensor qkv, Tensor lse, const float* delta,
             const AttentionShape& shape, int64_t first_row)
        : d_qkv_(d_qkv),
          d_keys_(d_keys),
          d_out_(d_out),
          qkv_(qkv),
          lse_(lse),
          delta_(delta),
          shape_(shape),
          first_row_(first_row),
          columns_(PanelCut(shape.HD).columns),
          group_(shape.NH / shape.NKV) {}

    /// All gradients of one key/value head and its query heads.
    void whole_head(int64_t kv_head, const Buffers& buffers) const {
        const int64_t rows = padded_queries(shape_);
        std::fill_n(buffers.d_queries, group_ * rows * columns_, 0.0f);
        for (int64_t first_key = 0; first_key < shape_.T; first_key += kKeys)
            key_block(kv_head, first_key, buffers, buffers.d_queries);
        for (int64_t i = 0; i < group_; ++i) {
            store_gradient(d_qkv_, query_column(shape_, kv_head * group_ + i), buffers.d_queries + i * rows * columns_,
                           {0, shape_.T}, shape_.score_scale());
        }
    }

    /// The gradients of one tile of keys and values. Adds to those of the group's queries, unless `d_queries` is null.
    void key_block(int64_t kv_head, int64_t first_key, const Buffers& buffers, float* d_queries) const {
        const int64_t keys = pack_keys(kv_head, first_key, buffers);
        std::fill_n(buffers.d_keys, round_up(keys, kMicroRows) * columns_, 0.0f);
        std::fill_n(buffers.d_values, round_up(keys, kMicroRows) * columns_, 0.0f);
        for (int64_t i = 0; i < group_; ++i) {
            const int64_t end = shape_.end_seeing(first_key + keys - 1);
            for (int64_t first_query = first_key; first_query < end; first_query += kQueries) {
                const int64_t queries = pack_queries(kv_head * group_ + i, first_query, buffers);
                float* rows = d_queries ? d_queries + (i * padded_queries(shape_) + first_query) * columns_ : nullptr;
                backward_tile<Product>(buffers, rows, buffers.d_keys, buffers.d_values, queries, keys,
                                       first_query - first_key, shape_);
            }
        }
        const int64_t column = (kv_head - d_keys_.first_head) * shape_.HD;
        store_gradient(d_keys_.rows, d_keys_.keys + column, buffers.d_keys, {first_key, keys}, shape_.score_scale());
        store_gradient(d_keys_.rows, d_keys_.values + column, buffers.d_values, {first_key, keys}, 1.0f);
    }

    /// The gradient of one block of queries.
    void query_block(int64_t h, int64_t first_query, const Buffers& buffers) const {
        const int64_t queries = pack_queries(h, first_query, buffers);
        std::fill_n(buffers.d_queries, kQueries * columns_, 0.0f);
        for (int64_t first_key = first_key_tile(shape_, first_query); first_key < first_query + queries;
             first_key += kKeys) {
            const int64_t keys = pack_keys(h / group_, first_key, buffers);
            backward_tile<Product>(buffers, buffers.d_queries, nullptr, nullptr, queries, keys, first_query - first_key,
                                   shape_);
        }
        store_gradient(d_qkv_, query_column(shape_, h), buffers.d_queries, {first_query, queries},
                       shape_.score_scale());
    }

    static int64_t padded_queries(const AttentionShape& shape) { return round_up(shape.T, kQueries); }

  private:
    int64_t pack_keys(int64_t kv_head, int64_t first_key, const Buffers& buffers) const {
        const int64_t keys = std::min(kKeys, shape_.T - first_key);
        const auto key_head = head_of<const T>(qkv_, first_row_, key_column(shape_, kv_head));
        const auto value_head = head_of<const T>(qkv_, first_row_, value_column(shape_, kv_head));
        pack_rows<Product>(buffers.rows, key_head.row(first_key), key_head.stride, keys, shape_.HD);
        pack_columns<Product>(buffers.key_columns, buffers.rows, keys, shape_.HD);
        pack_panels<Product>(buffers.key_panels, buffers.rows, keys, shape_.HD, kKeys / Product::kPerUnit);
        pack_rows<Product>(buffers.rows, value_head.row(first_key), value_head.stride, keys, shape_.HD);
        pack_columns<Product>(buffers.value_columns, buffers.rows, keys, shape_.HD);
        return keys;
    }

    /// Padding rows get probabilities 0, by an infinite log-sum-exp.
    int64_t pack_queries(int64_t h, int64_t first_query, const Buffers& buffers) const {
        const int64_t queries = std::min(kQueries, shape_.T - first_query), depth = kQueries / Product::kPerUnit;
        const auto query_head = head_of<const T>(qkv_, first_row_, query_column(shape_, h));
        const auto d_out_head = head_of<const T>(d_out_, first_row_, h * shape_.HD);
        pack_rows<Product>(buffers.query_rows, query_head.row(first_query), query_head.stride, queries, shape_.HD);
        pack_panels<Product>(buffers.query_panels, buffers.query_rows, padded(queries), shape_.HD, depth);
        pack_rows<Product>(buffers.d_out_rows, d_out_head.row(first_query), d_out_head.stride, queries, shape_.HD);
        pack_panels<Product>(buffers.d_out_panels, buffers.d_out_rows, padded(queries), shape_.HD, depth);
        const float* lse = lse_.as<float>();
        for (int64_t row = 0; row < padded(queries); ++row) {
            const int64_t from = (first_row_ + first_query + row) * shape_.NH + h;
            buffers.lse[row] = row < queries ? lse[from] : kInfinity;
            buffers.delta[row] = row < queries ? delta_[from] : 0.0f;
        }
        return queries;
    }
    static int64_t padded(int64_t queries) { return round_up(queries, kMicroRows); }

    void store_gradient(Tensor to, int64_t column, const float* from, const DocumentRows& rows, float scale) const {
        const auto head = head_of<T>(to, first_row_, column);
        for (int64_t row = 0; row < rows.count; ++row)
            store_row(head.row(rows.first + row), from + row * columns_, shape_.HD, scale);
    }

    Tensor d_qkv_;
    KeyGradients d_keys_;
    Tensor d_out_, qkv_, lse_;
    const float* delta_;  ///< (N, NH)
    AttentionShape shape_;
    int64_t first_row_, columns_, group_;
};

/// One sweep costs 5 products per tile, in B*NKV tasks; two cost 7, in tasks enough for any number of threads.
template <typename T>
bool in_one_sweep(const AttentionShape& shape, int threads) {
    const int64_t tasks = shape.B * shape.NKV;
    const int64_t rows = shape.NH / shape.NKV * Backward<T>::padded_queries(shape);
    return rows * PanelCut(shape.HD).columns * 4 <= kMaxQueryGradientBytes &&
           5 * ceil_div(tasks, threads) * threads <= 7 * tasks;
}

template <typename T>
int64_t query_rows_held(const AttentionShape& shape, int threads) {
    return in_one_sweep<T>(shape, threads) ? shape.NH / shape.NKV * Backward<T>::padded_queries(shape) : kQueries;
}

template <typename T>
int64_t backward_bytes(const AttentionShape& shape, int threads) {
    Carver carver(nullptr);
    BackwardBuffers<typename ProductFor<T>::Type> buffers(carver, shape.HD, query_rows_held<T>(shape, threads));
    return carver.bytes();
}

int64_t delta_bytes(const AttentionShape& shape) { return round_up(shape.B * shape.T * shape.NH * 4, 64); }

/// delta (N, NH) = row sums of d_out * out.
template <typename T>
void compute_delta(float* delta, const T* d_out, const T* out, int64_t rows, int64_t HD) {
    for (int64_t row = 0; row < rows; ++row) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < HD; ++d) sum += to_float(d_out[row * HD + d]) * to_float(out[row * HD + d]);
        delta[row] = sum;
    }
}

/// Key/value heads.
struct Heads {
    int64_t first = 0, count = 0;
};

enum class Work { WholeHead, KeyBlock, QueryBlock };

struct Task {
    Work work;
    AttentionTask at;
};

/// Tasks that may run in any order.
class Tasks {
  public:
    Tasks(const std::vector<DocumentRows>& documents, const AttentionShape& shape)
        : documents_(documents), shape_(shape) {}

    void add_whole_heads() { add(Work::WholeHead, {0, shape_.NKV}, 0); }

    // Long tasks come first: the first keys are seen by the most queries, the last queries see the most keys.

    void add_key_blocks(const Heads& heads) {
        for (int64_t first = 0; first < shape_.T; first += kKeys) add(Work::KeyBlock, heads, first);
    }
    void add_query_blocks(const Heads& heads) {
        const int64_t group = shape_.NH / shape_.NKV;
        for (int64_t block = ceil_div(shape_.T, kQueries) - 1; block >= 0; --block)
            add(Work::QueryBlock, {heads.first * group, heads.count * group}, block * kQueries);
    }

    const std::vector<Task>& all() const { return tasks_; }

  private:
    /// One for each of the heads in every document that has a block from position `first` on.
    void add(Work work, const Heads& heads, int64_t first) {
        for (const DocumentRows& document : documents_) {
            if (first >= document.count) continue;
            for (int64_t head = heads.first; head < heads.first + heads.count; ++head)
                tasks_.push_back({work, {document, head, first}});
        }
    }

    const std::vector<DocumentRows>& documents_;
    const AttentionShape& shape_;
    std::vector<Task> tasks_;
};

/// The gradients of keys and values of so many heads, while they wait.
KeyGradients waiting_gradients(DType dtype, char* memory, const AttentionShape& shape, const Heads& heads) {
    const int64_t columns = heads.count * shape.HD;
    return {Tensor(dtype, memory, shape.B * shape.T, 2 * columns), 0, columns, heads.first};
}

int64_t waiting_bytes(DType dtype, const AttentionShape& shape) {
    return round_up(waiting_gradients(dtype, nullptr, shape, {0, shape.kv_heads_in_place()}).rows.bytes(), 64);
}

/// Of these heads, to where they belong.
void put_in_place(Tensor d_qkv, const KeyGradients& from, const AttentionShape& shape, int threads) {
    const int64_t item = size_of(d_qkv.dtype), bytes = (from.values - from.keys) * item, N = d_qkv.shape[0];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < N; ++n) {
        char* const to = static_cast<char*>(d_qkv.row_range(n, 1).data);
        const char* const row = static_cast<const char*>(from.rows.row_range(n, 1).data);
        std::memcpy(to + key_column(shape, from.first_head) * item, row, static_cast<size_t>(bytes));
        std::memcpy(to + value_column(shape, from.first_head) * item, row + bytes, static_cast<size_t>(bytes));
    }
}

template <typename T>
void backward(Tensor d_qkv, Tensor d_out, Tensor qkv, Tensor out, Tensor lse, const AttentionShape& shape,
              Tensor workspace, int threads) {
    char* memory = static_cast<char*>(workspace.data);
    auto* delta = reinterpret_cast<float*>(memory);
    memory += delta_bytes(shape);
    const int64_t bytes = backward_bytes<T>(shape, threads), held = query_rows_held<T>(shape, threads);
    const int64_t N = shape.B * shape.T;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < N; ++n) {
        const int64_t at = n * shape.NH * shape.HD;
        compute_delta(delta + n * shape.NH, d_out.as<T>() + at, out.as<T>() + at, shape.NH, shape.HD);
    }
    const auto run = [&](const Tasks& tasks, const KeyGradients& d_keys) {
        const auto count = static_cast<int64_t>(tasks.all().size());
#pragma omp parallel num_threads(threads)
        {
            Carver carver(memory + omp_get_thread_num() * bytes);
            const BackwardBuffers<typename ProductFor<T>::Type> buffers(carver, shape.HD, held);
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < count; ++i) {
                const auto& [work, task] = tasks.all()[static_cast<size_t>(i)];
                const Backward<T> pass(d_qkv, d_keys, d_out, qkv, lse, delta, shape_of(shape, task.document),
                                       task.document.first);
                switch (work) {
                    case Work::WholeHead: pass.whole_head(task.head, buffers); break;
                    case Work::KeyBlock: pass.key_block(task.head, task.first, buffers, nullptr); break;
                    case Work::QueryBlock: pass.query_block(task.head, task.first, buffers); break;
                }
            }
        }
    };
    const std::vector<DocumentRows> documents = documents_in(shape.documents, shape.B, shape.T);
    const bool one_sweep = in_one_sweep<T>(shape, threads);
    if (one_sweep || d_qkv.data != qkv.data) {
        Tasks tasks(documents, shape);
        if (one_sweep) tasks.add_whole_heads();
        if (!one_sweep) tasks.add_key_blocks({0, shape.NKV}), tasks.add_query_blocks({0, shape.NKV});
        return run(tasks, {d_qkv, key_column(shape, 0), value_column(shape, 0), 0});
    }
    char* const waiting = memory + threads * bytes;
    const int64_t at_once = shape.kv_heads_in_place();
    for (Heads heads = {0, at_once}; heads.first < shape.NKV; heads.first += at_once) {
        heads.count = std::min(at_once, shape.NKV - heads.first);
        const KeyGradients d_keys = waiting_gradients(qkv.dtype, waiting, shape, heads);
        Tasks of_keys(documents, shape), of_queries(documents, shape);
        of_keys.add_key_blocks(heads);
        of_queries.add_query_blocks(heads);
        run(of_keys, d_keys);
        run(of_queries, d_keys);
        put_in_place(d_qkv, d_keys, shape, threads);
    }
}

}  // namespace

void CpuBackend::attention_backward(Tensor d_qkv, Tensor d_out, Tensor qkv, Tensor out, Tensor lse,
                                    const AttentionShape& shape, Tensor workspace) {
    check_shape(shape, qkv, out, lse);
    check_shape(shape, d_qkv, d_out, lse);
    CHECK(workspace.bytes() >= attention_backward_workspace(qkv.dtype, shape, d_qkv.data == qkv.data),
          workspace.bytes());
    if (qkv.dtype == DType::F32)
        backward<float>(d_qkv, d_out, qkv, out, lse, shape, workspace, threads_);
    else
        backward<bf16>(d_qkv, d_out, qkv, out, lse, shape, workspace, threads_);
}

int64_t CpuBackend::attention_backward_workspace(DType activations, const AttentionShape& shape, bool in_place) const {
    const auto bytes = [&]<typename T>(T) {
        const bool waits = in_place && !in_one_sweep<T>(shape, threads_);
        return delta_bytes(shape) + threads_ * backward_bytes<T>(shape, threads_) +
               (waits ? waiting_bytes(activations, shape) : 0);
    };
    return activations == DType::F32 ? bytes(float()) : bytes(bf16());
}

}  // namespace llmc::cpu
