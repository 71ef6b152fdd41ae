#include "llmc/io/gguf/gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmc {
namespace {

using Kind = RopeScaling::Kind;

/// llama.cpp's ramp between the pairs that stay and those that are stretched is in whole pairs, and where it ends
/// before it begins, llama.cpp computes something else.
bool has_llama_cpps_ramp(const ModelConfig& config) {
    const RopeScaling& scaling = config.rope_scaling;
    const auto columns = static_cast<double>(config.rotary_columns());
    const auto pair_that_turns = [&](double times) {
        const double length = scaling.original_max_position / (times * 2 * std::numbers::pi);
        return columns * std::log(length) / (2 * std::log(config.rope_theta));
    };
    const double first = std::max(0.0, std::floor(pair_that_turns(scaling.beta_fast)));
    const double last = std::min(columns - 1, std::ceil(pair_that_turns(scaling.beta_slow)));
    return scaling.truncate && first <= last;
}

bool is_whole(double x) { return x == std::floor(x); }

}  // namespace

bool gguf_can_say_rope(const ModelConfig& config, bool takes_divisors) {
    switch (config.rope_scaling.kind) {
        case Kind::None:
        case Kind::Linear: return true;
        case Kind::Llama3: return takes_divisors;
        case Kind::Yarn:
            return takes_divisors ||
                   (has_llama_cpps_ramp(config) && is_whole(config.rope_scaling.original_max_position));
        case Kind::Dynamic:
        case Kind::LongRope: return false;
    }
    return false;
}

std::vector<float> gguf_rope_divisors(const ModelConfig& config, bool takes_divisors) {
    const Kind kind = config.rope_scaling.kind;
    if (!takes_divisors || (kind != Kind::Llama3 && kind != Kind::Yarn)) return {};
    ModelConfig plain = config;
    plain.rope_scaling = {};
    const std::vector<double> frequencies = rope_frequencies(plain, config.maxT);
    const std::vector<double> stretched = rope_frequencies(config, config.maxT);
    std::vector<float> divisors;
    for (size_t i = 0; i < frequencies.size(); ++i) {
        divisors.push_back(static_cast<float>(frequencies[i] / stretched[i]));
    }
    return divisors;
}

void add_rope_metadata(const std::string& architecture, const ModelConfig& config, bool takes_divisors,
                       GgufMetadata* metadata) {
    const RopeScaling& scaling = config.rope_scaling;
    const auto key = [&](const char* name) { return architecture + ".rope." + name; };
    metadata->add_count(key("dimension_count"), config.rotary_columns());
    metadata->add_number(key("freq_base"), config.rope_theta);
    double magnitude = scaling.attention_factor;
    if (scaling.kind == Kind::Linear) {
        metadata->add_text(key("scaling.type"), "linear");
        metadata->add_number(key("scaling.factor"), scaling.factor);
    } else if (scaling.kind == Kind::Yarn && !takes_divisors) {
        metadata->add_text(key("scaling.type"), "yarn");
        metadata->add_number(key("scaling.factor"), scaling.factor);
        metadata->add_count(key("scaling.original_context_length"), std::llround(scaling.original_max_position));
        metadata->add_number(key("scaling.yarn_beta_fast"), scaling.beta_fast);
        metadata->add_number(key("scaling.yarn_beta_slow"), scaling.beta_slow);
        magnitude /= scaling.usual_attention_factor();  // Which the type brings with it.
    }
    if (magnitude != 1) metadata->add_number(key("scaling.attn_factor"), magnitude);
}

}  // namespace llmc
