// Causal attention, forward, on Hopper's instructions (Shah et al. 2024, "FlashAttention-3", for the shape of it): as
// attention.cu, with warpgroups that specialise, wgmma and bulk copies.
//
// A block has 64 queries of a head for each consumer, three with heads of 64 channels, two with 128, and walks the keys
// in tiles of 128. A consumer issues the scores of the next tile and then this tile's product with the values, and
// works on the softmax of the former while the latter runs; probabilities go from one product's sums to the next one's
// operand in registers. The longest rows of all heads start first.
#include "llmc/backend/cuda/attention_hopper.cuh"
#include "llmc/backend/cuda/attention_hopper.h"
#include "llmc/backend/cuda/device.h"
#include "llmc/base/units.h"

#include <cstdint>

namespace llmc::cuda {

inline namespace attention_forward_hopper_kernels {

template <int kHD>
struct Tiling {
    static constexpr int kConsumers = kHD == 64 ? 3 : 2;
    static constexpr int kQueries = kConsumers * kConsumerRows, kKeys = 128;
    static constexpr int kThreads = (1 + kConsumers) * kWarpgroupSize;
    // Of a thread, by role; the block starts with 65536 / kThreads, in eights, for each.
    static constexpr int kProducerRegisters = kHD == 64 ? 32 : 24, kConsumerRegisters = kHD == 64 ? 160 : 240;
    static constexpr int kEntry = 65536 / kThreads / 8 * 8;
    static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= (1 + kConsumers) * kEntry, "the pool");
    using Queries = SwizzledTile<kQueries, kHD>;
    using Keys = SwizzledTile<kKeys, kHD>;
    static constexpr int kBytes = Queries::kBytes + 2 * kStages * Keys::kBytes;
    static_assert(kBytes <= 226 << 10);
};

struct Barriers {
    uint64_t queries, full_keys[kStages], empty_keys[kStages], full_values[kStages], empty_values[kStages];
};

/// A thread's two rows of the online softmax, as in attention.cu.
struct SoftmaxRows {
    float max[2], sum[2];
};
constexpr float kNoScore = -0x1p126f;

/// Turns a tile's scores into probabilities. True, for the whole warp, if what came before must be multiplied by
/// `correction`: only if the maximum grew by more than a factor of 2^8.
__device__ __forceinline__ bool online_softmax(float (&scores)[64], SoftmaxRows& rows, float (&correction)[2],
                                               float scale_log2) {
    constexpr float kLag = 8;
    float tile_max[2];
    bool raise = false;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float largest = -INFINITY;
#pragma unroll
        for (int j = 0; j < 16; ++j) largest = fmaxf(largest, fmaxf(scores[4 * j + 2 * h], scores[4 * j + 2 * h + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
        tile_max[h] = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
        raise = raise || (tile_max[h] - rows.max[h]) * scale_log2 > kLag;
    }
    const bool raised = __any_sync(kFullMask, raise);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float max = raised ? fmaxf(rows.max[h], tile_max[h]) : rows.max[h];
        correction[h] = exp2_approx((rows.max[h] - max) * scale_log2);
        rows.max[h] = max;
        rows.sum[h] *= correction[h];
        const float offset = -max * scale_log2;
#pragma unroll
        for (int j = 0; j < 16; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& score = scores[4 * j + 2 * h + e];
                score = exp2_approx(fmaf(score, scale_log2, offset));
                rows.sum[h] += score;
            }
    }
    return raised;
}

/// Which keys a consumer's queries see.
template <bool kBounded>
struct Visible {
    int query;          ///< The thread's first row's.
    int first_seen[2];  ///< By row, if kBounded.

    __device__ __forceinline__ void hide(float (&scores)[64], int first_key) const {
        const FragmentPlace place;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int behind = query + 8 * h - first_key - place.column;
            const int seen = kBounded ? query + 8 * h - first_seen[h] : INT32_MAX;  // Keys, but for one.
#pragma unroll
            for (int j = 0; j < 16; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    if (static_cast<unsigned>(behind - 8 * j - e) > static_cast<unsigned>(seen))
                        scores[4 * j + 2 * h + e] = -INFINITY;
        }
    }
};

template <int kHD, bool kBounded>
class Consumer {
    using T_ = Tiling<kHD>;

  public:
    __device__ __forceinline__ Consumer(const AttentionSizes& sizes, Barriers& barriers,
                                        const typename T_::Queries& queries, char* keys, char* values, int b, int h,
                                        int first_query)
        : sizes_(sizes), barriers_(barriers), queries_(queries), keys_(keys), values_(values), b_(b), h_(h) {
        tile_row_ = (static_cast<int>(threadIdx.x) / kWarpgroupSize - 1) * kConsumerRows;
        first_query_ = first_query + tile_row_;
        visible_.query = first_query_ + FragmentPlace().row;
        for (int half = 0; kBounded && half < 2; ++half)
            visible_.first_seen[half] = first_seen(visible_.query + 8 * half);
    }

    /// Keys from `begin` on.
    __device__ __forceinline__ void run(bf16* out, float* lse, int begin) {
        const int end = min(sizes_.T, first_query_ + kConsumerRows);
        const float scale_log2 = sizes_.scale * kLog2e;
        float sums[kHD / 2], scores[64];
        uint32_t p[8][4];
        SoftmaxRows rows = {{kNoScore, kNoScore}, {0, 0}};
        float correction[2];
        clear(sums);
        barrier_wait(&barriers_.queries, 0);
        int first_key = begin, tile = skip_unseen(&first_key, end);
        barrier_wait(&barriers_.full_keys[tile % kStages], tile / kStages % 2);
        wgmma_fence(scores);
        issue_scores(scores, tile % kStages);
        wgmma_wait<0>(scores);
        release(barriers_.empty_keys[tile % kStages]);
        hide(scores, first_key);
        online_softmax(scores, rows, correction, scale_log2);
        pack(p, scores);
        ++tile;
#pragma unroll 1
        for (first_key += T_::kKeys; first_key < end; first_key += T_::kKeys, ++tile) {
            const int stage = tile % kStages, last = (tile - 1) % kStages;
            barrier_wait(&barriers_.full_keys[stage], tile / kStages % 2);
            wgmma_fence(scores);
            issue_scores(scores, stage);
            barrier_wait(&barriers_.full_values[last], (tile - 1) / kStages % 2);
            wgmma_fence(sums, p);
            issue_values(sums, p, last);
            wgmma_wait<1>(scores);
            release(barriers_.empty_keys[stage]);
            hide(scores, first_key);
            const bool raised = online_softmax(scores, rows, correction, scale_log2);
            wgmma_wait<0>(sums, p);
            release(barriers_.empty_values[last]);
            if (raised) multiply_rows(sums, correction);
            pack(p, scores);
        }
        const int last = (tile - 1) % kStages;
        barrier_wait(&barriers_.full_values[last], (tile - 1) / kStages % 2);
        wgmma_fence(sums, p);
        issue_values(sums, p, last);
        wgmma_wait<0>(sums, p);
        store(out, lse, sums, rows);
    }

  private:
    /// Passes tiles that none of the consumer's queries sees, whose values it must not touch (they may be NaN), and
    /// returns how many. Those behind `end` need no passing: there is one at most, whose stage nobody waits for.
    __device__ __forceinline__ int skip_unseen(int* first_key, int end) const {
        int tile = 0;
        if (!kBounded) return tile;
        const int seen = min(end - 1, first_seen(first_query_)) / T_::kKeys * T_::kKeys;
#pragma unroll 1
        for (; *first_key < seen; *first_key += T_::kKeys, ++tile) {
            const int stage = tile % kStages, parity = tile / kStages % 2;
            barrier_wait(&barriers_.full_keys[stage], parity);
            barrier_wait(&barriers_.full_values[stage], parity);
            // All have seen this phase before one of them lets the next begin; elsewhere the products see to that.
            named_barrier_sync(warpgroup(), kWarpgroupSize);
            release(barriers_.empty_keys[stage]);
            release(barriers_.empty_values[stage]);
        }
        return tile;
    }
    __device__ __forceinline__ int first_seen(int query) const { return first_key_seen(sizes_, b_, query); }
    __device__ __forceinline__ void issue_scores(float (&scores)[64], int stage) const {
        const typename T_::Keys keys{keys_ + stage * T_::Keys::kBytes};
#pragma unroll
        for (int step = 0; step < kHD / 16; ++step)
            wgmma<128, false, false>(scores, queries_.k_major(tile_row_, step), keys.k_major(0, step), step > 0);
        wgmma_commit();
    }
    __device__ __forceinline__ void issue_values(float (&sums)[kHD / 2], const uint32_t (&p)[8][4], int stage) const {
        const typename T_::Keys values{values_ + stage * T_::Keys::kBytes};
#pragma unroll
        for (int step = 0; step < 8; ++step) wgmma<kHD, true>(sums, p[step], values.mn_major(step), true);
        wgmma_commit();
    }
    __device__ __forceinline__ void release(uint64_t& empty) const {
        if (threadIdx.x % kWarpgroupSize == 0) barrier_arrive(&empty);
    }
    __device__ __forceinline__ void hide(float (&scores)[64], int first_key) const {
        if (kBounded || first_key + T_::kKeys > first_query_ + 1) visible_.hide(scores, first_key);
    }
    __device__ __forceinline__ static void pack(uint32_t (&p)[8][4], const float (&scores)[64]) {
#pragma unroll
        for (int step = 0; step < 8; ++step) pack_fragment(p[step], scores, step);
    }
    __device__ __forceinline__ static void multiply_rows(float (&sums)[kHD / 2], const float (&factor)[2]) {
#pragma unroll
        for (int i = 0; i < kHD / 2; ++i) sums[i] *= factor[i / 2 % 2];
    }
    __device__ __forceinline__ void store(bf16* out, float* lse, const float (&sums)[kHD / 2],
                                          const SoftmaxRows& rows) const {
        float inverse[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float sum = rows.sum[h] + __shfl_xor_sync(kFullMask, rows.sum[h], 1);
            sum += __shfl_xor_sync(kFullMask, sum, 2);
            inverse[h] = 1.0f / sum;
            const int query = visible_.query + 8 * h;
            if (threadIdx.x % 4 == 0 && query < sizes_.T)
                lse[(int64_t{b_} * sizes_.T + query) * sizes_.NH + h_] = rows.max[h] * sizes_.scale + logf(sum);
        }
        store_consumer_rows(sizes_.out(out, b_, h_), first_query_, sizes_.T, queries_, tile_row_, sums, inverse);
    }

    const AttentionSizes& sizes_;
    Barriers& barriers_;
    typename T_::Queries queries_;
    char *keys_, *values_;
    int b_, h_, tile_row_, first_query_;
    Visible<kBounded> visible_;
};

/// By one thread: all tiles of the block, as stages become free.
template <int kHD>
__device__ __forceinline__ void produce(const CUtensorMap* map, const AttentionSizes& sizes, Barriers& barriers,
                                        const typename Tiling<kHD>::Queries& queries, char* keys, char* values, int b,
                                        int h, int first_query, int begin) {
    using Keys = typename Tiling<kHD>::Keys;
    barrier_arrive_expect(&barriers.queries, Tiling<kHD>::Queries::kBytes);
    queries.load(map, &barriers.queries, h, first_query, b);
    const int end = min(sizes.T, first_query + Tiling<kHD>::kQueries), key_head = sizes.NH + sizes.kv_head(h);
    int tile = 0;
#pragma unroll 1
    for (int first_key = begin; first_key < end; first_key += Tiling<kHD>::kKeys, ++tile) {
        const int stage = tile % kStages, parity = tile / kStages % 2;
        barrier_wait(&barriers.empty_keys[stage], parity ^ 1);
        barrier_arrive_expect(&barriers.full_keys[stage], Keys::kBytes);
        Keys{keys + stage * Keys::kBytes}.load(map, &barriers.full_keys[stage], key_head, first_key, b);
        barrier_wait(&barriers.empty_values[stage], parity ^ 1);
        barrier_arrive_expect(&barriers.full_values[stage], Keys::kBytes);
        Keys{values + stage * Keys::kBytes}.load(map, &barriers.full_values[stage], key_head + sizes.NKV, first_key, b);
    }
}

template <int kHD, bool kBounded>
__global__ void __launch_bounds__(Tiling<kHD>::kThreads, 1)
    attention_forward_hopper_kernel(bf16* out, float* lse, const __grid_constant__ CUtensorMap map,
                                    const __grid_constant__ AttentionSizes sizes) {
    using T_ = Tiling<kHD>;
    DYNAMIC_TILES(char, tiles);
    SHARED(Barriers, barriers);
    const typename T_::Queries queries{tiles};
    char* const keys = tiles + T_::Queries::kBytes;
    char* const values = keys + kStages * T_::Keys::kBytes;
    const int first_query = static_cast<int>(gridDim.y - 1 - blockIdx.y) * T_::kQueries;
    const int h = static_cast<int>(blockIdx.x) % sizes.NH, b = static_cast<int>(blockIdx.x) / sizes.NH;
    if (threadIdx.x == 0) {
        barrier_init(&barriers.queries, 1);
        for (int stage = 0; stage < kStages; ++stage) {
            barrier_init(&barriers.full_keys[stage], 1);
            barrier_init(&barriers.full_values[stage], 1);
            barrier_init(&barriers.empty_keys[stage], T_::kConsumers);
            barrier_init(&barriers.empty_values[stage], T_::kConsumers);
        }
        barrier_fence_init();
    }
    __syncthreads();
    const int begin = kBounded ? first_key_seen(sizes, b, first_query) / T_::kKeys * T_::kKeys : 0;
    if (warpgroup() == 0) {
        give_registers<T_::kProducerRegisters>();
        if (threadIdx.x == 0) produce<kHD>(&map, sizes, barriers, queries, keys, values, b, h, first_query, begin);
    } else {
        take_registers<T_::kConsumerRegisters>();
        Consumer<kHD, kBounded>(sizes, barriers, queries, keys, values, b, h, first_query).run(out, lse, begin);
    }
}

template <int kHD>
void start(bf16* out, float* lse, const bf16* qkv, const AttentionSizes& sizes, int B, cudaStream_t stream) {
    const dim3 grid = blocks_of(int64_t{sizes.NH} * B, ceil_div(sizes.T, Tiling<kHD>::kQueries));
    launch(sight_of(sizes) == Sight::Whole ? attention_forward_hopper_kernel<kHD, false>
                                           : attention_forward_hopper_kernel<kHD, true>,
           grid, Tiling<kHD>::kThreads, Tiling<kHD>::kBytes, stream, out, lse,
           head_map(qkv, kHD, sizes.qkv_columns, sizes.T, B), sizes);
}

}  // namespace attention_forward_hopper_kernels

bool can_load_hopper_kernels() {
    cudaFuncAttributes attributes = {};
    const auto* const kernel = reinterpret_cast<const void*>(attention_forward_hopper_kernel<64, false>);
    if (cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess) return true;
    cudaGetLastError();  // It is answered.
    return false;
}

void attention_forward_hopper(bf16* out, float* lse, const bf16* qkv, const AttentionSizes& sizes, int64_t B,
                              cudaStream_t stream) {
    (sizes.HD == 64 ? start<64> : start<128>)(out, lse, qkv, sizes, static_cast<int>(B), stream);
}

}  // namespace llmc::cuda
