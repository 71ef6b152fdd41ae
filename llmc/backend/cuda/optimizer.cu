// Sums between ranks, the gradient norm and the optimisers over flat buffers, at the speed of memory. A chunk of
// gradients is squared and summed, in double, by a warp or, where it is long, by a block; one block then sums all
// chunks. An update takes many ranges in one launch: they travel by value with the launch, and a block finds its own
// among them. Whether to clip or to skip, and every number that changes from update to update, is made on the device.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"

#include <cmath>

namespace llmc::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 4;

template <int kSize>
__global__ void add_kernel(int64_t count, float* out, const float* x) {
    const int64_t i = group_begin<kSize>();
    if (i >= count) return;
    const Group<float, kSize> addend = load_group_streaming<kSize>(x + i);
    Group<float, kSize> sum = load_group<kSize>(out + i);
#pragma unroll
    for (int k = 0; k < kSize; ++k) sum[k] += addend[k];
    store_group(out + i, sum);
}

constexpr int64_t kLongestOfWarp = 4096;  ///< Elements of a chunk.
constexpr int kWarps = kThreads / kWarpSize;

/// The part of a chunk that thread `thread` of `threads` sums: they take a group each in turn. Chunks are whole numbers
/// of a warp's groups.
__device__ __forceinline__ double squares_of_thread(const float* chunk, int64_t length, int thread, int threads) {
    double sum = 0;
#pragma unroll 4
    for (int64_t i = thread * kGroup; i < length; i += threads * kGroup) {
        const Group<float, kGroup> group = load_group<kGroup>(chunk + i);
#pragma unroll
        for (int k = 0; k < kGroup; ++k) sum += static_cast<double>(group[k]) * static_cast<double>(group[k]);
    }
    return sum;
}

__global__ void __launch_bounds__(kThreads)
    squares_by_warp_kernel(double* sums, const float* gradients, int64_t length, int64_t chunks) {
    const int64_t chunk = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
    if (chunk >= chunks) return;
    const int lane = threadIdx.x % kWarpSize;
    const double sum = warp_sum(squares_of_thread(gradients + chunk * length, length, lane, kWarpSize));
    if (lane == 0) sums[chunk] = sum;
}

__global__ void __launch_bounds__(kThreads)
    squares_by_block_kernel(double* sums, const float* gradients, int64_t length) {
    const int64_t chunk = blockIdx.x;
    const double sum = block_sum(squares_of_thread(gradients + chunk * length, length, threadIdx.x, kThreads));
    if (threadIdx.x == 0) sums[chunk] = sum;
}

constexpr int kFinalThreads = 1024;

/// A thread takes every kFinalThreads-th chunk of each bucket.
__global__ void __launch_bounds__(kFinalThreads)
    norm_kernel(double* norm, const double* sums, const int32_t* pieces, NormLayout layout) {
    double sum = 0;
    for (int64_t bucket = 0; bucket < layout.buckets; ++bucket) {
        const int piece = pieces[bucket], chunks = static_cast<int>(layout.ranks) * piece;
#pragma unroll 4
        for (int chunk = threadIdx.x; chunk < chunks; chunk += kFinalThreads) {
            const int rank = chunk / piece;
            sum += sums[(rank * layout.buckets + bucket) * layout.stride + (chunk - rank * piece)];
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}

__device__ __forceinline__ float& at(float* factors, Factor factor) { return factors[static_cast<int>(factor)]; }
__device__ __forceinline__ float at(const float* factors, Factor factor) { return factors[static_cast<int>(factor)]; }

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

/// The flat buffers; `values` is the master, or the parameters where they are fp32 (then `parameters` is null).
template <typename P>
struct Buffers {
    P* parameters;
    float *values, *m, *v;
    const float* gradients;
};

constexpr int kMaxRanges = 128;  ///< Launch parameters have room for 4 KiB.
constexpr int64_t kUpdateBlock = int64_t{kThreads} * kGroup * 8;

struct Range {
    int64_t offset, count;
    int first_block;
    bool decay;
};
struct Ranges {
    Range ranges[kMaxRanges];
    int count;
};

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

/// The range that block `block` works in: the last that does not begin after it.
__device__ __forceinline__ const Range& range_of(const Ranges& ranges, int block) {
    int low = 0, high = ranges.count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (ranges.ranges[middle].first_block <= block)
            low = middle;
        else
            high = middle - 1;
    }
    return ranges.ranges[low];
}

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
    const Constants constants(settings);
    Ranges batch = {};
    int64_t blocks = 0;
    const auto flush = [&] {
        if (batch.count > 0)
            launch(update_kernel<P, Rule>, blocks_of(blocks), kThreads, 0, stream, buffers, batch, constants, factors);
        batch.count = 0;
        blocks = 0;
    };
    for (const ParameterRange& range : ranges) {
        if (range.count == 0) continue;
        batch.ranges[batch.count++] = {range.offset, range.count, static_cast<int>(blocks), range.decay};
        blocks += ceil_div(range.count, kUpdateBlock);
        if (batch.count == kMaxRanges) flush();
    }
    flush();
}

