// Causal attention, backward, on Hopper's instructions: two kernels with 7 products, each gradient with one owner, as
// in attention_backward.cu, which has the formulas and gathers the rows' statistics.
//
// For keys: a block has 128 keys, 64 a consumer, and walks the queries that see them, 64 at a time, of all heads of the
// group. Scores come transposed (keys by queries), so that P^T and dS^T go from sums to operands in registers; the same
// tiles of queries and dO are read once along the channels and once along the queries. For queries: 128 queries walk
// their keys in tiles of 128. Nothing is passed between threads through shared memory.
#include "llmc/backend/cuda/attention_hopper.cuh"
#include "llmc/backend/cuda/attention_hopper.h"
#include "llmc/base/units.h"

#include <cstdint>

namespace llmc::cuda {

inline namespace attention_backward_hopper_kernels {

constexpr int kConsumers = 2, kThreads = (1 + kConsumers) * kWarpgroupSize;
constexpr int kOwnRows = kConsumers * kConsumerRows;  ///< Of a block.
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= (1 + kConsumers) * 168, "the pool");

struct Barriers {
    uint64_t own, full[kStages], empty[kStages];
};

/// By all threads of the block: `own` and `full` for one arrival with bytes, `empty` for so many.
__device__ __forceinline__ void init(Barriers& barriers, int empty_arrivals) {
    if (threadIdx.x == 0) {
        barrier_init(&barriers.own, 1);
        for (int stage = 0; stage < kStages; ++stage) {
            barrier_init(&barriers.full[stage], 1);
            barrier_init(&barriers.empty[stage], empty_arrivals);
        }
        barrier_fence_init();
    }
    __syncthreads();
}

__device__ __forceinline__ int own_row() { return (warpgroup() - 1) * kConsumerRows; }

// ---- keys --------------------------------------------------------------------------------------------

template <int kHD>
struct KeyTiling {
    static constexpr int kQueries = 64;
    using Own = SwizzledTile<kOwnRows, kHD>;
    using Queries = SwizzledTile<kQueries, kHD>;
    static constexpr int kRowsBytes = kQueries * sizeof(float2);
    static constexpr int kStageBytes = 2 * Queries::kBytes;  // Queries and dO; the statistics lie behind all stages.
    static constexpr int kArrived = kStageBytes + kRowsBytes;
    static constexpr int kBytes = 2 * Own::kBytes + kStages * (kStageBytes + kRowsBytes);
    static_assert(kBytes <= 226 << 10);
    /// Products of 64 columns are bound by what they read of shared memory, unless A is in registers; with more
    /// channels there are none left.
    static constexpr bool kOwnInRegisters = kHD == 64;
};

/// The block's shared memory, and what it walks.
template <int kHD, bool kDocuments>
struct KeyBlock {
    using T_ = KeyTiling<kHD>;
    const AttentionSizes& sizes;
    const HeadGradients<bf16>& gradients;
    Barriers& barriers;
    char* tiles;
    int b, kv_head, first_key, end;

    __device__ __forceinline__ KeyBlock(const AttentionSizes& all, const HeadGradients<bf16>& some, Barriers& shared,
                                        char* memory)
        : sizes(all), gradients(some), barriers(shared), tiles(memory) {
        b = static_cast<int>(blockIdx.x) / gradients.count;
        kv_head = gradients.first + static_cast<int>(blockIdx.x) % gradients.count;
        first_key = static_cast<int>(blockIdx.y) * kOwnRows;
        end = kDocuments ? sizes.end_seeing_in_document(b, first_key + kOwnRows - 1)
                         : sizes.end_seeing(first_key + kOwnRows - 1);
    }
    __device__ __forceinline__ typename T_::Own keys() const { return {tiles}; }
    __device__ __forceinline__ typename T_::Own values() const { return {tiles + T_::Own::kBytes}; }
    __device__ __forceinline__ typename T_::Queries queries(int stage) const {
        return {tiles + 2 * T_::Own::kBytes + stage * T_::kStageBytes};
    }
    __device__ __forceinline__ typename T_::Queries d_outs(int stage) const {
        return {queries(stage).data + T_::Queries::kBytes};
    }
    __device__ __forceinline__ float2* rows(int stage) const {
        char* const behind = tiles + 2 * T_::Own::kBytes + kStages * T_::kStageBytes;
        return reinterpret_cast<float2*>(behind + stage * T_::kRowsBytes);
    }
    /// work(h, first query, stage, parity) for each tile, heads in order.
    template <typename Work>
    __device__ __forceinline__ void walk(Work work) const {
        const int heads = sizes.NH / sizes.NKV;
        int tile = 0;
#pragma unroll 1
        for (int h = kv_head * heads; h < (kv_head + 1) * heads; ++h)
#pragma unroll 1
            for (int query = first_key; query < end; query += T_::kQueries, ++tile)
                work(h, query, tile % kStages, tile / kStages % 2);
    }

