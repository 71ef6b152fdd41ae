// The optimisers over flat buffers in fp32, at the speed of memory; optimizer_formats.cu has the other formats. An
// update takes many ranges in one launch: they travel by value with the launch, and a block finds its own among them.
// Whether to clip or to skip, and every number that changes from update to update, is made on the device.
#include "llmc/backend/cuda/optimizer.cuh"

#include "llmc/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>

namespace llmc::cuda {
inline namespace optimizer_kernels {

constexpr int kThreads = 256;
constexpr int kGroup = 4;

/// One thread: what the norm and the controls make of the settings. In double, rounded once.
__global__ void begin_update_kernel(float* factors, double* controls, const double* norm, OptimizerSettings settings) {
    const double gradient_norm = *norm, rate = controls[static_cast<int>(UpdateControl::LearningRate)];
    const bool applies = fabs(gradient_norm) < INFINITY;
    at(factors, Factor::Applies) = applies ? 1.0f : 0.0f;
    if (!applies) return;
    const double updates = controls[static_cast<int>(UpdateControl::Updates)] += 1;
    const bool clips = settings.grad_clip > 0 && gradient_norm > settings.grad_clip;
    at(factors, Factor::GradientScale) = clips ? static_cast<float>(settings.grad_clip / gradient_norm) : 1.0f;
    at(factors, Factor::Rate) = static_cast<float>(rate);
    at(factors, Factor::Keep) = static_cast<float>(1 - rate * settings.weight_decay);
    at(factors, Factor::Step) = static_cast<float>(rate / (1 - pow(static_cast<double>(settings.beta1), updates)));
    at(factors, Factor::InverseRootBias2) =
        static_cast<float>(1 / sqrt(1 - pow(static_cast<double>(settings.beta2), updates)));
}

/// The flat buffers; `values` is the master, or the parameters where they are fp32 (then `parameters` is null).
template <typename P>
struct Buffers {
    P* parameters;
    float *values, *m, *v;
    const float* gradients;
};

constexpr int kMaxRanges = 128;  ///< Launch parameters have room for 4 KiB.
constexpr int64_t kUpdateBlock = int64_t{kThreads} * kGroup * 8;
using Ranges = RangeBatch<Range, kMaxRanges>;

template <typename P, typename Rule, int kSize>
__device__ __forceinline__ void update_group(const Buffers<P>& to, int64_t i, const Rule& rule, const Constants& k,
                                             float scale, float keep) {
    const Group<float, kSize> gradients = load_group_streaming<kSize>(to.gradients + i);
    Group<float, kSize> m = load_group_streaming<kSize>(to.m + i), v = {};
    if constexpr (Rule::kSecondMoment) v = load_group_streaming<kSize>(to.v + i);
    Group<float, kSize> values = load_group_streaming<kSize>(to.values + i);
#pragma unroll
    for (int j = 0; j < kSize; ++j) values[j] = rule(values[j], scale * gradients[j], m[j], v[j], keep, k);
    store_group_streaming(to.m + i, m);
    if constexpr (Rule::kSecondMoment) store_group_streaming(to.v + i, v);
    store_group_streaming(to.values + i, values);
    if constexpr (std::is_same_v<P, bf16>) {
        Group<P, kSize> rounded;
#pragma unroll
        for (int j = 0; j < kSize; ++j) rounded[j] = from_float<P>(values[j]);
        store_group(to.parameters + i, rounded);
    }
}

/// Bytes of AdamW, for an element: reads 16 (gradient, m, v, value), writes 12, and 2 of a rounded parameter. The sums
/// of squares have read the gradient before. GPT-2 124M at 3.0 TB/s: 1.24 ms.
template <typename P, typename Rule>
__global__ void __launch_bounds__(kThreads)
    update_kernel(Buffers<P> buffers, const __grid_constant__ Ranges ranges, Constants k, const float* factors) {
    if (at(factors, Factor::Applies) == 0) return;
    const Rule rule(factors);
    const float scale = at(factors, Factor::GradientScale);
    const Range& range = range_of(ranges, blockIdx.x);
    const float keep = range.decay ? at(factors, Factor::Keep) : 1.0f;
    const int64_t offset_in_range = (blockIdx.x - range.first_block) * kUpdateBlock;
    const int64_t begin = range.offset + offset_in_range;
    const int64_t end = begin + min(kUpdateBlock, range.count - offset_in_range);
    const int64_t grouped = range.offset % kGroup == 0 ? begin + (end - begin) / kGroup * kGroup : begin;
#pragma unroll 2
    for (int64_t i = begin + threadIdx.x * kGroup; i < grouped; i += kThreads * kGroup)
        update_group<P, Rule, kGroup>(buffers, i, rule, k, scale, keep);
    for (int64_t i = grouped + threadIdx.x; i < end; i += kThreads)
        update_group<P, Rule, 1>(buffers, i, rule, k, scale, keep);
}

template <typename P, typename Rule>
void update_by(cudaStream_t stream, const Buffers<P>& buffers, std::span<const ParameterRange> ranges,
               const OptimizerSettings& settings, const float* factors) {
    for_each_batch<Ranges>(ranges, kUpdateBlock, [&](const Ranges& batch, int64_t blocks) {
        launch(update_kernel<P, Rule>, blocks_of(blocks), kThreads, 0, stream, buffers, batch, Constants(settings),
               factors);
    });
}

template <typename P>
void update_buffers(cudaStream_t stream, const Buffers<P>& buffers, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings, const float* factors) {
    switch (settings.kind) {
        case OptimizerKind::AdamW: return update_by<P, AdamW>(stream, buffers, ranges, settings, factors);
        case OptimizerKind::Lion: return update_by<P, Lion>(stream, buffers, ranges, settings, factors);
    }
}

}  // namespace optimizer_kernels

void CudaBackend::begin_update(Tensor factors, Tensor controls, Tensor norm, const OptimizerSettings& settings) {
    CHECK(factors.count() == kNumFactors && controls.count() == kNumControls, factors.count(), controls.count());
    launch(begin_update_kernel, 1, 1, 0, stream_, elements_of<float>(factors), elements_of<double>(controls),
           elements_of<const double>(norm), settings);
}

void CudaBackend::update(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                         const OptimizerSettings& settings, Tensor factors) {
    const auto& [parameters, master, m, v, gradients, m_scales, v_scales, controls] = operands;
    const bool mixed = parameters.dtype == DType::BF16;
    CHECK(mixed || !master, "fp32 parameters have no master copy");
    CHECK(optimizer_row(settings.kind).second_moment == static_cast<bool>(v), "the optimiser's moments");
    const bool in_fp32 = m.dtype == DType::F32 && gradients.dtype == DType::F32 && mixed == static_cast<bool>(master);
    const bool is_shifted =
        std::any_of(ranges.begin(), ranges.end(), [](const ParameterRange& range) { return range.moments_shift != 0; });
    if (!in_fp32 || is_shifted) return update_formats(stream_, operands, ranges, settings, factors);
    CHECK(all_aligned({parameters.data, master.data, m.data, v.data, gradients.data}), "flat buffers are aligned");
    float *const mean = elements_of<float>(m), *const square = elements_of<float>(v);
    const float* const g = elements_of<const float>(gradients);
    const float* const of_update = elements_of<const float>(factors);
    if (mixed)
        update_buffers<bf16>(stream_, {elements_of<bf16>(parameters), elements_of<float>(master), mean, square, g},
                             ranges, settings, of_update);
    else
        update_buffers<float>(stream_, {nullptr, elements_of<float>(parameters), mean, square, g}, ranges, settings,
                              of_update);
}

}  // namespace llmc::cuda
