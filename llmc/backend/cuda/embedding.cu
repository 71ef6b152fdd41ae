// Token and position embeddings. Forward: a block to a piece of a row. Backward: a token's rows must add in row order,
// so rows are first sorted by token. Rows of one token are then a run, which one warp adds up in each strip of columns,
// many rows loaded ahead of the sum. A position's rows are one in every sequence; where sequences hold several
// documents they are runs, too. Every element of a gradient has one owner.
//
// The sort is a stable radix sort, 9 bits of the token at a time, so that two passes do for a vocabulary of 262,144:
// each tile of rows counts its digits, a warp to a digit adds up the counts of the tiles before each tile, and one warp
// per tile puts its rows at their places, 32 at a time in order (Merrill & Grimshaw 2011).
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <utility>

namespace llmc::cuda {
inline namespace embedding_kernels {

constexpr int kDigitBits = 9;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kTile = 512;  ///< Rows of a tile.
constexpr int kCountThreads = 256;
constexpr int kScanWarps = 8;
constexpr int kRunWarps = 4;
constexpr int kRunBytes = 4;    ///< Of a row that a lane adds in a run: a register, of which it loads many ahead.
constexpr int kWalkGroup = 4;   ///< Columns of a thread that walks the rows of a position: few, so that it can
constexpr int kRowsAhead = 16;  ///< load so many rows together.

/// Bytes: reads a row of each table, which is in L2 where it came before, writes out: 6 an element of bf16 at most.
/// GPT-2 124M, 32 x 1024, at 3.0 TB/s: 0.050 ms.
template <typename E, int kSize>
__global__ void embed_kernel(E* out, const int32_t* tokens, const E* wte, const E* wpe, int64_t T, Position position,
                             const int32_t* documents, int64_t C, int pieces) {
    const int64_t row = blockIdx.x / pieces;
    const int64_t c = (static_cast<int64_t>(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * kSize;
    if (c >= C) return;
    Group<E, kSize> sum = load_group<kSize>(wte + tokens[row] * C + c);
    if (wpe) {
        const int64_t in_document = row % T - (documents ? documents[row] : 0);
        const Group<E, kSize> add = load_group<kSize>(wpe + (position.value() + in_document) * C + c);
#pragma unroll
        for (int k = 0; k < kSize; ++k) sum[k] = from_float<E>(to_float(sum[k]) + to_float(add[k]));
    }
    store_group(out + row * C + c, sum);
}

/// counts (kDigits, tiles): how often each digit occurs in each tile.
__global__ void count_digits_kernel(int32_t* counts, const int32_t* keys, int64_t N, int shift) {
    SHARED(int32_t[kDigits], of_tile);
    for (int digit = threadIdx.x; digit < kDigits; digit += blockDim.x) of_tile[digit] = 0;
    __syncthreads();
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, end = min(N, first + kTile);
    for (int64_t n = first + threadIdx.x; n < end; n += blockDim.x)
        atomicAdd(&of_tile[keys[n] >> shift & (kDigits - 1)], 1);
    __syncthreads();
    for (int digit = threadIdx.x; digit < kDigits; digit += blockDim.x)
        counts[static_cast<int64_t>(digit) * gridDim.x + blockIdx.x] = of_tile[digit];
}

/// Of every lane the sum of x over the lanes up to it.
__device__ __forceinline__ int32_t sum_up_to_lane(int32_t x) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
        const int32_t other = __shfl_up_sync(kFullMask, x, offset);
        if (lane >= offset) x += other;
    }
    return x;
}

/// Replaces every count by the sum of the tiles before it; totals (kDigits) = the sums of all tiles. A warp to a digit.
__global__ void scan_kernel(int32_t* totals, int32_t* counts, int64_t tiles) {
    const int lane = threadIdx.x % kWarpSize;
    const int digit = static_cast<int>(blockIdx.x) * kScanWarps + static_cast<int>(threadIdx.x) / kWarpSize;
    int32_t* const of_digit = counts + digit * tiles;
    int32_t before = 0;
    for (int64_t begin = 0; begin < tiles; begin += kWarpSize) {
        const int64_t tile = begin + lane;
        const int32_t own = tile < tiles ? of_digit[tile] : 0;
        const int32_t sum = before + sum_up_to_lane(own);
        if (tile < tiles) of_digit[tile] = sum - own;
        before = __shfl_sync(kFullMask, sum, kWarpSize - 1);
    }
    if (lane == 0) totals[digit] = before;
}

/// next (kDigits) = where the rows of a tile begin, by digit. One warp.
__device__ __forceinline__ void find_places(int32_t* next, const int32_t* totals, const int32_t* counts, int64_t tiles,
                                            int64_t tile) {
    constexpr int kOfLane = kDigits / kWarpSize;
    const int first = static_cast<int>(threadIdx.x) * kOfLane;
    int32_t before[kOfLane], total = 0;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
        before[i] = total + counts[(first + i) * tiles + tile];
        total += totals[first + i];
    }
    const int32_t smaller = sum_up_to_lane(total) - total;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) next[first + i] = smaller + before[i];
    __syncwarp();
}

