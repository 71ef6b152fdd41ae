// Sums between ranks, the gradient norm and AdamW over flat buffers, at the speed of memory. A chunk of gradients is
// squared and summed, in double, by a warp or, where it is long, by a block; one block then sums all chunks. AdamW
// takes many ranges in one launch: they travel by value with the launch, and a block finds its own among them. Whether
// to clip or to skip is decided on the device.
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

/// The settings of one update, as the loop over elements needs them. The bias corrections are made in double.
struct Coefficients {
    float grad_clip, beta1, one_minus_beta1, beta2, one_minus_beta2, step, inverse_root_bias2, epsilon, keep;

    explicit Coefficients(const AdamWSettings& settings) {
        const double b1 = settings.beta1, b2 = settings.beta2, update = static_cast<double>(settings.update);
        grad_clip = settings.grad_clip;
        beta1 = settings.beta1;
        one_minus_beta1 = static_cast<float>(1 - b1);
        beta2 = settings.beta2;
        one_minus_beta2 = static_cast<float>(1 - b2);
        step = static_cast<float>(settings.learning_rate / (1 - std::pow(b1, update)));
        inverse_root_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(b2, update)));
        epsilon = settings.epsilon;
        keep = static_cast<float>(1 - double{settings.learning_rate} * settings.weight_decay);
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

template <typename P, int kSize>
__device__ __forceinline__ void update_group(const Buffers<P>& to, int64_t i, const Coefficients& k, float scale,
                                             float keep) {
    const Group<float, kSize> gradients = load_group_streaming<kSize>(to.gradients + i);
    Group<float, kSize> m = load_group_streaming<kSize>(to.m + i);
    Group<float, kSize> v = load_group_streaming<kSize>(to.v + i);
    Group<float, kSize> values = load_group_streaming<kSize>(to.values + i);
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
        const float g = scale * gradients[j];
        m[j] = k.beta1 * m[j] + k.one_minus_beta1 * g;
        v[j] = k.beta2 * v[j] + k.one_minus_beta2 * g * g;
        values[j] = keep * values[j] - k.step * m[j] / (sqrtf(v[j]) * k.inverse_root_bias2 + k.epsilon);
    }
    store_group_streaming(to.m + i, m);
    store_group_streaming(to.v + i, v);
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

template <typename P>
__global__ void __launch_bounds__(kThreads)
    update_kernel(Buffers<P> buffers, const __grid_constant__ Ranges ranges, Coefficients k, const double* norm) {
    const double gradient_norm = *norm;
    if (!(fabs(gradient_norm) < INFINITY)) return;
    const bool clip = k.grad_clip > 0 && gradient_norm > k.grad_clip;
    const float scale = clip ? static_cast<float>(k.grad_clip / gradient_norm) : 1.0f;
    const Range& range = range_of(ranges, blockIdx.x);
    const float keep = range.decay ? k.keep : 1.0f;
    const int64_t offset_in_range = (blockIdx.x - range.first_block) * kUpdateBlock;
    const int64_t begin = range.offset + offset_in_range;
    const int64_t end = begin + min(kUpdateBlock, range.count - offset_in_range);
    const int64_t grouped = range.offset % kGroup == 0 ? begin + (end - begin) / kGroup * kGroup : begin;
#pragma unroll 2
    for (int64_t i = begin + threadIdx.x * kGroup; i < grouped; i += kThreads * kGroup)
        update_group<P, kGroup>(buffers, i, k, scale, keep);
    for (int64_t i = grouped + threadIdx.x; i < end; i += kThreads) update_group<P, 1>(buffers, i, k, scale, keep);
}

template <typename P>
void update(cudaStream_t stream, const Buffers<P>& buffers, std::span<const ParameterRange> ranges,
            const AdamWSettings& settings, const double* norm) {
    const Coefficients coefficients(settings);
    Ranges batch = {};
    int64_t blocks = 0;
    const auto flush = [&] {
        if (batch.count > 0)
            launch(update_kernel<P>, blocks_of(blocks), kThreads, 0, stream, buffers, batch, coefficients, norm);
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

void CudaBackend::adamw(Tensor parameters, Tensor master, Tensor m, Tensor v, Tensor gradients,
                        std::span<const ParameterRange> ranges, const AdamWSettings& settings, Tensor norm) {
    const bool mixed = parameters.dtype == DType::BF16;
    CHECK(mixed == static_cast<bool>(master), "bf16 parameters need a master copy, fp32 parameters have none");
    CHECK(settings.update >= 1, settings.update);
    CHECK(all_aligned({parameters.data, master.data, m.data, v.data, gradients.data}), "flat buffers are aligned");
    float *const mean = elements_of<float>(m), *const square = elements_of<float>(v);
    const float* const g = elements_of<const float>(gradients);
    const double* const gradient_norm = elements_of<const double>(norm);
    if (mixed)
        update<bf16>(stream_, {elements_of<bf16>(parameters), elements_of<float>(master), mean, square, g}, ranges,
                     settings, gradient_norm);
    else
        update<float>(stream_, {nullptr, elements_of<float>(parameters), mean, square, g}, ranges, settings,
                      gradient_norm);
}

}  // namespace llmc::cuda