template <typename P>
void update_buffers(cudaStream_t stream, const Buffers<P>& buffers, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings, const float* factors) {
    switch (settings.kind) {
        case OptimizerKind::AdamW: return update_by<P, AdamW>(stream, buffers, ranges, settings, factors);
        case OptimizerKind::Lion: return update_by<P, Lion>(stream, buffers, ranges, settings, factors);
    }
}

}  // namespace

void CudaBackend::add(Tensor out, Tensor x) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    launch_elementwise<kGroup>(add_kernel<kGroup>, add_kernel<1>, stream_, x.count(), elements_of<float>(out),
                               elements_of<const float>(x));
}

void CudaBackend::square_sums(Tensor sums, Tensor gradients, int64_t chunk) {
    const int64_t chunks = sums.count();
    CHECK(chunk > 0 && chunk % (kWarpSize * kGroup) == 0 && gradients.count() == chunks * chunk, chunk,
          gradients.count(), chunks);
    CHECK(all_aligned({gradients.data}), "flat buffers are aligned");
    double* const to = elements_of<double>(sums);
    const float* const from = elements_of<const float>(gradients);
    if (chunks == 0) return;
    if (chunk <= kLongestOfWarp)
        launch(squares_by_warp_kernel, blocks_of(ceil_div(chunks, kWarps)), kThreads, 0, stream_, to, from, chunk,
               chunks);
    else
        launch(squares_by_block_kernel, blocks_of(chunks), kThreads, 0, stream_, to, from, chunk);
}

void CudaBackend::global_norm(Tensor norm, Tensor sums, Tensor pieces, const NormLayout& layout) {
    CHECK(sums.count() == layout.count() && pieces.count() == layout.buckets, sums.count(), layout.count(),
          pieces.count(), layout.buckets);
    launch(norm_kernel, 1, kFinalThreads, 0, stream_, elements_of<double>(norm), elements_of<const double>(sums),
           elements_of<const int32_t>(pieces), layout);
}

void CudaBackend::begin_update(Tensor factors, Tensor controls, Tensor norm, const OptimizerSettings& settings) {
    CHECK(factors.count() == kNumFactors && controls.count() == kNumControls, factors.count(), controls.count());
    launch(begin_update_kernel, 1, 1, 0, stream_, elements_of<float>(factors), elements_of<double>(controls),
           elements_of<const double>(norm), settings);
}

void CudaBackend::update(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                         const OptimizerSettings& settings, Tensor factors) {
    const auto& [parameters, master, m, v, gradients] = operands;
    const bool mixed = parameters.dtype == DType::BF16;
    CHECK(mixed == static_cast<bool>(master), "bf16 parameters need a master copy, fp32 parameters have none");
    CHECK(optimizer_row(settings.kind).second_moment == static_cast<bool>(v), "the optimiser's moments");
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