/// Puts the rows of a tile, and their keys, at their places. `rows` is null in the first pass: row n is n. One warp.
__global__ void scatter_kernel(int32_t* sorted_keys, int32_t* sorted_rows, const int32_t* keys, const int32_t* rows,
                               const int32_t* totals, const int32_t* counts, int64_t N, int shift) {
    constexpr int kOfLane = kTile / kWarpSize;
    SHARED(int32_t[kDigits], next);
    const int lane = threadIdx.x;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile + lane;
    int32_t key[kOfLane], row[kOfLane];
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
        const int64_t n = first + i * kWarpSize;
        key[i] = n < N ? keys[n] : 0;
        row[i] = n < N && rows ? rows[n] : static_cast<int32_t>(n);
    }
    find_places(next, totals, counts, gridDim.x, blockIdx.x);
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
        const bool is_row = first + i * kWarpSize < N;
        const int digit = key[i] >> shift & (kDigits - 1);
        unsigned peers = __ballot_sync(kFullMask, is_row);  // Lanes with the same digit.
#pragma unroll
        for (int bit = 0; bit < kDigitBits; ++bit) {
            const unsigned ones = __ballot_sync(kFullMask, digit >> bit & 1);
            peers &= (digit >> bit & 1) ? ones : ~ones;
        }
        const int rank = __popc(peers & ((1u << lane) - 1));
        __syncwarp();
        const int32_t place = next[digit] + rank;
        __syncwarp();
        if (!is_row) continue;
        if (rank == 0) next[digit] = place + __popc(peers);
        sorted_keys[place] = key[i];
        sorted_rows[place] = row[i];
    }
}

/// Loads of 32 rows of x, in flight together, a group from `column`, where it is in row 0; each lane has the number of
/// one. Numbers before lane `first` and behind `last` count as those, so that nothing depends on a condition.
template <typename E, int kSize>
__device__ __forceinline__ void load_rows(Group<E, kSize> (&ahead)[kWarpSize], const E* column, int64_t C, int32_t row,
                                          int first, int last) {
#pragma unroll
    for (int i = 0; i < kWarpSize; ++i) {
        const int32_t n = __shfl_sync(kFullMask, row, min(max(i, first), last));
        ahead[i] = load_group<kSize>(column + n * C);
    }
}

/// Adds the first `count` of them.
template <typename E, int kSize>
__device__ __forceinline__ void add_loaded(Group<float, kSize>& sum, const Group<E, kSize> (&ahead)[kWarpSize],
                                           int count) {
#pragma unroll
    for (int i = 0; i < kWarpSize; ++i)
#pragma unroll
        for (int k = 0; k < kSize; ++k)
            if (i < count) sum[k] += to_float(ahead[i][k]);
}