    __device__ __forceinline__ void produce(const CUtensorMap* qkv, const CUtensorMap* d_out,
                                            const float2* all_rows) const {
        barrier_arrive_expect(&barriers.own, 2 * T_::Own::kBytes);
        keys().load(qkv, &barriers.own, sizes.NH + kv_head, first_key, b);
        values().load(qkv, &barriers.own, sizes.NH + sizes.NKV + kv_head, first_key, b);
        walk([&](int h, int query, int stage, int parity) {
            uint64_t* const full = &barriers.full[stage];
            barrier_wait(&barriers.empty[stage], parity ^ 1);
            barrier_arrive_expect(full, T_::kArrived);
            queries(stage).load(qkv, full, h, query, b);
            d_outs(stage).load(d_out, full, h, query, b);
            bulk_load(rows(stage), all_rows + sizes.row_index(b, h) + query, T_::kRowsBytes, full);
        });
    }
};

/// A consumer's own rows as the left operand of a product over the channels: in shared memory,
template <int kHD, bool kInRegisters>
struct OwnRows {
    SwizzledTile<kOwnRows, kHD> tile;
    int row;
    __device__ __forceinline__ OwnRows(const SwizzledTile<kOwnRows, kHD>& from, int first) : tile(from), row(first) {}
    __device__ __forceinline__ void multiply(float (&out)[32], const SwizzledTile<64, kHD>& right) const {
        wgmma_fence(out);
#pragma unroll
        for (int step = 0; step < kHD / 16; ++step)
            wgmma<64, false, false>(out, tile.k_major(row, step), right.k_major(0, step), step > 0);
        wgmma_commit();
    }
};
/// or in registers.
template <int kHD>
struct OwnRows<kHD, true> {
    uint32_t a[kHD / 16][4];
    __device__ __forceinline__ OwnRows(const SwizzledTile<kOwnRows, kHD>& from, int first) {
        const FragmentPlace place;
#pragma unroll
        for (int step = 0; step < kHD / 16; ++step)
#pragma unroll
            for (int r = 0; r < 4; ++r)
                a[step][r] = *from.pair(first + place.row + 8 * (r % 2), 16 * step + 8 * (r / 2) + place.column);
    }
    __device__ __forceinline__ void multiply(float (&out)[32], const SwizzledTile<64, kHD>& right) {
        wgmma_fence(out, a);
#pragma unroll
        for (int step = 0; step < kHD / 16; ++step) wgmma<64, false>(out, a[step], right.k_major(0, step), step > 0);
        wgmma_commit();
    }
};

/// Hides queries that do not see the thread's keys, of which the first is `key`, from a tile's transposed scores.
template <bool kDocuments>
__device__ __forceinline__ void hide_queries(float (&scores)[32], const AttentionSizes& sizes, int b, int key,
                                             int first_query) {
    const int column = FragmentPlace().column;
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int query = first_query + 8 * j + column + e;
            const int document = kDocuments ? sizes.document_start(b, query) : 0;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const unsigned behind = static_cast<unsigned>(query - key - 8 * h);
                if (behind >= static_cast<unsigned>(sizes.window) || key + 8 * h < document)
                    scores[4 * j + 2 * h + e] = -INFINITY;
            }
        }
}

