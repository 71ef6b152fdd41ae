// Token and position embeddings. Forward: a block to a piece of a row. Backward: a token's rows must add in row order,
// so rows are first sorted by token, then the first row of every token gets blocks that walk all its rows, a strip of
// columns each. A position's rows are walked in the same way: they are one in every sequence, or, where sequences hold
// several documents, are sorted too. Every element of a gradient has one owner.
//
// The sort is a stable radix sort, 8 bits of the token at a time: each tile of rows counts its digits, one block turns
// the counts into places, and one warp per tile puts its rows there, 32 at a time in order (Merrill & Grimshaw 2011).
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"

#include <algorithm>
#include <bit>
#include <utility>

namespace llmc::cuda {
namespace {

constexpr int kDigitBits = 8;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kTile = 512;  ///< Rows of a tile.
constexpr int kScanThreads = 1024;
constexpr int kWalkGroup = 4;   ///< Columns of a thread that walks rows; few, so that it can
constexpr int kRowsAhead = 16;  ///< load so many rows together.

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

/// Replaces every count by the sum of those before it. One block.
__global__ void scan_kernel(int32_t* counts, int64_t count) {
    SHARED(int32_t[kScanThreads / kWarpSize], warp_sums);
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    int32_t before = 0;  // Of all rounds so far.
    for (int64_t begin = 0; begin < count; begin += kScanThreads) {
        const int64_t i = begin + threadIdx.x;
        const int32_t own = i < count ? counts[i] : 0;
        int32_t sum = own;
#pragma unroll
        for (int offset = 1; offset < kWarpSize; offset *= 2) {
            const int32_t other = __shfl_up_sync(kFullMask, sum, offset);
            if (lane >= offset) sum += other;
        }
        if (lane == kWarpSize - 1) warp_sums[warp] = sum;
        __syncthreads();
        int32_t before_warp = 0, all = 0;
        for (int other = 0; other < kScanThreads / kWarpSize; ++other) {
            if (other == warp) before_warp = all;
            all += warp_sums[other];
        }
        if (i < count) counts[i] = before + before_warp + sum - own;
        before += all;
        __syncthreads();
    }
}

/// Puts the rows of a tile, and their keys, at their places. `rows` is null in the first pass: row n is n. One warp.
__global__ void scatter_kernel(int32_t* sorted_keys, int32_t* sorted_rows, const int32_t* keys, const int32_t* rows,
                               const int32_t* places, int64_t N, int shift) {
    SHARED(int32_t[kDigits], next);
    const int lane = threadIdx.x;
    for (int digit = lane; digit < kDigits; digit += kWarpSize)
        next[digit] = places[static_cast<int64_t>(digit) * gridDim.x + blockIdx.x];
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile + lane;
    int32_t key[kTile / kWarpSize];
#pragma unroll
    for (int i = 0; i < kTile / kWarpSize; ++i) key[i] = first + i * kWarpSize < N ? keys[first + i * kWarpSize] : 0;
#pragma unroll
    for (int i = 0; i < kTile / kWarpSize; ++i) {
        const int64_t n = first + i * kWarpSize;
        const int digit = key[i] >> shift & (kDigits - 1);
        unsigned peers = __ballot_sync(kFullMask, n < N);  // Lanes with the same digit.
#pragma unroll
        for (int bit = 0; bit < kDigitBits; ++bit) {
            const unsigned ones = __ballot_sync(kFullMask, digit >> bit & 1);
            peers &= (digit >> bit & 1) ? ones : ~ones;
        }
        const int rank = __popc(peers & ((1u << lane) - 1));
        __syncwarp();
        const int32_t place = next[digit] + rank;
        __syncwarp();
        if (n < N) {
            if (rank == 0) next[digit] = place + __popc(peers);
            sorted_keys[place] = key[i];
            sorted_rows[place] = rows ? rows[n] : static_cast<int32_t>(n);
        }
    }
}

/// sum[c ..] = or += the rows row(0) .. row(count - 1) of x, in this order.
template <typename E, int kSize, typename Row>
__device__ __forceinline__ void add_rows(float* sum, bool adds, const E* x, int64_t C, int64_t c, int64_t count,
                                         const Row& row) {
    float values[kSize] = {};
    if (adds) {
#pragma unroll
        for (int k = 0; k < kSize; ++k) values[k] = sum[c + k];
    }
    for (int64_t i = 0; i < count; i += kRowsAhead) {
        Group<E, kSize> ahead[kRowsAhead];
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j)
            if (i + j < count) ahead[j] = load_group<kSize>(x + row(i + j) * C + c);
#pragma unroll
        for (int j = 0; j < kRowsAhead; ++j)
#pragma unroll
            for (int k = 0; k < kSize; ++k)
                if (i + j < count) values[k] += to_float(ahead[j][k]);
    }
    store_floats(sum + c, values);
}

/// A block to a piece of the columns of place i in the sorted rows, if a token's rows begin there.
/// Bytes: reads d_out; reads and writes 4 C for each token that occurs.
template <typename E, int kSize>
__global__ void add_by_token_kernel(float* d_wte, const E* d_out, const int32_t* keys, const int32_t* rows, int64_t N,
                                    int64_t C, int pieces) {
    const int64_t first = blockIdx.x / pieces;
    const int64_t c = (static_cast<int64_t>(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * kSize;
    const int32_t token = keys[first];
    if (c >= C || (first > 0 && keys[first - 1] == token)) return;
    int64_t low = first + 1, high = N;  // The end of the token's rows lies in [low, high].
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (keys[middle] == token)
            low = middle + 1;
        else
            high = middle;
    }
    add_rows<E, kSize>(d_wte + token * C, true, d_out, C, c, low - first,
                       [&](int64_t i) { return static_cast<int64_t>(rows[first + i]); });
}

/// A block to a piece of the columns of one position.
template <typename E, int kSize>
__global__ void sum_by_position_kernel(float* d_wpe, bool adds, const E* d_out, int64_t N, int64_t T, int64_t C,
                                       int pieces) {
    const int64_t position = blockIdx.x / pieces;
    const int64_t c = (static_cast<int64_t>(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * kSize;
    if (c >= C) return;
    add_rows<E, kSize>(d_wpe + position * C, adds, d_out, C, c, (N - position + T - 1) / T,
                       [&](int64_t i) { return position + i * T; });
}

__global__ void positions_kernel(int64_t N, int32_t* positions, const int32_t* documents, int64_t T) {
    const int64_t n = group_begin<1>();
    if (n < N) positions[n] = static_cast<int32_t>(n % T) - documents[n];
}

/// Where a key is, or would be, in sorted keys.
__device__ __forceinline__ int64_t lower_bound(const int32_t* keys, int64_t N, int64_t key) {
    int64_t low = 0, high = N;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/// The same of rows sorted by their position in a document.
template <typename E, int kSize>
__global__ void sum_by_sorted_position_kernel(float* d_wpe, bool adds, const E* d_out, const int32_t* keys,
                                              const int32_t* rows, int64_t N, int64_t C, int pieces) {
    const int64_t position = blockIdx.x / pieces;
    const int64_t c = (static_cast<int64_t>(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * kSize;
    if (c >= C) return;
    const int64_t first = lower_bound(keys, N, position), end = lower_bound(keys, N, position + 1);
    add_rows<E, kSize>(d_wpe + position * C, adds, d_out, C, c, end - first,
                       [&](int64_t i) { return static_cast<int64_t>(rows[first + i]); });
}

/// Parts of the workspace.
struct SortBuffers {
    int32_t* keys[2];
    int32_t* rows[2];
    int32_t* counts;  ///< (kDigits, tiles)
};

int64_t tiles_of(int64_t N) { return ceil_div(N, kTile); }
int64_t aligned_bytes(int64_t count) { return round_up(count * size_of(DType::I32), kTensorAlignment); }

/// Where the positions in documents are behind what is sorted with.
int64_t positions_offset(int64_t N) {
    return 4 * aligned_bytes(N) + round_up(kDigits * tiles_of(N) * size_of(DType::I32), kTensorAlignment);
}

/// Returns the sorted keys, which are tokens or positions below Vp, and their rows.
std::pair<const int32_t*, const int32_t*> sort_by_token(cudaStream_t stream, const int32_t* tokens, int64_t N,
                                                        int64_t Vp, Tensor workspace) {
    const auto part = [&](int64_t i) {
        return reinterpret_cast<int32_t*>(static_cast<char*>(workspace.data) + i * aligned_bytes(N));
    };
    const SortBuffers to = {{part(0), part(1)}, {part(2), part(3)}, part(4)};
    const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(Vp - 1))));
    const int32_t *keys = tokens, *rows = nullptr;
    for (int shift = 0, side = 0; shift < bits; shift += kDigitBits, side ^= 1) {
        const dim3 tiles = blocks_of(tiles_of(N));
        launch(count_digits_kernel, tiles, kDigits, 0, stream, to.counts, keys, N, shift);
        launch(scan_kernel, 1, kScanThreads, 0, stream, to.counts, kDigits * tiles_of(N));
        launch(scatter_kernel, tiles, kWarpSize, 0, stream, to.keys[side], to.rows[side], keys, rows, to.counts, N,
               shift);
        keys = to.keys[side];
        rows = to.rows[side];
    }
    return {keys, rows};
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
    constexpr int kSize = kWalkGroup;
    const int64_t N = d_out.shape[0], C = d_out.shape[1];
    const bool whole = C % kSize == 0 && all_aligned({d_wte.data, d_wpe.data, d_out.data});
    const RowPieces cut(C, whole ? kSize : 1);
    const int pieces = static_cast<int>(cut.pieces);
    const E* const rows_in = elements_of<const E>(d_out);
    if (d_wte) {
        const int32_t* const ids = elements_of<const int32_t>(tokens);
        const auto [keys, rows] = sort_by_token(stream, ids, N, d_wte.shape[0], workspace);
        launch(whole ? add_by_token_kernel<E, kSize> : add_by_token_kernel<E, 1>, blocks_of(N * cut.pieces),
               cut.threads, 0, stream, elements_of<float>(d_wte), rows_in, keys, rows, N, C, pieces);
    }
    if (d_wpe && documents) {
        auto* const positions = reinterpret_cast<int32_t*>(static_cast<char*>(workspace.data) + positions_offset(N));
        launch(positions_kernel, blocks_of(ceil_div(N, kElementThreads)), kElementThreads, 0, stream, N, positions,
               elements_of<const int32_t>(documents), T);
        const auto [keys, rows] = sort_by_token(stream, positions, N, T, workspace);
        launch(whole ? sum_by_sorted_position_kernel<E, kSize> : sum_by_sorted_position_kernel<E, 1>,
               blocks_of(std::min(T, N) * cut.pieces), cut.threads, 0, stream, elements_of<float>(d_wpe), adds, rows_in,
               keys, rows, N, C, pieces);
    } else if (d_wpe) {
        launch(whole ? sum_by_position_kernel<E, kSize> : sum_by_position_kernel<E, 1>,
               blocks_of(std::min(T, N) * cut.pieces), cut.threads, 0, stream, elements_of<float>(d_wpe), adds, rows_in,
               N, T, C, pieces);
    }
}

}  // namespace

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
    if (has_documents) return positions_offset(N) + aligned_bytes(N);
    return 4 * aligned_bytes(N) + kDigits * tiles_of(N) * size_of(DType::I32);
}

}  // namespace llmc::cuda
