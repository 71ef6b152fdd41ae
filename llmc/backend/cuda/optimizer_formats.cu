// The optimisers over flat buffers of which some are kept in less than fp32: rounded stochastically, or in 8-bit
// blocks. A warp takes a block of 256 elements of a row at a time, a lane the eight of one counter; the warp finds the
// block's largest magnitude. The values of the 8-bit maps and the bounds between them lie in shared memory.
#include "llmc/backend/cuda/rounding.cuh"
#include "llmc/base/dynamic_map.h"

#include <algorithm>
#include <cmath>

namespace llmc::cuda {
inline namespace optimizer_formats_kernels {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
static_assert(kStateBlock == kWarpSize * kDraws);
constexpr int64_t kBlockElements = kWarps * kStateBlock * 8;
constexpr int kMaxRanges = 32;  ///< With the maps, launch parameters have room for 4 KiB.
using Ranges = RangeBatch<RowRange, kMaxRanges>;

enum class Moments : uint8_t { Fp32, Rounded, Blocks };

struct Buffers {
    bf16* rounded;  ///< Parameters: the rounded master, or where there is none the weights themselves.
    float* values;  ///< The master, or fp32 parameters; null where there is neither.
    void *m, *v;    ///< v is null for an optimiser without.
    float *m_scales, *v_scales;
    const void* gradients;
    bool gradients_are_bf16;
};

struct Maps {
    float means[256], squares[256];
};

/// A map in shared memory.
struct SharedMap {
    float values[256], bounds[256];
};

/// By all threads of a block, an entry each.
__device__ void fill_map(SharedMap& map, const float* values) {
    const int i = threadIdx.x;
    map.values[i] = values[i];
    if (i == 255) {
        map.bounds[i] = INFINITY;
        return;
    }
    // The largest fp32 number that is not above the middle of two values.
    const double middle = (static_cast<double>(values[i]) + static_cast<double>(values[i + 1])) / 2;
    float bound = static_cast<float>(middle);
    if (static_cast<double>(bound) > middle) {
        uint32_t bits;
        __builtin_memcpy(&bits, &bound, sizeof bits);
        bits = bound > 0 ? bits - 1 : bits + 1;
        __builtin_memcpy(&bound, &bits, sizeof bits);
    }
    map.bounds[i] = bound;
}

/// How many bounds are below x.
__device__ __forceinline__ uint8_t nearest(const SharedMap& map, float x) {
    int code = 0;
#pragma unroll
    for (int step = 128; step > 0; step /= 2)
        if (map.bounds[code + step - 1] < x) code += step;
    return static_cast<uint8_t>(code);
}

__device__ __forceinline__ void load_codes(float (&x)[kDraws], const uint8_t* codes, float scale, int count,
                                           const SharedMap& map) {
    Group<uint8_t, kDraws> group = {};
    if (count == kDraws)
        group = load_group_streaming<kDraws>(codes);
    else
        for (int k = 0; k < count; ++k) group[k] = codes[k];
#pragma unroll
    for (int k = 0; k < kDraws; ++k) x[k] = k < count ? map.values[group[k]] * scale : 0.0f;
}

/// By a whole warp: lanes without elements have count 0 and zeros.
__device__ __forceinline__ void store_codes(uint8_t* codes, float* scale, const float (&x)[kDraws], int count,
                                            const SharedMap& map) {
    float largest = 0;
#pragma unroll
    for (int k = 0; k < kDraws; ++k) largest = fmaxf(largest, k < count ? fabsf(x[k]) : 0.0f);
    largest = warp_max(largest);
    const float divisor = largest > 0 ? largest : 1.0f;
    Group<uint8_t, kDraws> group;
#pragma unroll
    for (int k = 0; k < kDraws; ++k) group[k] = k < count ? nearest(map, x[k] / divisor) : 0;
    if (count == kDraws)
        store_group(codes, group);
    else
        for (int k = 0; k < count; ++k) codes[k] = group[k];
    __syncwarp();  // All have read the old one.
    if (threadIdx.x % kWarpSize == 0) *scale = largest;
}

template <Moments kMoments>
__device__ __forceinline__ void load_moment(float (&x)[kDraws], const void* moment, const float* scales, int64_t i,
                                            int count, const SharedMap& map) {
    if constexpr (kMoments == Moments::Fp32)
        load_floats(x, static_cast<const float*>(moment) + i, count);
    else if constexpr (kMoments == Moments::Rounded)
        load_floats(x, static_cast<const bf16*>(moment) + i, count);
    else
        load_codes(x, static_cast<const uint8_t*>(moment) + i, count > 0 ? scales[i / kStateBlock] : 0.0f, count, map);
}

template <Moments kMoments>
__device__ __forceinline__ void store_moment(void* moment, float* scales, const float (&x)[kDraws], int64_t i,
                                             int count, const SharedMap& map, const Draw& draw) {
    if constexpr (kMoments == Moments::Fp32)
        store_fp32(static_cast<float*>(moment) + i, x, count);
    else if constexpr (kMoments == Moments::Rounded)
        store_rounded(static_cast<bf16*>(moment) + i, x, count, draw);
    else
        store_codes(static_cast<uint8_t*>(moment) + i, scales + i / kStateBlock, x, count, map);
}

/// The elements of this lane in a block of the state: `count` of them from `i` on of the flat buffers, from `in_row` on
/// of the row.
struct Place {
    int64_t i, of_moments, in_row;
    int count, row;
};

template <Moments kMoments, typename Rule>
__device__ __forceinline__ void update_lane(const Buffers& to, const Place& place, const Rule& rule, const Constants& k,
                                            float scale, float keep, const Rounding& rounding, const SharedMap& means,
                                            const SharedMap& squares) {
    const auto& [i, of_moments, in_row, count, row] = place;
    float gradients[kDraws], weights[kDraws], m[kDraws], v[kDraws] = {};
    if (to.gradients_are_bf16)
        load_floats(gradients, static_cast<const bf16*>(to.gradients) + i, count);
    else
        load_floats(gradients, static_cast<const float*>(to.gradients) + i, count);
    if (to.values != nullptr)
        load_floats(weights, to.values + i, count);
    else
        load_floats(weights, to.rounded + i, count);
    load_moment<kMoments>(m, to.m, to.m_scales, of_moments, count, means);
    if constexpr (Rule::kSecondMoment) load_moment<kMoments>(v, to.v, to.v_scales, of_moments, count, squares);
#pragma unroll
    for (int j = 0; j < kDraws; ++j) weights[j] = rule(weights[j], scale * gradients[j], m[j], v[j], keep, k);

    const auto draw = [&](RoundedBuffer buffer) { return rounding.draw(buffer, row, in_row); };
    constexpr bool kDrawsMoments = kMoments == Moments::Rounded;
    store_moment<kMoments>(to.m, to.m_scales, m, of_moments, count, means,
                           kDrawsMoments ? draw(RoundedBuffer::MomentM) : Draw{});
    if constexpr (Rule::kSecondMoment)
        store_moment<kMoments>(to.v, to.v_scales, v, of_moments, count, squares,
                               kDrawsMoments ? draw(RoundedBuffer::MomentV) : Draw{});
    if (to.values == nullptr) return store_rounded(to.rounded + i, weights, count, draw(RoundedBuffer::Weights));
    store_fp32(to.values + i, weights, count);
    if (to.rounded != nullptr) store_nearest(to.rounded + i, weights, count);
}

template <Moments kMoments, typename Rule>
__global__ void __launch_bounds__(kThreads)
    update_formats_kernel(Buffers buffers, const __grid_constant__ Ranges ranges, const __grid_constant__ Maps maps,
                          Constants k, RoundingKey key, const double* controls, const float* factors) {
    if (at(factors, Factor::Applies) == 0) return;
    SHARED(SharedMap, means);
    SHARED(SharedMap, squares);
    if constexpr (kMoments == Moments::Blocks) {
        fill_map(means, maps.means);
        fill_map(squares, maps.squares);
        __syncthreads();
    }
    const Rule rule(factors);
    const Rounding rounding(key, controls, 0);
    const float scale = at(factors, Factor::GradientScale);
    const RowRange& range = range_of(ranges, blockIdx.x);
    const float keep = range.decay ? at(factors, Factor::Keep) : 1.0f;
    const int64_t begin = (blockIdx.x - range.first_block) * kBlockElements;
    const int64_t end = min(begin + kBlockElements, range.count);
    const int64_t lane = (threadIdx.x % kWarpSize) * kDraws;
    for (int64_t of_warp = begin + threadIdx.x / kWarpSize * kStateBlock; of_warp < end;
         of_warp += kWarps * kStateBlock) {
        const int64_t in_range = of_warp + lane;
        const int count = static_cast<int>(max(int64_t{0}, min(int64_t{kDraws}, end - in_range)));
        // A lane without elements stands at the block's first, whose scale it shares.
        const int64_t i = count > 0 ? in_range : of_warp;
        const Place place = {range.offset + i, range.offset + range.moments_shift + i, range.first + i, count,
                             range.row};
        update_lane<kMoments>(buffers, place, rule, k, scale, keep, rounding, means, squares);
    }
}

Maps maps_of_state() {
    Maps maps;
    std::copy(signed_map().values().begin(), signed_map().values().end(), maps.means);
    std::copy(unsigned_map().values().begin(), unsigned_map().values().end(), maps.squares);
    return maps;
}

template <Moments kMoments, typename Rule>
void launch_updates(cudaStream_t stream, const Buffers& buffers, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings, Tensor controls, Tensor factors) {
    for_each_batch<Ranges>(ranges, kBlockElements, [&](const Ranges& batch, int64_t blocks) {
        launch(update_formats_kernel<kMoments, Rule>, blocks_of(blocks), kThreads, 0, stream, buffers, batch,
               maps_of_state(), Constants(settings), key_of(settings.seed), elements_of<const double>(controls),
               elements_of<const float>(factors));
    });
}

template <Moments kMoments>
void update_by_rule(cudaStream_t stream, const Buffers& buffers, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings, Tensor controls, Tensor factors) {
    switch (settings.kind) {
        case OptimizerKind::AdamW:
            return launch_updates<kMoments, AdamW>(stream, buffers, ranges, settings, controls, factors);
        case OptimizerKind::Lion:
            return launch_updates<kMoments, Lion>(stream, buffers, ranges, settings, controls, factors);
    }
}

/// What the formats ask of ranges, which are those of rows.
void check_ranges(const UpdateOperands& operands, std::span<const ParameterRange> ranges) {
    const bool in_blocks = operands.m.dtype == DType::U8;
    for (const ParameterRange& range : ranges) {
        CHECK(range.first % (in_blocks ? kStateBlock : kDrawsOfCounter) == 0, range.first);
        CHECK(!in_blocks || (range.offset + range.moments_shift) % kStateBlock == 0, range.offset);
    }
}

}  // namespace optimizer_formats_kernels

void update_formats(cudaStream_t stream, const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings, Tensor factors) {
    const auto& [parameters, master, m, v, gradients, m_scales, v_scales, controls] = operands;
    check_ranges(operands, ranges);
    CHECK((m.dtype == DType::U8) == static_cast<bool>(m_scales) && controls && (!v || v.dtype == m.dtype),
          name_of(m.dtype));
    const bool mixed = parameters.dtype == DType::BF16;
    const Buffers buffers = {mixed ? elements_of<bf16>(parameters) : nullptr,
                             elements_of<float>(mixed ? master : parameters),
                             m.data,
                             v.data,
                             elements_of<float>(m_scales),
                             elements_of<float>(v_scales),
                             gradients.data,
                             gradients.dtype == DType::BF16};
    switch (m.dtype) {
        case DType::BF16: return update_by_rule<Moments::Rounded>(stream, buffers, ranges, settings, controls, factors);
        case DType::U8: return update_by_rule<Moments::Blocks>(stream, buffers, ranges, settings, controls, factors);
        default: return update_by_rule<Moments::Fp32>(stream, buffers, ranges, settings, controls, factors);
    }
}

}  // namespace llmc::cuda
