// Sums between ranks, the gradient norm and AdamW over flat buffers: fixed blocks, one parallel region each, bound by
// memory.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/parallel.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace llmc::cpu {
namespace {

constexpr int64_t kBlock = 65536;
constexpr int64_t kLanes = 32;  ///< Divides every chunk.

/// In lanes, whose sums are then halved: the same order at every address and vector width.
double sum_of_squares(const float* x, int64_t count) {
    double lanes[kLanes] = {};
    for (int64_t i = 0; i < count; i += kLanes)
#pragma omp simd
        for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += double{x[i + lane]} * x[i + lane];
    for (int64_t half = kLanes / 2; half > 0; half /= 2)
        for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

/// The settings of one update, as the loop over elements needs them.
struct Coefficients {
    float gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, step, inverse_root_bias2, epsilon;

    Coefficients(const AdamWSettings& settings, double norm) {
        const double b1 = settings.beta1, b2 = settings.beta2, update = static_cast<double>(settings.update);
        const bool clip = settings.grad_clip > 0 && norm > settings.grad_clip;
        gradient_scale = static_cast<float>(clip ? settings.grad_clip / norm : 1.0);
        beta1 = settings.beta1;
        one_minus_beta1 = static_cast<float>(1 - b1);
        beta2 = settings.beta2;
        one_minus_beta2 = static_cast<float>(1 - b2);
        step = static_cast<float>(settings.learning_rate / (1 - std::pow(b1, update)));
        inverse_root_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(b2, update)));
        epsilon = settings.epsilon;
    }
};

/// `master` holds the fp32 values; where the parameters are fp32 it is the parameters themselves.
template <typename P>
void update_range(P* parameters, float* master, float* m, float* v, const float* gradients, int64_t count,
                  const Coefficients& coefficients, float keep) {
    const Coefficients k = coefficients;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float g = k.gradient_scale * gradients[i];
        const float mean = k.beta1 * m[i] + k.one_minus_beta1 * g;
        const float square = k.beta2 * v[i] + k.one_minus_beta2 * g * g;
        const float value = keep * master[i] - k.step * mean / (std::sqrt(square) * k.inverse_root_bias2 + k.epsilon);
        m[i] = mean;
        v[i] = square;
        master[i] = value;
        if constexpr (!std::is_same_v<P, float>) parameters[i] = from_float<P>(value);
    }
}

/// The ranges cut into blocks.
std::vector<ParameterRange> cut(std::span<const ParameterRange> ranges) {
    std::vector<ParameterRange> blocks;
    for (const ParameterRange& range : ranges)
        for (int64_t begin = 0; begin < range.count; begin += kBlock)
            blocks.push_back({range.offset + begin, std::min(kBlock, range.count - begin), range.decay});
    return blocks;
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

void CpuBackend::square_sums(Tensor sums, Tensor gradients, int64_t chunk) {
    CHECK(chunk > 0 && chunk % 128 == 0 && gradients.count() == sums.count() * chunk, chunk, gradients.count(),
          sums.count());
    double* to = sums.as<double>();
    const float* from = gradients.as<float>();
    const int64_t chunks_of_block = std::max<int64_t>(1, kBlock / chunk);
    for_each_range(sums.count(), chunks_of_block, gradients.bytes(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = sum_of_squares(from + i * chunk, chunk);
    });
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

void CpuBackend::adamw(Tensor parameters, Tensor master, Tensor m, Tensor v, Tensor gradients,
                       std::span<const ParameterRange> ranges, const AdamWSettings& settings, Tensor norm) {
    const double gradient_norm = *norm.as<double>();
    if (!std::isfinite(gradient_norm)) return;
    const bool mixed = parameters.dtype == DType::BF16;
    CHECK(mixed == static_cast<bool>(master), "bf16 parameters need a master copy, fp32 parameters have none");
    CHECK(settings.update >= 1, settings.update);

    const Coefficients coefficients(settings, gradient_norm);
    const float keep = static_cast<float>(1 - double{settings.learning_rate} * settings.weight_decay);
    const std::vector<ParameterRange> blocks = cut(ranges);
    int64_t bytes = 0;
    for (const ParameterRange& block : blocks) bytes += block.count * (mixed ? 30 : 28);
    float* values = (mixed ? master : parameters).as<float>();
    for_each_block(static_cast<int64_t>(blocks.size()), bytes, [&](int64_t index) {
        const auto [at, count, decay] = blocks[index];
        float *mean = m.as<float>() + at, *square = v.as<float>() + at;
        const float* g = gradients.as<float>() + at;
        if (mixed)
            update_range(parameters.as<bf16>() + at, values + at, mean, square, g, count, coefficients,
                         decay ? keep : 1.0f);
        else
            update_range<float>(nullptr, values + at, mean, square, g, count, coefficients, decay ? keep : 1.0f);
    });
}

}  // namespace llmc::cpu
