// Sums of gradients, between micro-batches and ranks, and their norm: fixed blocks, one parallel region each, bound by
// memory.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/flat_buffers.h"
#include "llmc/backend/cpu/parallel.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace llmc::cpu {
namespace {

constexpr int64_t kLanes = 32;  ///< Divides every chunk.

/// In lanes, whose sums are then halved: the same order at every address and vector width.
template <typename G>
double sum_of_squares(const G* x, int64_t count) {
    double lanes[kLanes] = {};
    for (int64_t i = 0; i < count; i += kLanes)
#pragma omp simd
        for (int64_t lane = 0; lane < kLanes; ++lane)
            lanes[lane] += double{to_float(x[i + lane])} * double{to_float(x[i + lane])};
    for (int64_t half = kLanes / 2; half > 0; half /= 2)
        for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

}  // namespace

void CpuBackend::add(Tensor out, Tensor x) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    float* to = out.as<float>();
    const float* from = x.as<float>();
    for_each_range(x.count(), kBlockElements, 3 * x.bytes(), [&](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) to[i] += from[i];
    });
}

void CpuBackend::add_rounded(Tensor out, bool adds, Tensor x, std::span<const ParameterRange> ranges, uint64_t seed,
                             Tensor controls) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    bf16* const to = out.as<bf16>();
    const float* const from = x.as<float>();
    const RoundingDraws draws = gradient_draws(seed, controls);
    const std::vector<ParameterRange> blocks = cut(ranges, kBlock);
    for_each_block(static_cast<int64_t>(blocks.size()), 2 * x.bytes(), [&](int64_t index) {
        const ParameterRange& block = blocks[static_cast<size_t>(index)];
        uint16_t random[kTile];
        for (int64_t done = 0; done < block.count; done += kTile) {
            const int64_t count = std::min(kTile, block.count - done);
            fill_rounding_bits(random, draws, RoundedBuffer::Gradients, block.row, block.first + done, count);
            bf16* const sum = to + block.offset + done;
            const float* const addend = from + block.offset + done;
#pragma omp simd
            for (int64_t i = 0; i < count; ++i) {
                const float value = adds ? to_float(sum[i]) + addend[i] : addend[i];
                sum[i] = round_stochastically(value, random[i]);
            }
        }
    });
}

void CpuBackend::square_sums(Tensor sums, Tensor gradients, int64_t chunk) {
    CHECK(chunk > 0 && chunk % 128 == 0 && gradients.count() == sums.count() * chunk, chunk, gradients.count(),
          sums.count());
    double* to = sums.as<double>();
    const int64_t chunks_of_block = std::max<int64_t>(1, kBlock / chunk);
    const auto sum_all = [&](const auto* from) {
        for_each_range(sums.count(), chunks_of_block, gradients.bytes(), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) to[i] = sum_of_squares(from + i * chunk, chunk);
        });
    };
    gradients.dtype == DType::BF16 ? sum_all(gradients.as<bf16>()) : sum_all(gradients.as<float>());
}

void CpuBackend::global_norm(Tensor norm, Tensor sums, Tensor pieces, const NormLayout& layout) {
    CHECK(sums.count() == layout.count() && pieces.count() == layout.buckets, sums.count(), layout.count(),
          pieces.count(), layout.buckets);
    const double* from = sums.as<double>();
    const int32_t* chunks = pieces.as<int32_t>();
    double sum = 0;
    for (int64_t bucket = 0; bucket < layout.buckets; ++bucket)
        for (int64_t rank = 0; rank < layout.ranks; ++rank) {
            const double* piece = from + (rank * layout.buckets + bucket) * layout.stride;
            for (int32_t i = 0; i < chunks[bucket]; ++i) sum += piece[i];
        }
    *norm.as<double>() = std::sqrt(sum);
}

}  // namespace llmc::cpu
