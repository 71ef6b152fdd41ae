// How the sums of a matrix product leave: through shared memory, a warp's 16 rows at a time, so that 128 bytes of a row
// are one access; there the bias, the residual and the activation join. Heads turn before that: a thread has both
// channels of a pair.
#pragma once

#include "llmc/backend/cuda/activation.cuh"
#include "llmc/backend/cuda/gemm_tiles_hopper.cuh"
#include "llmc/backend/cuda/rope.cuh"

#include <cstdint>
#include <type_traits>

namespace llmc::cuda {

template <typename Out, Applied kApplied>
class GemmEpilogue {
    using T_ = GemmTiling;
    using Staged = SwizzledTile<T_::kRows, 64>;  ///< Of rows of 128 bytes, for columns of either half.
    static_assert(2 * Staged::kBytes == T_::kStagedBytes);
    /// Columns of a chunk, which a lane moves at once, and of a half that are staged at a time.
    static constexpr int kChunk = Pack<Out>::kSize, kColumns = 8 * kChunk, kParts = T_::kHalf / kColumns;
    static constexpr bool kIsGradient = kApplied == Applied::GeluGradient || kApplied == Applied::SwigluGradient;

  public:
    __device__ __forceinline__ GemmEpilogue(const HopperProduct& product, char* memory)
        : product_(product), memory_(memory) {}

    /// By a warpgroup, for 64 rows of the tile. The sums are not needed any more.
    __device__ __forceinline__ void store(const GemmPlace& place, int first_row, float (&sums)[128]) const {
        if constexpr (kApplied == Applied::Rope)
            product_.rope.head_size == 64 ? rotate<64>(place, first_row, sums) : rotate<128>(place, first_row, sums);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
            __syncwarp();  // Nobody reads the part before any more.
            if (has_residual()) {
                for_each_batch(place, first_row, part, [&](const Batch& batch) {
                    for_each_chunk(batch, [&](const Chunk& chunk) {
                        store128(staged<Out>(chunk), load128(static_cast<const Out*>(product_.residual) + chunk.at));
                    });
                });
                __syncwarp();
            }
            stage_sums(place, first_row, part, sums);
            __syncwarp();
            for_each_batch(place, first_row, part, [&](const Batch& batch) {
                Pre pre;
                if constexpr (kIsGradient) for_each_chunk(batch, [&](const Chunk& chunk) { load(chunk, &pre); });
                for_each_chunk(batch, [&](const Chunk& chunk) { finish(chunk, pre); });
            });
        }
    }

  private:
    /// A lane has chunks of every fourth row of its warp's 16: so many on the way at once, as many as leave room for
    /// what gradients are taken at, beside the sums.
    static constexpr int kAtOnce = kApplied == Applied::SwigluGradient ? 2 : 4, kBatches = 2 * 4 / kAtOnce;
    static constexpr int kUnrolled = kIsGradient ? 1 : kBatches;
    struct Batch {
        int half, row, of_row;       ///< The first's row of the tile, and which of the row's eight chunks.
        int rows;                    ///< That there are, of the tile.
        int64_t row_of_out, column;  ///< Row and column of out.
    };
    struct Chunk {
        int index, half, row, of_row;
        int64_t row_of_out, at;  ///< Row and element of out.
    };
    /// What gradients of activations are taken at, of a batch: all are asked for before one is needed.
    struct Pre {
        Pack<bf16> gate[kIsGradient ? kAtOnce : 1], up[kApplied == Applied::SwigluGradient ? kAtOnce : 1];
    };

    __device__ __forceinline__ Staged staged_tile(int half) const { return {memory_ + half * Staged::kBytes}; }
    template <typename T>
    __device__ __forceinline__ T* staged(const Chunk& chunk, int half_after = 0) const {
        return reinterpret_cast<T*>(staged_tile(chunk.half + half_after).chunk(chunk.row, chunk.of_row));
    }
    __device__ __forceinline__ bool has_residual() const { return !kIsGradient && product_.residual != nullptr; }
    __device__ __forceinline__ bool has_bias() const { return !kIsGradient && product_.bias != nullptr; }
    /// Whether half `half` of a tile has a column; there are a multiple of 8, so that all of a chunk are alike.
    __device__ __forceinline__ bool has_column(int half, int column) const {
        return column < (kApplied == Applied::Swiglu && half == 0 ? product_.columns / 2 : product_.columns);
    }