template <int kHD, bool kDocuments>
__device__ __forceinline__ void consume_keys(const KeyBlock<kHD, kDocuments>& block) {
    const AttentionSizes& sizes = block.sizes;
    const FragmentPlace place;
    const int row = own_row(), first_key = block.first_key + row, last_key = first_key + kConsumerRows - 1;
    const float scale_log2 = sizes.scale * kLog2e;
    float d_keys[kHD / 2], d_values[kHD / 2], p[32], d_scores[32];
    uint32_t p_fragments[4][4], d_fragments[4][4];
    clear(d_keys);
    clear(d_values);
    barrier_wait(&block.barriers.own, 0);
    OwnRows<kHD, KeyTiling<kHD>::kOwnInRegisters> keys(block.keys(), row), values(block.values(), row);
    block.walk([&](int, int first_query, int stage, int parity) {
        const auto queries = block.queries(stage), d_outs = block.d_outs(stage);
        const float2* const rows = block.rows(stage) + place.column;
        barrier_wait(&block.barriers.full[stage], parity);
        const int last_query = first_query + KeyTiling<kHD>::kQueries - 1;
        if (last_query >= first_key && first_query - last_key < sizes.window) {
            keys.multiply(p, queries);
            values.multiply(d_scores, d_outs);
            wgmma_wait<1>(p);
            if (kDocuments || first_query < last_key || last_query - first_key >= sizes.window)
                hide_queries<kDocuments>(p, sizes, block.b, first_key + place.row, first_query);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float lse[2] = {rows[8 * j].x, rows[8 * j + 1].x};
#pragma unroll
                for (int i = 0; i < 4; ++i) p[4 * j + i] = exp2_approx(fmaf(p[4 * j + i], scale_log2, -lse[i % 2]));
            }
#pragma unroll
            for (int step = 0; step < 4; ++step) pack_fragment(p_fragments[step], p, step);
            wgmma_fence(d_values, p_fragments);
#pragma unroll
            for (int step = 0; step < 4; ++step)
                wgmma<kHD, true>(d_values, p_fragments[step], d_outs.mn_major(step), true);
            wgmma_commit();
            wgmma_wait<1>(d_scores);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float D[2] = {rows[8 * j].y, rows[8 * j + 1].y};
#pragma unroll
                for (int i = 0; i < 4; ++i) d_scores[4 * j + i] = p[4 * j + i] * (d_scores[4 * j + i] - D[i % 2]);
            }
#pragma unroll
            for (int step = 0; step < 4; ++step) pack_fragment(d_fragments[step], d_scores, step);
            wgmma_fence(d_keys, d_fragments);
#pragma unroll
            for (int step = 0; step < 4; ++step)
                wgmma<kHD, true>(d_keys, d_fragments[step], queries.mn_major(step), true);
            wgmma_commit();
            wgmma_wait<0>(d_values, d_keys, p_fragments, d_fragments);
        }
        fence_async_proxy();  // The statistics have been read by threads; the next come by a copy.
        __syncwarp();
        if (threadIdx.x % kWarpSize == 0) barrier_arrive(&block.barriers.empty[stage]);
    });
    const float key_scale[2] = {sizes.scale, sizes.scale}, value_scale[2] = {1.0f, 1.0f};
    store_consumer_rows(block.gradients.key(sizes, block.b, block.kv_head), first_key, sizes.T, block.keys(), row,
                        d_keys, key_scale);
    store_consumer_rows(block.gradients.value(sizes, block.b, block.kv_head), first_key, sizes.T, block.values(), row,
                        d_values, value_scale);
}

template <int kHD, bool kDocuments>
__global__ void __launch_bounds__(kThreads, 1)
    attention_backward_keys_hopper_kernel(const __grid_constant__ HeadGradients<bf16> gradients,
                                          const __grid_constant__ CUtensorMap qkv,
                                          const __grid_constant__ CUtensorMap d_out, const float2* rows,
                                          const __grid_constant__ AttentionSizes sizes) {
    DYNAMIC_TILES(char, tiles);
    SHARED(Barriers, barriers);
    init(barriers, kConsumers * kWarpgroupSize / kWarpSize);
    const KeyBlock<kHD, kDocuments> block(sizes, gradients, barriers, tiles);
    if (warpgroup() == 0) {
        give_registers<kProducerRegisters>();
        if (threadIdx.x == 0) block.produce(&qkv, &d_out, rows);
    } else {
        take_registers<kConsumerRegisters>();
        consume_keys(block);
    }
}

// ---- queries -----------------------------------------------------------------------------------------

template <int kHD>
struct QueryTiling {
    static constexpr int kKeys = 128;
    using Tile = SwizzledTile<kKeys, kHD>;  // Of queries and dO, too.
    static_assert(kKeys == kOwnRows);
    static constexpr int kBytes = 2 * (1 + kStages) * Tile::kBytes;
    static_assert(kBytes <= 226 << 10);
};

