// Sums between ranks, the gradient norm and the optimisers over flat buffers: fixed blocks, one parallel region each,
// bound by memory.
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

float& at(float* factors, Factor factor) { return factors[static_cast<size_t>(factor)]; }

/// What the loop over elements needs of one update.
struct Coefficients {
    float gradient_scale, keep, rate, step, inverse_root_bias2, beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon;

    Coefficients(const OptimizerSettings& settings, float* factors)
        : gradient_scale(at(factors, Factor::GradientScale)),
          keep(at(factors, Factor::Keep)),
          rate(at(factors, Factor::Rate)),
          step(at(factors, Factor::Step)),
          inverse_root_bias2(at(factors, Factor::InverseRootBias2)),
          beta1(settings.beta1),
          one_minus_beta1(static_cast<float>(1 - double{settings.beta1})),
          beta2(settings.beta2),
          one_minus_beta2(static_cast<float>(1 - double{settings.beta2})),
          epsilon(settings.epsilon) {}
};

/// A part of the flat buffers. `values` are the fp32 weights: the masters, or the parameters themselves, and then
/// `parameters` is null.
template <typename P>
struct Part {
    P* parameters;
    float *values, *m, *v;
    const float* gradients;
    int64_t count;
    float keep;
};

template <typename P>
void adamw(const Part<P>& part, const Coefficients& coefficients) {
    const auto [parameters, values, m, v, gradients, count, keep] = part;
    const Coefficients k = coefficients;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float g = k.gradient_scale * gradients[i];
        const float mean = k.beta1 * m[i] + k.one_minus_beta1 * g;
        const float square = k.beta2 * v[i] + k.one_minus_beta2 * g * g;
        const float value = keep * values[i] - k.step * mean / (std::sqrt(square) * k.inverse_root_bias2 + k.epsilon);
        m[i] = mean;
        v[i] = square;
        values[i] = value;
        if constexpr (!std::is_same_v<P, float>) parameters[i] = from_float<P>(value);
    }
}

template <typename P>
void lion(const Part<P>& part, const Coefficients& coefficients) {
    const auto [parameters, values, m, v, gradients, count, keep] = part;
    const Coefficients k = coefficients;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float g = k.gradient_scale * gradients[i];
        const float direction = k.beta1 * m[i] + k.one_minus_beta1 * g;
        const float sign = direction > 0 ? 1.0f : direction < 0 ? -1.0f : 0.0f;
        const float value = keep * values[i] - k.rate * sign;
        m[i] = k.beta2 * m[i] + k.one_minus_beta2 * g;
        values[i] = value;
        if constexpr (!std::is_same_v<P, float>) parameters[i] = from_float<P>(value);
    }
}

template <typename P>
void update_part(OptimizerKind kind, const Part<P>& part, const Coefficients& coefficients) {
    switch (kind) {
        case OptimizerKind::AdamW: return adamw(part, coefficients);
        case OptimizerKind::Lion: return lion(part, coefficients);
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

void CpuBackend::begin_update(Tensor factors, Tensor controls, Tensor norm, const OptimizerSettings& settings) {
    CHECK(factors.count() == kNumFactors && controls.count() == kNumControls, factors.count(), controls.count());
    float* const to = factors.as<float>();
    double* const control = controls.as<double>();
    const double gradient_norm = *norm.as<double>();
    const double rate = control[static_cast<size_t>(UpdateControl::LearningRate)];
    double& updates = control[static_cast<size_t>(UpdateControl::Updates)];
    const bool applies = std::isfinite(gradient_norm);
    at(to, Factor::Applies) = applies ? 1.0f : 0.0f;
    if (!applies) return;
    updates += 1;
    const bool clips = settings.grad_clip > 0 && gradient_norm > settings.grad_clip;
    at(to, Factor::GradientScale) = static_cast<float>(clips ? settings.grad_clip / gradient_norm : 1.0);
    at(to, Factor::Rate) = static_cast<float>(rate);
    at(to, Factor::Keep) = static_cast<float>(1 - rate * settings.weight_decay);
    at(to, Factor::Step) = static_cast<float>(rate / (1 - std::pow(double{settings.beta1}, updates)));
    at(to, Factor::InverseRootBias2) = static_cast<float>(1 / std::sqrt(1 - std::pow(double{settings.beta2}, updates)));
}

void CpuBackend::update(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                        const OptimizerSettings& settings, Tensor factors) {
    const auto& [parameters, master, m, v, gradients] = operands;
    if (at(factors.as<float>(), Factor::Applies) == 0) return;
    const bool mixed = parameters.dtype == DType::BF16;
    CHECK(mixed == static_cast<bool>(master), "bf16 parameters need a master copy, fp32 parameters have none");
    CHECK(optimizer_row(settings.kind).second_moment == static_cast<bool>(v), "the optimiser's moments");

    const Coefficients coefficients(settings, factors.as<float>());
    const std::vector<ParameterRange> blocks = cut(ranges);
    int64_t bytes = 0;
    for (const ParameterRange& block : blocks) bytes += block.count * (mixed ? 30 : 28);
    float* const values = (mixed ? master : parameters).as<float>();
    float *const mean = m.as<float>(), *const square = v ? v.as<float>() : nullptr;
    const float* const g = gradients.as<float>();
    for_each_block(static_cast<int64_t>(blocks.size()), bytes, [&](int64_t index) {
        const auto [first, count, decay] = blocks[index];
        const auto update_as = [&](auto* rounded) {
            using P = std::remove_pointer_t<decltype(rounded)>;
            const Part<P> part = {rounded ? rounded + first : nullptr, values + first, mean + first,
                                  square ? square + first : nullptr,   g + first,      count,
                                  decay ? coefficients.keep : 1.0f};
            update_part(settings.kind, part, coefficients);
        };
        if (mixed)
            update_as(parameters.as<bf16>());
        else
            update_as(static_cast<float*>(nullptr));
    });
}

}  // namespace llmc::cpu
