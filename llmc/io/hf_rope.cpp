#include "llmc/io/hf_rope.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

using nlohmann::json;
using Kind = RopeScaling::Kind;

/// What a RoPE's object may say. Another key might mean another model.
constexpr const char* kKeys[] = {"rope_type",
                                 "type",
                                 "rope_theta",
                                 "factor",
                                 "original_max_position_embeddings",
                                 "low_freq_factor",
                                 "high_freq_factor",
                                 "attention_factor",
                                 "beta_fast",
                                 "beta_slow",
                                 "mscale",
                                 "mscale_all_dim",
                                 "truncate",
                                 "short_factor",
                                 "long_factor",
                                 "partial_rotary_factor",
                                 "finetuned"};

void refuse_unknown_keys(const HfFields& rope) {
    for (const auto& [key, value] : rope.all().items()) {
        const bool known = std::any_of(std::begin(kKeys), std::end(kKeys), [&](const char* k) { return key == k; });
        rope.refuse(key.c_str(), !known && !value.is_null(), "one RoPE for all layers, without it");
    }
}

Kind kind_of(const HfFields& rope, const HfFamily& family) {
    const char* key = rope.has("rope_type") ? "rope_type" : "type";
    std::string type = rope.text(key, "default");
    if (type == "default") return Kind::None;
    if (family.longrope_length > 0 && (type == "su" || type == "yarn")) type = "longrope";
    const auto names = rope_scaling_names();
    const auto found = std::find(names.begin() + 1, names.end(), type);
    rope.refuse(key, found == names.end(), "default, linear, dynamic, llama3, yarn and longrope");
    const auto kind = static_cast<Kind>(found - names.begin());
    rope.refuse(key, family.longrope_length > 0 && kind != Kind::LongRope, "default and longrope for this model_type");
    return kind;
}

/// As Peng et al. 2023 and DeepSeek's models have it.
double magnitude(double factor, double scale) { return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1; }

double attention_factor(const HfFields& rope, const RopeScaling& scaling) {
    if (rope.has("attention_factor")) return rope.positive("attention_factor");
    const double mscale = rope.number("mscale", 0), all = rope.number("mscale_all_dim", 0);
    if (scaling.kind == Kind::Yarn && mscale != 0 && all != 0) {
        return magnitude(scaling.factor, mscale) / magnitude(scaling.factor, all);
    }
    return scaling.usual_attention_factor();
}

RopeScaling read_scaling(const HfFields& fields, const HfFields& rope, const HfFamily& family, double max_positions) {
    RopeScaling scaling;
    scaling.kind = kind_of(rope, family);
    const bool has_factor = rope.has("factor");
    if (has_factor) scaling.factor = rope.positive("factor");
    // The field of the configuration comes before that of the RoPE.
    constexpr const char* kOriginal = "original_max_position_embeddings";
    const double otherwise = family.longrope_length > 0 ? static_cast<double>(family.longrope_length) : max_positions;
    const HfFields& has_original = fields.has(kOriginal) || family.longrope_length > 0 ? fields : rope;
    const double original = has_original.positive(kOriginal, otherwise);
    switch (scaling.kind) {
        case Kind::None: return {};
        case Kind::Linear: scaling.factor = rope.positive("factor"); return scaling;
        case Kind::Dynamic:
            scaling.factor = rope.positive("factor"), scaling.original_max_position = max_positions;
            return scaling;
        case Kind::Llama3:
            scaling.factor = rope.positive("factor");
            scaling.low_freq_factor = rope.number("low_freq_factor");
            scaling.high_freq_factor = rope.number("high_freq_factor");
            scaling.original_max_position = original;
            return scaling;
        case Kind::Yarn:
            scaling.beta_fast = rope.positive("beta_fast", 32), scaling.beta_slow = rope.positive("beta_slow", 1);
            scaling.truncate = rope.flag("truncate", true);
            break;
        case Kind::LongRope:
            scaling.short_factors = rope.numbers("short_factor"), scaling.long_factors = rope.numbers("long_factor");
            break;
    }
    scaling.original_max_position = original;
    if (!has_factor) scaling.factor = max_positions / original;
    scaling.attention_factor = attention_factor(rope, scaling);
    if (!std::isfinite(scaling.attention_factor)) {
        fail("'{}': {} is {}, of which no attention_factor can be made; give one", fields.path(), kOriginal, original);
    }
    return scaling;
}