template <int kHD, bool kBounded>
struct QueryBlock {
    using Tile = typename QueryTiling<kHD>::Tile;
    const AttentionSizes& sizes;
    const HeadGradients<bf16>& gradients;
    Barriers& barriers;
    char* tiles;
    int b, h, first_query, begin, end;

    __device__ __forceinline__ QueryBlock(const AttentionSizes& all, const HeadGradients<bf16>& some, Barriers& shared,
                                          char* memory)
        : sizes(all), gradients(some), barriers(shared), tiles(memory) {
        const int heads = gradients.count * (sizes.NH / sizes.NKV);
        b = static_cast<int>(blockIdx.x) / heads;
        h = gradients.first_query + static_cast<int>(blockIdx.x) % heads;
        first_query = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kOwnRows;
        begin =
            kBounded ? first_key_seen(sizes, b, first_query) / QueryTiling<kHD>::kKeys * QueryTiling<kHD>::kKeys : 0;
        end = min(sizes.T, first_query + kOwnRows);
    }
    __device__ __forceinline__ Tile queries() const { return {tiles}; }
    __device__ __forceinline__ Tile d_outs() const { return {tiles + Tile::kBytes}; }
    __device__ __forceinline__ Tile keys(int stage) const { return {tiles + (2 + 2 * stage) * Tile::kBytes}; }
    __device__ __forceinline__ Tile values(int stage) const { return {tiles + (3 + 2 * stage) * Tile::kBytes}; }

    __device__ __forceinline__ void produce(const CUtensorMap* qkv, const CUtensorMap* d_out) const {
        barrier_arrive_expect(&barriers.own, 2 * Tile::kBytes);
        queries().load(qkv, &barriers.own, h, first_query, b);
        d_outs().load(d_out, &barriers.own, h, first_query, b);
        const int key_head = sizes.NH + sizes.kv_head(h);
        int tile = 0;
#pragma unroll 1
        for (int key = begin; key < end; key += QueryTiling<kHD>::kKeys, ++tile) {
            const int stage = tile % kStages;
            barrier_wait(&barriers.empty[stage], tile / kStages % 2 ^ 1);
            barrier_arrive_expect(&barriers.full[stage], 2 * Tile::kBytes);
            keys(stage).load(qkv, &barriers.full[stage], key_head, key, b);
            values(stage).load(qkv, &barriers.full[stage], key_head + sizes.NKV, key, b);
        }
    }
};

/// out = a consumer's own rows, from `row` on, times the tile's.
template <int kHD>
__device__ __forceinline__ void multiply_rows(float (&out)[64], const SwizzledTile<128, kHD>& own, int row,
                                              const SwizzledTile<128, kHD>& tile) {
    wgmma_fence(out);
#pragma unroll
    for (int step = 0; step < kHD / 16; ++step)
        wgmma<128, false, false>(out, own.k_major(row, step), tile.k_major(0, step), step > 0);
    wgmma_commit();
}

