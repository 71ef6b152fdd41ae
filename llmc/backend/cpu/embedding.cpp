// Token and position embeddings. Forward: parallel over rows. Backward: a token's rows must add in row order, so rows
// are first sorted by token (a stable counting sort), and the threads take runs of whole tokens, cut into strips of
// columns so that one frequent token does not keep everybody waiting. Every element of a gradient has one owner.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/documents.h"
#include "llmc/backend/cpu/parallel.h"

#include <algorithm>
#include <vector>

namespace llmc::cpu {
namespace {

constexpr int64_t kStripColumns = 256;
constexpr int64_t kRunRows = 64;  ///< A run of tokens ends when it has at least this many rows.

template <typename E>
void add_rows(E* out, const E* x, const E* y, int64_t C) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) out[c] = from_float<E>(to_float(x[c]) + to_float(y[c]));
}

template <typename E>
void embed(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, int64_t first_position, Tensor documents) {
    const int64_t N = out.shape[0], C = out.shape[1];
    const int32_t* token = tokens.as<int32_t>();
    E* rows = out.as<E>();
    const E* token_rows = wte.as<E>();
    const E* position_rows = wpe ? wpe.as<E>() : nullptr;
    const int32_t* starts = documents ? documents.as<int32_t>() : nullptr;
    const int64_t step = std::max<int64_t>(1, kBlockElements / C);
    for_each_range(N, step, 3 * out.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            CHECK(token[n] >= 0 && token[n] < wte.shape[0], token[n], wte.shape[0]);
            const E* row = token_rows + token[n] * C;
            if (position_rows)
                add_rows(rows + n * C, row, position_rows + (first_position + position_of(starts, n, T)) * C, C);
            else
                std::copy(row, row + C, rows + n * C);
        }
    });
}

template <typename E>
void accumulate_row(float* sum, const E* row, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t c = begin; c < end; ++c) sum[c] += to_float(row[c]);
}

/// Rows 0 .. N - 1 sorted by token, equal tokens in row order. `starts` (Vp + 1) is scratch.
void sort_by_token(int32_t* order, int32_t* starts, const int32_t* token, int64_t N, int64_t Vp) {
    std::fill(starts, starts + Vp + 1, 0);
    for (int64_t n = 0; n < N; ++n) {
        CHECK(token[n] >= 0 && token[n] < Vp, token[n], Vp);
        ++starts[token[n] + 1];
    }
    for (int64_t v = 0; v < Vp; ++v) starts[v + 1] += starts[v];
    for (int64_t n = 0; n < N; ++n) order[starts[token[n]]++] = static_cast<int32_t>(n);
}

/// Boundaries in `order` of runs of about kRunRows rows that never cut a token's rows.
std::vector<int64_t> cut_runs(const int32_t* order, const int32_t* token, int64_t N) {
    std::vector<int64_t> bounds = {0};
    for (int64_t i = kRunRows; i < N; ++i)
        if (i - bounds.back() >= kRunRows && token[order[i]] != token[order[i - 1]]) bounds.push_back(i);
    bounds.push_back(N);
    return bounds;
}

template <typename E>
void embed_backward(Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T, Tensor documents,
                    Tensor workspace) {
    const int64_t N = d_out.shape[0], C = d_out.shape[1];
    const int32_t* token = d_wte ? tokens.as<int32_t>() : nullptr;
    int32_t* order = static_cast<int32_t*>(workspace.data);
    if (d_wte) sort_by_token(order, order + N, token, N, d_wte.shape[0]);

    const E* rows = d_out.as<E>();
    float* d_token = d_wte ? d_wte.as<float>() : nullptr;
    float* d_position = d_wpe ? d_wpe.as<float>() : nullptr;
    const int64_t strips = ceil_div(C, kStripColumns);
    const std::vector<int64_t> runs = d_wte ? cut_runs(order, token, N) : std::vector<int64_t>{0};
    const int64_t token_blocks = (static_cast<int64_t>(runs.size()) - 1) * strips;

    const int64_t positions = d_position ? std::min(T, N) : 0;
    const int64_t step = std::max<int64_t>(1, kBlockElements / C * T / N);
    const int64_t position_blocks = ceil_div(positions, step);
    const std::vector<DocumentRows> stretches =
        d_position && documents ? documents_in(documents, N / T, T) : std::vector<DocumentRows>{};

    for_each_block(token_blocks + position_blocks, 3 * N * C * 4, [&](int64_t block) {
        if (block < token_blocks) {
            const int64_t run = block / strips, begin = block % strips * kStripColumns;
            for (int64_t i = runs[run]; i < runs[run + 1]; ++i)
                accumulate_row(d_token + token[order[i]] * C, rows + order[i] * C, begin,
                               std::min(C, begin + kStripColumns));
            return;
        }
        const int64_t first = (block - token_blocks) * step;
        for (int64_t t = first; t < std::min(positions, first + step); ++t) {
            if (!adds) std::fill_n(d_position + t * C, C, 0.0f);
            if (documents) {
                for (const auto& [begin, count] : stretches)
                    if (t < count) accumulate_row(d_position + t * C, rows + (begin + t) * C, 0, C);
                continue;
            }
            for (int64_t n = t; n < N; n += T) accumulate_row(d_position + t * C, rows + n * C, 0, C);
        }
    });
}

}  // namespace

void CpuBackend::embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, FirstPosition first,
                                   Tensor documents) {
    const int64_t first_position = value_of(first);
    CHECK(tokens.count() == out.shape[0] && wte.shape[1] == out.shape[1], tokens.count(), wte.shape[1], out.shape[1]);
    CHECK(!documents || documents.count() == tokens.count(), documents.count(), tokens.count());
    CHECK(!wpe || first_position + std::min(T, out.shape[0]) <= wpe.shape[0], first_position, T, wpe.shape[0]);
    out.dtype == DType::BF16 ? embed<bf16>(out, tokens, wte, wpe, T, first_position, documents)
                             : embed<float>(out, tokens, wte, wpe, T, first_position, documents);
}

void CpuBackend::embedding_backward(Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T,
                                    Tensor documents, Tensor workspace) {
    const int64_t N = d_out.shape[0], C = d_out.shape[1];
    CHECK(!d_wte || (tokens.count() == N && d_wte.shape[1] == C), tokens.count(), N, d_wte.shape[1], C);
    CHECK(!d_wpe || std::min(T, N) <= d_wpe.shape[0], T, d_wpe.shape[0]);
    CHECK(!d_wte || workspace.bytes() >= embedding_backward_workspace(N, C, d_wte.shape[0], false), workspace.bytes());
    d_out.dtype == DType::BF16 ? embed_backward<bf16>(d_wte, d_wpe, adds, d_out, tokens, T, documents, workspace)
                               : embed_backward<float>(d_wte, d_wpe, adds, d_out, tokens, T, documents, workspace);
}

int64_t CpuBackend::embedding_backward_workspace(int64_t N, int64_t, int64_t Vp, bool) const {
    return (N + Vp + 1) * size_of(DType::I32);
}

}  // namespace llmc::cpu