    /// work(batch) for what a lane has of its warp's 16 rows of kColumns columns in either half.
    template <typename Work>
    __device__ __forceinline__ void for_each_batch(const GemmPlace& place, int first_row, int part, Work work) const {
        const int lane = static_cast<int>(threadIdx.x) % kWarpSize, of_row = lane % 8;
        const int first = first_row + FragmentPlace().row / 16 * 16 + lane / 8;
#pragma unroll kUnrolled
        for (int i = 0; i < kBatches; ++i) {
            const int half = i % 2, row = first + i / 2 * 4 * kAtOnce;
            const int column = place.column(half) + part * kColumns + of_row * kChunk;
            if (!has_column(half, column)) continue;
            work({half, row, of_row, product_.rows - place.row, int64_t{place.part} * product_.rows + place.row + row,
                  column});
        }
    }
    template <typename Work>
    __device__ __forceinline__ void for_each_chunk(const Batch& batch, Work work) const {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int64_t row_of_out = batch.row_of_out + 4 * i;
            if (batch.row + 4 * i < batch.rows)
                work({i, batch.half, batch.row + 4 * i, batch.of_row, row_of_out,
                      row_of_out * product_.columns + batch.column});
        }
    }

    /// Puts the rotated numbers in place of sums, rounded to bf16 as the product is, and again.
    template <int kHead>
    __device__ __forceinline__ void rotate(const GemmPlace& place, int first_row, float (&sums)[128]) const {
        constexpr int kPairs = kHead / 2, kHeads = T_::kColumns / kHead;
        static_assert(T_::kColumns == kHeads * kHead && kPairs % 8 == 0);
        const FragmentPlace mine;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = place.row + first_row + mine.row + 8 * h;
            if (row >= product_.rows) continue;
            const float* const angles = product_.rope.table + position(row) * kHead + mine.column;
#pragma unroll
            for (int j = 0; j < kPairs / 8; ++j) {
                const float2 cosine = load_pair(angles + 8 * j), sine = load_pair(angles + kPairs + 8 * j);
#pragma unroll
                for (int head = 0; head < kHeads; ++head) {
                    const int first = place.first_column + head * kHead;
                    if (first >= product_.rope.columns) continue;
                    const int sum = 4 * (head * kHead / 8 + j) + 2 * h;
                    turn_pair(&sums[sum], &sums[sum + 4 * (kPairs / 8)], first + 8 * j + mine.column, kPairs, cosine,
                              sine);
                }
            }
        }
    }
    /// Two pairs, whose lower channels are columns `column` and the next.
    __device__ __forceinline__ void turn_pair(float* lower, float* upper, int column, int apart, float2 cosine,
                                              float2 sine) const {
        float2 of_lower = {0, 0}, of_upper = {0, 0};
        if (has_bias())
            of_lower = load_pair(product_.bias + column), of_upper = load_pair(product_.bias + column + apart);
        turn_sums(lower[0] + of_lower.x, upper[0] + of_upper.x, cosine.x, sine.x, &lower[0], &upper[0]);
        turn_sums(lower[1] + of_lower.y, upper[1] + of_upper.y, cosine.y, sine.y, &lower[1], &upper[1]);
    }
    __device__ __forceinline__ static void turn_sums(float x, float y, float cosine, float sine, float* lower,
                                                     float* upper) {
        bf16 low = from_float<bf16>(x + 0.0f),
             up = from_float<bf16>(y + 0.0f);  // No residual, as stage_sums() adds it.
        turn(low, up, cosine, sine);
        *lower = to_float(low), *upper = to_float(up);
    }
    __device__ __forceinline__ int64_t position(int row) const {
        const HopperRope& rope = product_.rope;
        const uint32_t slot =
            (static_cast<uint32_t>(rope.first_row) + static_cast<uint32_t>(row)) % static_cast<uint32_t>(rope.T);
        return rope.offset + (rope.more != nullptr ? *rope.more : 0) + slot -
               (rope.documents != nullptr ? rope.documents[row] : 0);
    }
    /// Whether a column already has its bias.
    __device__ __forceinline__ bool is_rotated(int column) const {
        return kApplied == Applied::Rope && column < product_.rope.columns;
    }

    __device__ __forceinline__ int64_t at_gate(const Chunk& chunk) const {
        return chunk.at + chunk.row_of_out * product_.columns;
    }
    __device__ __forceinline__ void load(const Chunk& chunk, Pre* pre) const {
        if constexpr (kApplied == Applied::GeluGradient) pre->gate[chunk.index] = load128(product_.pre + chunk.at);
        if constexpr (kApplied == Applied::SwigluGradient) {
            pre->gate[chunk.index] = load128(product_.pre + at_gate(chunk));
            pre->up[chunk.index] = load128(product_.pre + at_gate(chunk) + product_.columns);
        }
    }

    /// Zeros that change no sum, not even one of -0, which what was rotated may be.
    static constexpr float2 kNothing = {-0.0f, -0.0f};

    /// Rounds the sums of kColumns columns of either half, with the bias and what was staged of the residual.
    __device__ __forceinline__ void stage_sums(const GemmPlace& place, int first_row, int part,
                                               const float (&sums)[128]) const {
        const FragmentPlace mine;
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int j = 0; j < kChunk; ++j) {
                const int in_part = 8 * j + mine.column, column = place.column(half) + part * kColumns + in_part;
                const bool is_column = has_column(half, column);
                float2 bias = kNothing;
                if (!is_rotated(column)) bias = {0, 0};
                if (has_bias() && is_column && !is_rotated(column)) bias = load_pair(product_.bias + column);
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int row = first_row + mine.row + 8 * h;
                    const int sum = 4 * (16 * half + kChunk * part + j) + 2 * h;
                    Out* const pair =
                        reinterpret_cast<Out*>(staged_tile(half).chunk(row, in_part / kChunk)) + in_part % kChunk;
                    float2 residual = is_rotated(column) ? kNothing : float2{0, 0};
                    if (has_residual() && is_column && place.row + row < product_.rows) residual = load_pair(pair);
                    store_pair(pair, sums[sum] + bias.x + residual.x, sums[sum + 1] + bias.y + residual.y);
                }
            }
    }
    __device__ __forceinline__ static float2 load_pair(const float* at) { return *reinterpret_cast<const float2*>(at); }
    __device__ __forceinline__ static float2 load_pair(const bf16* at) {
        const uint32_t pair = *reinterpret_cast<const uint32_t*>(at);
        return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
    }
    __device__ __forceinline__ static void store_pair(float* at, float x, float y) {
        *reinterpret_cast<float2*>(at) = {x, y};
    }
    __device__ __forceinline__ static void store_pair(bf16* at, float x, float y) {
        *reinterpret_cast<uint32_t*>(at) = bf16_pair(x, y);
    }

    /// Stores a staged chunk, or what becomes of it.
    __device__ __forceinline__ void finish(const Chunk& chunk, const Pre& pre) const {
        const Pack<Out> values = load128(staged<Out>(chunk));
        bf16* const activated = product_.activated;
        if constexpr (!kIsGradient) store128(static_cast<Out*>(product_.out) + chunk.at, values);
        if constexpr (kApplied == Applied::Gelu) store128(activated + chunk.at, gelu(values));
        if constexpr (kApplied == Applied::Swiglu)
            if (chunk.half == 0)
                store128(activated + chunk.at - chunk.row_of_out * (product_.columns / 2),
                         swiglu(values, load128(staged<Out>(chunk, 1))));
        if constexpr (kApplied == Applied::GeluGradient)
            store128(activated + chunk.at, gelu_gradient(values, pre.gate[chunk.index]));
        if constexpr (kApplied == Applied::SwigluGradient) {
            Pack<bf16> gate = pre.gate[chunk.index], up = pre.up[chunk.index];
            swiglu_gradient(values, &gate, &up);
            store128(activated + at_gate(chunk), gate);
            store128(activated + at_gate(chunk) + product_.columns, up);
        }
    }
    __device__ __forceinline__ static Pack<bf16> gelu(Pack<bf16> values) {
#pragma unroll
        for (bf16& value : values.values) value = from_float<bf16>(gelu_tanh<bf16>(to_float(value)));
        return values;
    }
    __device__ __forceinline__ static Pack<bf16> swiglu(Pack<bf16> gate, const Pack<bf16>& up) {
#pragma unroll
        for (int i = 0; i < Pack<bf16>::kSize; ++i)
            gate[i] = from_float<bf16>(silu_times<bf16>(to_float(gate[i]), to_float(up[i])));
        return gate;
    }
    __device__ __forceinline__ static Pack<bf16> gelu_gradient(Pack<bf16> d, const Pack<bf16>& at) {
#pragma unroll
        for (int i = 0; i < Pack<bf16>::kSize; ++i)
            d[i] = from_float<bf16>(gelu_tanh_gradient<bf16>(to_float(d[i]), to_float(at[i])));
        return d;
    }
    __device__ __forceinline__ static void swiglu_gradient(const Pack<bf16>& d, Pack<bf16>* gate, Pack<bf16>* up) {
#pragma unroll
        for (int i = 0; i < Pack<bf16>::kSize; ++i) {
            const GateAndUp gradients =
                silu_times_gradient<bf16>(to_float(d[i]), to_float((*gate)[i]), to_float((*up)[i]));
            (*gate)[i] = from_float<bf16>(gradients.gate), (*up)[i] = from_float<bf16>(gradients.up);
        }
    }

    const HopperProduct& product_;
    char* memory_;
};

}  // namespace llmc::cuda
