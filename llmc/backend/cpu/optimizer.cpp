// The optimisers over flat buffers: fixed blocks, one parallel region, bound by memory. A block is walked in tiles that
// stay in the first cache: what is not kept in fp32 is widened into the tile before the update and rounded after it.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/backend/cpu/flat_buffers.h"
#include "llmc/backend/cpu/parallel.h"
#include "llmc/base/dynamic_map.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace llmc::cpu {
namespace {

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

/// A tile in fp32: in place where a buffer is fp32, else a copy.
struct Tile {
    float *values, *m, *v;
    const float* gradients;
    int64_t count;
    float keep;
};

void adamw(const Tile& tile, const Coefficients& coefficients) {
    const auto [values, m, v, gradients, count, keep] = tile;
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
    }
}

void lion(const Tile& tile, const Coefficients& coefficients) {
    const auto [values, m, v, gradients, count, keep] = tile;
    const Coefficients k = coefficients;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const float g = k.gradient_scale * gradients[i];
        const float direction = k.beta1 * m[i] + k.one_minus_beta1 * g;
        const float sign = direction > 0 ? 1.0f : direction < 0 ? -1.0f : 0.0f;
        values[i] = keep * values[i] - k.rate * sign;
        m[i] = k.beta2 * m[i] + k.one_minus_beta2 * g;
    }
}

void update_tile(OptimizerKind kind, const Tile& tile, const Coefficients& coefficients) {
    switch (kind) {
        case OptimizerKind::AdamW: return adamw(tile, coefficients);
        case OptimizerKind::Lion: return lion(tile, coefficients);
    }
}

/// A buffer that an update reads and writes, in whatever format, tile by tile.
class Kept {
  public:
    Kept(Tensor values, Tensor scales, RoundedBuffer buffer, const DynamicMap& map, const RoundingDraws& draws)
        : values_(values), scales_(scales), buffer_(buffer), map_(map), draws_(draws) {
        CHECK((values.dtype == DType::U8) == static_cast<bool>(scales), name_of(values.dtype));
    }
    bool is_copied() const { return values_ && values_.dtype != DType::F32; }

    /// Elements [first, first + count) in fp32.
    float* load(float* copy, int64_t first, int64_t count) const {
        if (!values_) return nullptr;
        if (values_.dtype == DType::F32) return values_.as<float>() + first;
        if (values_.dtype == DType::BF16) {
            widen(copy, values_.as<bf16>() + first, count);
            return copy;
        }
        for (int64_t i = 0; i < count; i += kStateBlock)
            dequantise_block(copy + i, codes() + first + i, scale_of(first + i), std::min(kStateBlock, count - i),
                             map_);
        return copy;
    }

    /// What load() gave, as it has become; the tile begins at element `in_row` of its row.
    void store(const float* copy, int64_t first, int64_t count, int32_t row, int64_t in_row) const {
        if (!is_copied()) return;
        if (values_.dtype == DType::U8) {
            for (int64_t i = 0; i < count; i += kStateBlock)
                scale_of(first + i) =
                    quantise_block(codes() + first + i, copy + i, std::min(kStateBlock, count - i), map_);
            return;
        }
        uint16_t random[kTile];
        fill_rounding_bits(random, draws_, buffer_, row, in_row, count);
        bf16* const to = values_.as<bf16>() + first;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) to[i] = round_stochastically(copy[i], random[i]);
    }

  private:
    uint8_t* codes() const { return static_cast<uint8_t*>(values_.data); }
    float& scale_of(int64_t element) const { return scales_.as<float>()[element / kStateBlock]; }

    Tensor values_, scales_;
    RoundedBuffer buffer_;
    const DynamicMap& map_;
    const RoundingDraws& draws_;
};

void round_to(bf16* to, const float* values, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) to[i] = to_bf16(values[i]);
}

void check_operands(const UpdateOperands& operands, std::span<const ParameterRange> ranges,
                    const OptimizerSettings& settings) {
    const bool is_rounded = operands.parameters.dtype == DType::BF16;
    CHECK(is_rounded || !operands.master, "fp32 parameters have no master copy");
    CHECK(optimizer_row(settings.kind).second_moment == static_cast<bool>(operands.v), "the optimiser's moments");
    CHECK(!operands.v || operands.v.dtype == operands.m.dtype, "both moments in one format");
    const int64_t multiple = operands.m.dtype == DType::U8 ? kStateBlock : kDrawsOfCounter;
    const bool is_by_row = operands.m.dtype != DType::F32 || (is_rounded && !operands.master);
    for (const ParameterRange& range : ranges) {
        if (!is_by_row) break;
        CHECK(range.first % multiple == 0 && operands.controls, range.first, multiple);
        CHECK(operands.m.dtype != DType::U8 || (range.offset + range.moments_shift) % kStateBlock == 0, range.offset);
    }
}

}  // namespace

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
    if (at(factors.as<float>(), Factor::Applies) == 0) return;
    check_operands(operands, ranges, settings);
    const Coefficients coefficients(settings, factors.as<float>());
    const RoundingDraws draws = update_draws(settings.seed, operands.controls);
    const Tensor weights = operands.master ? operands.master : operands.parameters;
    const Kept kept_weights(weights, {}, RoundedBuffer::Weights, signed_map(), draws);
    const Kept kept_m(operands.m, operands.m_scales, RoundedBuffer::MomentM, signed_map(), draws);
    const Kept kept_v(operands.v, operands.v_scales, RoundedBuffer::MomentV, unsigned_map(), draws);
    const bool copies_gradients = operands.gradients.dtype == DType::BF16;

    const std::vector<ParameterRange> blocks = cut(ranges, kBlock);
    int64_t bytes = 0;
    for (const ParameterRange& block : blocks) bytes += block.count * 28;
    for_each_block(static_cast<int64_t>(blocks.size()), bytes, [&](int64_t index) {
        const ParameterRange& block = blocks[static_cast<size_t>(index)];
        float values[kTile], m[kTile], v[kTile], gradients[kTile];
        for (int64_t done = 0; done < block.count; done += kTile) {
            const int64_t count = std::min(kTile, block.count - done), first = block.offset + done;
            const int64_t of_moments = first + block.moments_shift, in_row = block.first + done;
            const Tile tile = {kept_weights.load(values, first, count),
                               kept_m.load(m, of_moments, count),
                               kept_v.load(v, of_moments, count),
                               copies_gradients ? widen(gradients, operands.gradients.as<bf16>() + first, count)
                                                : operands.gradients.as<float>() + first,
                               count,
                               block.decay ? coefficients.keep : 1.0f};
            update_tile(settings.kind, tile, coefficients);
            kept_weights.store(tile.values, first, count, block.row, in_row);
            kept_m.store(tile.m, of_moments, count, block.row, in_row);
            kept_v.store(tile.v, of_moments, count, block.row, in_row);
            if (operands.master) round_to(operands.parameters.as<bf16>() + first, tile.values, count);
        }
    });
}

}  // namespace llmc::cpu