json scaling_json(const ModelConfig& config, const HfFamily& family) {
    const RopeScaling& scaling = config.rope_scaling;
    const auto original = std::llround(scaling.original_max_position);
    json object;
    switch (scaling.kind) {
        case Kind::None: return nullptr;
        // Exactly these two fields: transformers before 4.43 takes no others, and later ones read "type" as well.
        case Kind::Linear: return {{"type", "linear"}, {"factor", scaling.factor}};
        case Kind::Dynamic: return {{"type", "dynamic"}, {"factor", scaling.factor}};
        case Kind::Llama3:
            return {{"rope_type", "llama3"},
                    {"factor", scaling.factor},
                    {"low_freq_factor", scaling.low_freq_factor},
                    {"high_freq_factor", scaling.high_freq_factor},
                    {"original_max_position_embeddings", original}};
        case Kind::Yarn:
            object = {{"rope_type", "yarn"},
                      {"factor", scaling.factor},
                      {"beta_fast", scaling.beta_fast},
                      {"beta_slow", scaling.beta_slow},
                      {"original_max_position_embeddings", original}};
            if (!scaling.truncate) object["truncate"] = false;
            break;
        case Kind::LongRope:
            object = {
                {"type", "longrope"}, {"short_factor", scaling.short_factors}, {"long_factor", scaling.long_factors}};
            if (family.longrope_length == 0) object["original_max_position_embeddings"] = original;
            if (scaling.factor != static_cast<double>(config.maxT) / scaling.original_max_position) {
                object["factor"] = scaling.factor;
            }
            break;
    }
    if (scaling.attention_factor != scaling.usual_attention_factor()) {
        object["attention_factor"] = scaling.attention_factor;
    }
    return object;
}

/// The share of the columns that comes out as exactly so many when it is cut to a whole number.
double share_of(int64_t columns, int64_t all) {
    const auto size = static_cast<double>(all);
    double share = static_cast<double>(columns) / size;
    while (static_cast<int64_t>(size * share) < columns) share = std::nextafter(share, 2.0);
    return share;
}

}  // namespace

void read_hf_rope(const HfFields& fields, const HfFamily& family, ModelConfig* config) {
    const bool is_old = fields.has("rope_scaling") && !fields.value("rope_scaling").empty();
    const char* key = is_old ? "rope_scaling" : "rope_parameters";
    const json none = json::object();
    const HfFields rope(fields.has(key) ? fields.value(key) : none, fields.path());
    refuse_unknown_keys(rope);
    config->rope_theta = rope.positive("rope_theta", fields.positive("rope_theta", family.rope_theta));
    const HfFields& has_share = rope.has("partial_rotary_factor") ? rope : fields;
    const double share = has_share.positive("partial_rotary_factor", 1);
    has_share.refuse("partial_rotary_factor", share > 1 || (share != 1 && !family.partial_rotary_factor),
                     "whole heads rotated in models of this model_type");
    if (share != 1) {
        config->rotary_size = static_cast<int64_t>(static_cast<double>(config->HD) * share);
        has_share.refuse("partial_rotary_factor", config->rotary_size < 2,
                         "two columns of a head or more that are rotated");
    }
    config->rope_scaling = read_scaling(fields, rope, family, static_cast<double>(config->maxT));
    config->maxT = config->rope_scaling.stretched(config->maxT);
}

void write_hf_rope(const ModelConfig& config, const HfFamily& family, json* root) {
    const RopeScaling& scaling = config.rope_scaling;
    const bool dynamic = scaling.kind == Kind::Dynamic;
    (*root)["max_position_embeddings"] = dynamic ? std::llround(scaling.original_max_position) : config.maxT;
    (*root)["rope_theta"] = config.rope_theta;
    (*root)["rope_scaling"] = scaling_json(config, family);
    if (family.longrope_length > 0) {
        const bool longer = scaling.kind == Kind::LongRope;
        (*root)["original_max_position_embeddings"] =
            longer ? std::llround(scaling.original_max_position) : config.maxT;
    }
    if (config.rotary_size > 0) (*root)["partial_rotary_factor"] = share_of(config.rotary_size, config.HD);
}

}  // namespace llmc
