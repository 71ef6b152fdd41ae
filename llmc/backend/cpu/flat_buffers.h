// How flat buffers of parameters are walked, and the random bits that round them.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/base/stochastic_rounding.h"

#include <algorithm>
#include <span>
#include <vector>

namespace llmc::cpu {

/// Elements of a block of work, and of the tiles it is walked in.
constexpr int64_t kBlock = 65536;
constexpr int64_t kTile = 1024;

/// The ranges cut into blocks.
inline std::vector<ParameterRange> cut(std::span<const ParameterRange> ranges, int64_t block) {
    std::vector<ParameterRange> blocks;
    for (const ParameterRange& range : ranges)
        for (int64_t begin = 0; begin < range.count; begin += block) {
            ParameterRange& part = blocks.emplace_back(range);
            part.offset += begin, part.first += begin;
            part.count = std::min(block, range.count - begin);
        }
    return blocks;
}

/// out = x; returns out.
inline float* widen(float* out, const bf16* x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) out[i] = to_float(x[i]);
    return out;
}

/// What rounds weights and moments in the update that `controls` have counted already; nothing where they are empty.
inline RoundingDraws update_draws(uint64_t seed, Tensor controls) {
    if (!controls) return {};
    const double updates = controls.as<double>()[static_cast<size_t>(UpdateControl::Updates)];
    return {rounding_key(seed), static_cast<uint32_t>(static_cast<uint64_t>(updates)), 0};
}

/// What rounds the gradients of the micro-batch at hand, for the update after those that were applied.
inline RoundingDraws gradient_draws(uint64_t seed, Tensor controls) {
    RoundingDraws draws = update_draws(seed, controls);
    draws.micro_batch = static_cast<uint32_t>(
        static_cast<uint64_t>(controls.as<double>()[static_cast<size_t>(UpdateControl::MicroBatch)]));
    return draws;
}

}  // namespace llmc::cpu
