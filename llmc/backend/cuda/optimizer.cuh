// What kernels over flat buffers share: ranges that travel by value with a launch, and what an optimiser makes of one
// element.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cuda/elements.cuh"

#include <span>

namespace llmc::cuda {

/// Ranges of one launch; blocks take equal parts of them, `first_block` is the first of a range's. R is Range or
/// RowRange.
template <typename R, int kMax>
struct RangeBatch {
    static constexpr int kCapacity = kMax;
    R ranges[kMax];
    int count;
};

struct Range {
    int64_t offset, count;
    int first_block;
    bool decay;
    static Range of(const ParameterRange& range, int first_block) {
        return {range.offset, range.count, first_block, range.decay};
    }
};

/// A range inside one row, for what is rounded by counters or kept in blocks.
struct RowRange {
    int64_t offset, count, first, moments_shift;
    int first_block, row;
    bool decay;
    static RowRange of(const ParameterRange& range, int first_block) {
        return {range.offset, range.count, range.first, range.moments_shift, first_block, range.row, range.decay};
    }
};

/// The range that block `block` works in: the last that does not begin after it.
template <typename R, int kMax>
__device__ __forceinline__ const R& range_of(const RangeBatch<R, kMax>& batch, int block) {
    int low = 0, high = batch.count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (batch.ranges[middle].first_block <= block)
            low = middle;
        else
            high = middle - 1;
    }
    return batch.ranges[low];
}

/// start(batch, blocks) for as many launches as the ranges take, a block for every `block_elements` of a range.
template <typename Batch, typename Start>
void for_each_batch(std::span<const ParameterRange> ranges, int64_t block_elements, const Start& start) {
    using R = std::remove_reference_t<decltype(Batch{}.ranges[0])>;
    Batch batch = {};
    int64_t blocks = 0;
    const auto flush = [&] {
        if (batch.count > 0) start(batch, blocks);
        batch.count = 0;
        blocks = 0;
    };
    for (const ParameterRange& range : ranges) {
        if (range.count == 0) continue;
        batch.ranges[batch.count++] = R::of(range, static_cast<int>(blocks));
        blocks += ceil_div(range.count, block_elements);
        if (batch.count == Batch::kCapacity) flush();
    }
    flush();
}

__device__ __forceinline__ float& at(float* factors, Factor factor) { return factors[static_cast<int>(factor)]; }
__device__ __forceinline__ float at(const float* factors, Factor factor) { return factors[static_cast<int>(factor)]; }

/// The constants of a run, as the loops over elements need them.
struct Constants {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon;

    explicit Constants(const OptimizerSettings& settings)
        : beta1(settings.beta1),
          one_minus_beta1(static_cast<float>(1 - double{settings.beta1})),
          beta2(settings.beta2),
          one_minus_beta2(static_cast<float>(1 - double{settings.beta2})),
          epsilon(settings.epsilon) {}
};

/// The new weight of an element, and its moments. `factors` are begin_update()'s.
struct AdamW {
    static constexpr bool kSecondMoment = true;
    float step, inverse_root_bias2;

    __device__ explicit AdamW(const float* factors)
        : step(at(factors, Factor::Step)), inverse_root_bias2(at(factors, Factor::InverseRootBias2)) {}

    __device__ __forceinline__ float operator()(float weight, float g, float& m, float& v, float keep,
                                                const Constants& k) const {
        m = k.beta1 * m + k.one_minus_beta1 * g;
        v = k.beta2 * v + k.one_minus_beta2 * g * g;
        return keep * weight - step * m / (sqrtf(v) * inverse_root_bias2 + k.epsilon);
    }
};

struct Lion {
    static constexpr bool kSecondMoment = false;
    float rate;

    __device__ explicit Lion(const float* factors) : rate(at(factors, Factor::Rate)) {}

    __device__ __forceinline__ float operator()(float weight, float g, float& m, float&, float keep,
                                                const Constants& k) const {
        const float direction = k.beta1 * m + k.one_minus_beta1 * g;
        const float sign = direction > 0 ? 1.0f : direction < 0 ? -1.0f : 0.0f;
        m = k.beta2 * m + k.one_minus_beta2 * g;
        return keep * weight - rate * sign;
    }
};

/// update() where not everything but rounded parameters is fp32; optimizer_formats.cu.
void update_formats(cudaStream_t stream, const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings, Tensor factors);

}  // namespace llmc::cuda
