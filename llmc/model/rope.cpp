#include "llmc/model/rope.h"

#include "llmc/model/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmc {
namespace {

constexpr std::string_view kNames[] = {"none", "linear", "llama3", "dynamic", "yarn", "longrope"};
static_assert(std::size(kNames) == static_cast<size_t>(RopeScaling::Kind::LongRope) + 1);

/// Of the waves between those that stay and those that are stretched: 1 stays.
double blended(double frequency, double factor, double stays) {
    const double keep = std::clamp(stays, 0.0, 1.0);
    return keep * frequency + (1 - keep) * frequency / factor;
}

double llama3(const RopeScaling& scaling, double frequency) {
    const double turns = scaling.original_max_position * frequency / (2 * std::numbers::pi);
    const double blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    return blended(frequency, scaling.factor, blend);
}

/// The pairs between which YaRN's ramp goes from "stays" to "is stretched".
struct Ramp {
    double first, last;

    Ramp(const RopeScaling& scaling, double columns, double base) {
        const auto pair_that_turns = [&](double times) {
            const double length = scaling.original_max_position / (times * 2 * std::numbers::pi);
            return columns * std::log(length) / (2 * std::log(base));
        };
        first = pair_that_turns(scaling.beta_fast), last = pair_that_turns(scaling.beta_slow);
        if (scaling.truncate) first = std::floor(first), last = std::ceil(last);
        first = std::max(first, 0.0), last = std::min(last, columns - 1);
        if (first == last) last += 0.001;
    }
    double stays(double pair) const { return 1 - (pair - first) / (last - first); }
};

/// Dynamic: the base that makes a sequence of `positions` the original length.
double stretched_base(const RopeScaling& scaling, double base, double columns, double positions) {
    if (scaling.kind != RopeScaling::Kind::Dynamic || positions <= scaling.original_max_position) return base;
    const double grown = scaling.factor * positions / scaling.original_max_position - (scaling.factor - 1);
    return base * std::pow(grown, columns / (columns - 2));
}

}  // namespace

std::span<const std::string_view> rope_scaling_names() { return kNames; }

int64_t RopeScaling::stretched(int64_t positions) const {
    if (kind != Kind::Yarn && kind != Kind::Dynamic) return positions;
    constexpr double kMost = 100'000'000;  // That validate() takes.
    return std::max(positions, static_cast<int64_t>(std::min(original_max_position * factor, kMost)));
}

double RopeScaling::usual_attention_factor() const {
    if (factor <= 1) return 1;
    if (kind == Kind::Yarn) return 0.1 * std::log(factor) + 1;
    if (kind == Kind::LongRope) return std::sqrt(1 + std::log(factor) / std::log(original_max_position));
    return 1;
}

std::vector<double> rope_frequencies(const ModelConfig& config, int64_t positions) {
    const RopeScaling& scaling = config.rope_scaling;
    const auto columns = static_cast<double>(config.rotary_columns()), length = static_cast<double>(positions);
    const double base = stretched_base(scaling, config.rope_theta, columns, length);
    const Ramp ramp(scaling, columns, base);
    const auto& factors = length > scaling.original_max_position ? scaling.long_factors : scaling.short_factors;
    std::vector<double> frequencies(static_cast<size_t>(config.rotary_columns() / 2));
    for (size_t i = 0; i < frequencies.size(); ++i) {
        const double f = std::pow(base, -2.0 * static_cast<double>(i) / columns);
        switch (scaling.kind) {
            case RopeScaling::Kind::None:
            case RopeScaling::Kind::Dynamic: frequencies[i] = f; break;
            case RopeScaling::Kind::Linear: frequencies[i] = f / scaling.factor; break;
            case RopeScaling::Kind::Llama3: frequencies[i] = llama3(scaling, f); break;
            case RopeScaling::Kind::Yarn:
                frequencies[i] = blended(f, scaling.factor, ramp.stays(static_cast<double>(i)));
                break;
            case RopeScaling::Kind::LongRope: frequencies[i] = f / factors[i]; break;
        }
    }
    return frequencies;
}

std::vector<float> rope_table(const ModelConfig& config, int64_t positions) {
    const std::vector<double> frequencies = rope_frequencies(config, positions);
    const size_t half = frequencies.size();
    const double factor = config.rope_scaling.attention_factor;
    std::vector<float> table(static_cast<size_t>(positions) * 2 * half);
    for (size_t t = 0; t < static_cast<size_t>(positions); ++t) {
        for (size_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(t) * frequencies[i];
            table[t * 2 * half + i] = static_cast<float>(factor * std::cos(angle));
            table[t * 2 * half + half + i] = static_cast<float>(factor * std::sin(angle));
        }
    }
    return table;
}

}  // namespace llmc