template <int kHD, bool kBounded>
__device__ __forceinline__ void consume_queries(const QueryBlock<kHD, kBounded>& block, const float2* rows) {
    const AttentionSizes& sizes = block.sizes;
    const FragmentPlace place;
    const int row = own_row(), first_query = block.first_query + row, query = first_query + place.row;
    const float scale_log2 = sizes.scale * kLog2e;
    float2 statistics[2];
    int seen[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const bool valid = query + 8 * h < sizes.T;
        statistics[h] = valid ? rows[sizes.row_index(block.b, block.h) + query + 8 * h] : float2{INFINITY, 0};
        seen[h] = kBounded ? query + 8 * h - first_key_seen(sizes, block.b, query + 8 * h) : INT32_MAX;
    }
    float d_queries[kHD / 2], p[64], d_scores[64];
    uint32_t fragments[8][4];
    clear(d_queries);
    barrier_wait(&block.barriers.own, 0);
    int tile = 0;
#pragma unroll 1
    for (int first_key = block.begin; first_key < block.end; first_key += QueryTiling<kHD>::kKeys, ++tile) {
        const int stage = tile % kStages;
        barrier_wait(&block.barriers.full[stage], tile / kStages % 2);
        multiply_rows(p, block.queries(), row, block.keys(stage));
        multiply_rows(d_scores, block.d_outs(), row, block.values(stage));
        wgmma_wait<1>(p);
        if (kBounded || first_key + QueryTiling<kHD>::kKeys > first_query + 1) {
#pragma unroll
            for (int i = 0; i < 64; ++i) {
                const int h = i / 2 % 2, behind = query - first_key - place.column + 8 * h - i / 4 * 8 - i % 2;
                if (static_cast<unsigned>(behind) > static_cast<unsigned>(seen[h])) p[i] = -INFINITY;
            }
        }
#pragma unroll
        for (int i = 0; i < 64; ++i) p[i] = exp2_approx(fmaf(p[i], scale_log2, -statistics[i / 2 % 2].x));
        wgmma_wait<0>(d_scores);
#pragma unroll
        for (int i = 0; i < 64; ++i) d_scores[i] = p[i] * (d_scores[i] - statistics[i / 2 % 2].y);
#pragma unroll
        for (int step = 0; step < 8; ++step) pack_fragment(fragments[step], d_scores, step);
        wgmma_fence(d_queries, fragments);
#pragma unroll
        for (int step = 0; step < 8; ++step)
            wgmma<kHD, true>(d_queries, fragments[step], block.keys(stage).mn_major(step), true);
        wgmma_commit();
        wgmma_wait<0>(d_queries, fragments);
        if (threadIdx.x % kWarpgroupSize == 0) barrier_arrive(&block.barriers.empty[stage]);
    }
    const float scale[2] = {sizes.scale, sizes.scale};
    store_consumer_rows(block.gradients.query(sizes, block.b, block.h), first_query, sizes.T, block.queries(), row,
                        d_queries, scale);
}

template <int kHD, bool kBounded>
__global__ void __launch_bounds__(kThreads, 1)
    attention_backward_queries_hopper_kernel(const __grid_constant__ HeadGradients<bf16> gradients,
                                             const __grid_constant__ CUtensorMap qkv,
                                             const __grid_constant__ CUtensorMap d_out, const float2* rows,
                                             const __grid_constant__ AttentionSizes sizes) {
    DYNAMIC_TILES(char, tiles);
    SHARED(Barriers, barriers);
    init(barriers, kConsumers);
    const QueryBlock<kHD, kBounded> block(sizes, gradients, barriers, tiles);
    if (warpgroup() == 0) {
        give_registers<kProducerRegisters>();
        if (threadIdx.x == 0) block.produce(&qkv, &d_out);
    } else {
        take_registers<kConsumerRegisters>();
        consume_queries(block, rows);
    }
}

template <int kHD>
void start(const HeadGradients<bf16>& gradients, const bf16* d_out, const bf16* qkv, const float2* rows,
           const AttentionSizes& sizes, int B, cudaStream_t stream) {
    const CUtensorMap of_qkv = head_map(qkv, kHD, sizes.qkv_columns, sizes.T, B);
    const CUtensorMap of_d_out = head_map(d_out, kHD, sizes.out_columns, sizes.T, B);
    const int64_t tiles = ceil_div(sizes.T, kOwnRows), heads = int64_t{gradients.count} * B;
    launch(sizes.documents ? attention_backward_keys_hopper_kernel<kHD, true>
                           : attention_backward_keys_hopper_kernel<kHD, false>,
           blocks_of(heads, tiles), kThreads, KeyTiling<kHD>::kBytes, stream, gradients, of_qkv, of_d_out, rows, sizes);
    launch(sight_of(sizes) == Sight::Whole ? attention_backward_queries_hopper_kernel<kHD, false>
                                           : attention_backward_queries_hopper_kernel<kHD, true>,
           blocks_of(heads * (sizes.NH / sizes.NKV), tiles), kThreads, QueryTiling<kHD>::kBytes, stream, gradients,
           of_qkv, of_d_out, rows, sizes);
}

}  // namespace attention_backward_hopper_kernels

void attention_backward_hopper(const HeadGradients<bf16>& gradients, const bf16* d_out, const bf16* qkv,
                               const float2* rows, const AttentionSizes& sizes, int64_t B, cudaStream_t stream) {
    (sizes.HD == 64 ? start<64> : start<128>)(gradients, d_out, qkv, rows, sizes, static_cast<int>(B), stream);
}

}  // namespace llmc::cuda