/// What of a run of `key` lies from `place` on: 64 rows are in flight together, while the numbers of the next are read.
template <typename E, int kSize>
__device__ __forceinline__ void add_rest_of_run(Group<float, kSize>& sum, const E* column, int64_t C,
                                                const int32_t* keys, const int32_t* rows, int64_t N, int32_t key,
                                                int64_t place) {
    const int64_t lane = threadIdx.x % kWarpSize;
    const auto row_at = [&](int64_t n) {  // -1 behind the run.
        const int32_t key_there = n < N ? keys[n] : -1, row_there = n < N ? rows[n] : -1;
        return key_there == key ? row_there : -1;
    };
    int32_t row = row_at(place + lane), next = row_at(place + kWarpSize + lane);
    while (true) {
        const int count = __popc(__ballot_sync(kFullMask, row >= 0));
        const int more = __popc(__ballot_sync(kFullMask, next >= 0));
        Group<E, kSize> ahead[2][kWarpSize];
        if (count > 0) load_rows(ahead[0], column, C, row, 0, count - 1);
        if (more > 0) load_rows(ahead[1], column, C, next, 0, more - 1);
        place += 2 * kWarpSize;
        row = row_at(place + lane);
        next = row_at(place + kWarpSize + lane);
        add_loaded(sum, ahead[0], count);
        add_loaded(sum, ahead[1], more);
        if (more < kWarpSize) return;
    }
}

/// Adds to every row `key` of the table the rows of x that have this key, in order. A warp to 32 places of the sorted
/// rows and a strip of the columns: it adds up the runs that begin there.
/// Bytes: reads x; reads and writes 4 C for each key that occurs. GPT-2 124M, 32 x 1024 rows of 10,000 tokens, at 3.0
/// TB/s: 0.037 ms.
template <typename E, int kSize>
__global__ void add_runs_kernel(float* table, const E* x, const int32_t* keys, const int32_t* rows, int64_t N,
                                int64_t C, int64_t strips) {
    const int lane = threadIdx.x % kWarpSize;
    const int64_t warp = static_cast<int64_t>(blockIdx.x) * kRunWarps + threadIdx.x / kWarpSize;
    const int64_t first = warp / strips * kWarpSize, place = first + lane;
    if (first >= N) return;
    const int32_t key = place < N ? keys[place] : -1, row = place < N ? rows[place] : 0;
    const int32_t before_all = first > 0 ? keys[first - 1] : -1, before_lane = __shfl_up_sync(kFullMask, key, 1);
    const unsigned begins = __ballot_sync(kFullMask, place < N && key != (lane == 0 ? before_all : before_lane));
    if (begins == 0) return;
    const int64_t column = (warp % strips * kWarpSize + lane) * kSize;
    const int64_t c = min(column, C - kSize);  // Lanes behind the last column help with the others' shuffles alone.
    const int begin = __ffs(static_cast<int>(begins)) - 1, count = static_cast<int>(min(N - first, int64_t{kWarpSize}));
    Group<E, kSize> ahead[kWarpSize];
    Group<float, kSize> from[kWarpSize];
    load_rows(ahead, x + c, C, row, begin, count - 1);
#pragma unroll
    for (int i = 0; i < kWarpSize; ++i) {
        const int64_t of_run = __shfl_sync(kFullMask, key, i);
        if ((begins >> i & 1) && column < C) from[i] = load_group<kSize>(table + of_run * C + c);
    }
    Group<float, kSize> sum = {};
    const auto store = [&](int64_t of_run) {
        if (column < C) store_group(table + of_run * C + c, sum);
    };
#pragma unroll
    for (int i = 0; i < kWarpSize; ++i) {
        const int32_t ended = __shfl_sync(kFullMask, key, max(i - 1, 0));
        const bool begins_here = begins >> i & 1;
        if (begins_here && i > begin) store(ended);
        if (begins_here) sum = from[i];
#pragma unroll
        for (int k = 0; k < kSize; ++k)
            if (i >= begin && i < count) sum[k] += to_float(ahead[i][k]);
    }
    const int32_t last = __shfl_sync(kFullMask, key, count - 1);
    if (count == kWarpSize) add_rest_of_run<E, kSize>(sum, x + c, C, keys, rows, N, last, first + kWarpSize);
    store(last);
}

