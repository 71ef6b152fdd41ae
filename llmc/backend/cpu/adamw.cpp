// The gradient norm and AdamW over flat buffers: fixed blocks, one parallel region each, bound by memory.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/parallel.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace llmc::cpu {
namespace {

constexpr int64_t kBlock = 65536;

double sum_of_squares(const float* x, int64_t count) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += double{x[i]} * x[i];
    return sum;
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

void CpuBackend::global_norm(Tensor norm, Tensor gradients, Tensor workspace) {
    const int64_t count = gradients.count();
    CHECK(workspace.bytes() >= global_norm_workspace(count), workspace.bytes(), count);
    const float* g = gradients.as<float>();
    double* partial = static_cast<double*>(workspace.data);
    for_each_range(count, kBlock, gradients.bytes(), [&](int64_t begin, int64_t end) {
        partial[begin / kBlock] = sum_of_squares(g + begin, end - begin);
    });
    double sum = 0;
    for (int64_t block = 0; block < ceil_div(count, kBlock); ++block) sum += partial[block];
    *norm.as<double>() = std::sqrt(sum);
}

int64_t CpuBackend::global_norm_workspace(int64_t count) const { return ceil_div(count, kBlock) * size_of(DType::F64); }

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
