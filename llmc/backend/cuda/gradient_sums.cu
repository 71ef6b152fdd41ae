// Sums of gradients, between micro-batches and ranks, and their norm, at the speed of memory. A chunk of gradients is
// squared and summed, in double, by a warp or, where it is long, by a block; one block then sums all chunks.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/rounding.cuh"

#include <cmath>

namespace llmc::cuda {
inline namespace gradient_sums_kernels {

constexpr int kThreads = 256;
constexpr int kGroup = 4;

/// Bytes: reads both, writes out: 12 an element. All gradients of GPT-2 124M, at 3.0 TB/s: 0.50 ms.
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
template <typename G>
__device__ __forceinline__ double squares_of_thread(const G* chunk, int64_t length, int thread, int threads) {
    double sum = 0;
#pragma unroll 4
    for (int64_t i = thread * kGroup; i < length; i += threads * kGroup) {
        const Group<G, kGroup> group = load_group<kGroup>(chunk + i);
#pragma unroll
        for (int k = 0; k < kGroup; ++k) {
            const double x = to_float(group[k]);
            sum += x * x;
        }
    }
    return sum;
}

/// Bytes: reads the gradients: 4 an element of fp32. All of GPT-2 124M, at 3.0 TB/s: 0.166 ms.
template <typename G>
__global__ void __launch_bounds__(kThreads)
    squares_by_warp_kernel(double* sums, const G* gradients, int64_t length, int64_t chunks) {
    const int64_t chunk = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
    if (chunk >= chunks) return;
    const int lane = threadIdx.x % kWarpSize;
    const double sum = warp_sum(squares_of_thread(gradients + chunk * length, length, lane, kWarpSize));
    if (lane == 0) sums[chunk] = sum;
}

template <typename G>
__global__ void __launch_bounds__(kThreads) squares_by_block_kernel(double* sums, const G* gradients, int64_t length) {
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

template <typename G>
void square_sums_of(cudaStream_t stream, double* sums, const G* gradients, int64_t chunk, int64_t chunks) {
    if (chunk <= kLongestOfWarp)
        launch(squares_by_warp_kernel<G>, blocks_of(ceil_div(chunks, kWarps)), kThreads, 0, stream, sums, gradients,
               chunk, chunks);
    else
        launch(squares_by_block_kernel<G>, blocks_of(chunks), kThreads, 0, stream, sums, gradients, chunk);
}

constexpr int kMaxRanges = 64;
constexpr int64_t kRoundingBlock = int64_t{kThreads} * kDraws * 2;
using Ranges = RangeBatch<RowRange, kMaxRanges>;

/// A thread takes the elements of one counter at a time.
/// Bytes: reads x, and out where it adds, writes out: 6 or 8 an element. All gradients of GPT-2 124M, at 3.0 TB/s: 0.25
/// or 0.33 ms.
template <bool kAdds>
__global__ void __launch_bounds__(kThreads)
    add_rounded_kernel(bf16* out, const float* x, const __grid_constant__ Ranges ranges, RoundingKey key,
                       const double* controls) {
    const RowRange& range = range_of(ranges, blockIdx.x);
    const int64_t offset_in_range = (blockIdx.x - range.first_block) * kRoundingBlock;
    const int64_t end = min(offset_in_range + kRoundingBlock, range.count);
    const Rounding rounding(key, controls, control_of(controls, UpdateControl::MicroBatch));
    for (int64_t i = offset_in_range + threadIdx.x * kDraws; i < end; i += kThreads * kDraws) {
        const int64_t at = range.offset + i;
        const int count = static_cast<int>(min(int64_t{kDraws}, end - i));
        float sums[kDraws], addends[kDraws];
        load_floats(addends, x + at, count);
        if constexpr (kAdds) {
            load_floats(sums, out + at, count);
#pragma unroll
            for (int k = 0; k < kDraws; ++k) sums[k] += addends[k];
        }
        store_rounded(out + at, kAdds ? sums : addends, count,
                      rounding.draw(RoundedBuffer::Gradients, range.row, range.first + i));
    }
}

}  // namespace gradient_sums_kernels

void CudaBackend::add(Tensor out, Tensor x) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    launch_elementwise<kGroup>(add_kernel<kGroup>, add_kernel<1>, stream_, x.count(), elements_of<float>(out),
                               elements_of<const float>(x));
}

void CudaBackend::add_rounded(Tensor out, bool adds, Tensor x, std::span<const ParameterRange> ranges, uint64_t seed,
                              Tensor controls) {
    CHECK(out.count() == x.count() && all_aligned({out.data, x.data}), out.count(), x.count());
    bf16* const to = elements_of<bf16>(out);
    const float* const from = elements_of<const float>(x);
    const RoundingKey key = key_of(seed);
    for_each_batch<Ranges>(ranges, kRoundingBlock, [&](const Ranges& batch, int64_t blocks) {
        launch(adds ? add_rounded_kernel<true> : add_rounded_kernel<false>, blocks_of(blocks), kThreads, 0, stream_, to,
               from, batch, key, elements_of<const double>(controls));
    });
}

void CudaBackend::square_sums(Tensor sums, Tensor gradients, int64_t chunk) {
    const int64_t chunks = sums.count();
    CHECK(chunk > 0 && chunk % (kWarpSize * kGroup) == 0 && gradients.count() == chunks * chunk, chunk,
          gradients.count(), chunks);
    CHECK(all_aligned({gradients.data}), "flat buffers are aligned");
    if (chunks == 0) return;
    double* const to = elements_of<double>(sums);
    if (gradients.dtype == DType::BF16)
        square_sums_of(stream_, to, elements_of<const bf16>(gradients), chunk, chunks);
    else
        square_sums_of(stream_, to, elements_of<const float>(gradients), chunk, chunks);
}

void CudaBackend::global_norm(Tensor norm, Tensor sums, Tensor pieces, const NormLayout& layout) {
    CHECK(sums.count() == layout.count() && pieces.count() == layout.buckets, sums.count(), layout.count(),
          pieces.count(), layout.buckets);
    launch(norm_kernel, 1, kFinalThreads, 0, stream_, elements_of<double>(norm), elements_of<const double>(sums),
           elements_of<const int32_t>(pieces), layout);
}

}  // namespace llmc::cuda