/// d_wpe = or += the rows of each position, in order. A block to a piece of the columns of one position.
/// Bytes: reads d_out; writes 4 for each element of d_wpe, and reads them where it adds. GPT-2 124M, 32 x 1024, at 3.0
/// TB/s: 0.018 ms.
template <typename E, int kSize>
__global__ void sum_by_position_kernel(float* d_wpe, bool adds, const E* d_out, int64_t N, int64_t T, int64_t C,
                                       int pieces) {
    const int64_t position = blockIdx.x / pieces;
    const int64_t c = (static_cast<int64_t>(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * kSize;
    if (c >= C) return;
    Group<float, kSize> sum = {};
    if (adds) sum = load_group<kSize>(d_wpe + position * C + c);
    const int64_t count = (N - position + T - 1) / T;
    for (int64_t i = 0; i < count; i += kRowsAhead) {
        Group<E, kSize> ahead[kRowsAhead];
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j)
            ahead[j] = load_group<kSize>(d_out + (position + min(i + j, count - 1) * T) * C + c);
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j)
#pragma unroll
            for (int k = 0; k < kSize; ++k)
                if (i + j < count) sum[k] += to_float(ahead[j][k]);
    }
    store_group(d_wpe + position * C + c, sum);
}

__global__ void positions_kernel(int64_t N, int32_t* positions, const int32_t* documents, int64_t T) {
    const int64_t n = group_begin<1>();
    if (n < N) positions[n] = static_cast<int32_t>(n % T) - documents[n];
}

int64_t tiles_of(int64_t N) { return ceil_div(N, kTile); }
int64_t aligned_bytes(int64_t count) { return round_up(count * size_of(DType::I32), kTensorAlignment); }

/// Parts of the workspace.
struct SortBuffers {
    int32_t* keys[2];
    int32_t* rows[2];
    int32_t* totals;     ///< (kDigits)
    int32_t* counts;     ///< (kDigits, tiles)
    int32_t* positions;  ///< (N); only with documents.

    SortBuffers(Tensor workspace, int64_t N) {
        auto* next = static_cast<char*>(workspace.data);
        const auto take = [&](int64_t count) {
            return reinterpret_cast<int32_t*>(std::exchange(next, next + aligned_bytes(count)));
        };
        for (int32_t** buffer : {&keys[0], &keys[1], &rows[0], &rows[1]}) *buffer = take(N);
        totals = take(kDigits);
        counts = take(kDigits * tiles_of(N));
        positions = reinterpret_cast<int32_t*>(next);
    }
};

/// Sorts rows by their keys, which are below `end`.
struct SortedRows {
    const int32_t* keys;
    const int32_t* rows = nullptr;

    SortedRows(cudaStream_t stream, const int32_t* keys_in, int64_t N, int64_t end, const SortBuffers& to)
        : keys(keys_in) {
        const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(end - 1))));
        const dim3 tiles = blocks_of(tiles_of(N));
        for (int shift = 0, side = 0; shift < bits; shift += kDigitBits, side ^= 1) {
            launch(count_digits_kernel, tiles, kCountThreads, 0, stream, to.counts, keys, N, shift);
            launch(scan_kernel, kDigits / kScanWarps, kScanWarps * kWarpSize, 0, stream, to.totals, to.counts,
                   tiles_of(N));
            launch(scatter_kernel, tiles, kWarpSize, 0, stream, to.keys[side], to.rows[side], keys, rows, to.totals,
                   to.counts, N, shift);
            keys = to.keys[side];
            rows = to.rows[side];
        }
    }
};

template <typename E>
void add_runs(cudaStream_t stream, Tensor table, Tensor x, const SortedRows& sorted) {
    constexpr int kSize = kRunBytes / sizeof(E);
    const int64_t N = x.shape[0], C = x.shape[1];
    const bool whole = C % kSize == 0 && all_aligned({table.data, x.data});
    const int64_t strips = ceil_div(C, kWarpSize * (whole ? kSize : 1));
    launch(whole ? add_runs_kernel<E, kSize> : add_runs_kernel<E, 1>,
           blocks_of(ceil_div(ceil_div(N, kWarpSize) * strips, kRunWarps)), kRunWarps * kWarpSize, 0, stream,
           elements_of<float>(table), elements_of<const E>(x), sorted.keys, sorted.rows, N, C, strips);
}

template <typename E>
void embed(cudaStream_t stream, Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, FirstPosition first,
           Tensor documents) {
    constexpr int kSize = Pack<E>::kSize;
    const int64_t N = out.shape[0], C = out.shape[1];
    const bool whole = C % kSize == 0 && all_aligned({out.data, wte.data, wpe.data});
    const RowPieces cut(C, whole ? kSize : 1);
    launch(whole ? embed_kernel<E, kSize> : embed_kernel<E, 1>, blocks_of(N * cut.pieces), cut.threads, 0, stream,
           elements_of<E>(out), elements_of<const int32_t>(tokens), elements_of<const E>(wte),
           elements_of<const E>(wpe), T, position_of(first), elements_of<const int32_t>(documents), C,
           static_cast<int>(cut.pieces));
}

template <typename E>
void embed_backward(cudaStream_t stream, Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T,
                    Tensor documents, Tensor workspace) {
    const int64_t N = d_out.shape[0], C = d_out.shape[1], positions = std::min(T, N);
    const SortBuffers buffers(workspace, N);
    if (d_wte) {
        const auto* const ids = elements_of<const int32_t>(tokens);
        add_runs<E>(stream, d_wte, d_out, SortedRows(stream, ids, N, d_wte.shape[0], buffers));
    }
    if (d_wpe && documents) {
        launch(positions_kernel, blocks_of(ceil_div(N, kElementThreads)), kElementThreads, 0, stream, N,
               buffers.positions, elements_of<const int32_t>(documents), T);
        if (!adds) {
            const auto bytes = static_cast<size_t>(positions * C * size_of(DType::F32));
            CUDA_CHECK(cudaMemsetAsync(d_wpe.data, 0, bytes, stream));
        }
        add_runs<E>(stream, d_wpe, d_out, SortedRows(stream, buffers.positions, N, T, buffers));
    } else if (d_wpe) {
        constexpr int kSize = kWalkGroup;
        const bool whole = C % kSize == 0 && all_aligned({d_wpe.data, d_out.data});
        const RowPieces cut(C, whole ? kSize : 1);
        launch(whole ? sum_by_position_kernel<E, kSize> : sum_by_position_kernel<E, 1>,
               blocks_of(positions * cut.pieces), cut.threads, 0, stream, elements_of<float>(d_wpe), adds,
               elements_of<const E>(d_out), N, T, C, static_cast<int>(cut.pieces));
    }
}

}  // namespace embedding_kernels

void CudaBackend::embedding_forward(Tensor out, Tensor tokens, Tensor wte, Tensor wpe, int64_t T, FirstPosition first,
                                    Tensor documents) {
    CHECK(tokens.count() == out.shape[0] && wte.shape[1] == out.shape[1], tokens.count(), wte.shape[1], out.shape[1]);
    CHECK(!documents || documents.count() == tokens.count(), documents.count(), tokens.count());
    CHECK(!wpe || first.offset + std::min(T, out.shape[0]) <= wpe.shape[0], first.offset, T, wpe.shape[0]);
    out.dtype == DType::BF16 ? embed<bf16>(stream_, out, tokens, wte, wpe, T, first, documents)
                             : embed<float>(stream_, out, tokens, wte, wpe, T, first, documents);
}

void CudaBackend::embedding_backward(Tensor d_wte, Tensor d_wpe, bool adds, Tensor d_out, Tensor tokens, int64_t T,
                                     Tensor documents, Tensor workspace) {
    const int64_t N = d_out.shape[0], C = d_out.shape[1];
    CHECK(!d_wte || (tokens.count() == N && d_wte.shape[1] == C), tokens.count(), N, d_wte.shape[1], C);
    CHECK(!d_wpe || std::min(T, N) <= d_wpe.shape[0], T, d_wpe.shape[0]);
    CHECK(N <= INT32_MAX, N);  // Rows are sorted as int32.
    const bool sorts = d_wte || (d_wpe && documents);
    CHECK(!sorts || workspace.bytes() >= embedding_backward_workspace(N, C, 0, static_cast<bool>(documents)),
          workspace.bytes());
    d_out.dtype == DType::BF16
        ? embed_backward<bf16>(stream_, d_wte, d_wpe, adds, d_out, tokens, T, documents, workspace)
        : embed_backward<float>(stream_, d_wte, d_wpe, adds, d_out, tokens, T, documents, workspace);
}

int64_t CudaBackend::embedding_backward_workspace(int64_t N, int64_t, int64_t, bool has_documents) const {
    return (has_documents ? 5 : 4) * aligned_bytes(N) + aligned_bytes(kDigits) + aligned_bytes(kDigits * tiles_of(N));
}

}  // namespace llmc::cuda
