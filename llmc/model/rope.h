// Rotary positions (Su et al. 2021): the angles by which pairs of columns turn, and how they are stretched for contexts
// longer than the model was first trained on.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace llmc {

struct ModelConfig;

struct RopeScaling {
    enum class Kind : uint8_t {
        None,
        Linear,    ///< Positions over `factor` (Chen et al. 2023).
        Llama3,    ///< Long waves over `factor`, short ones as they are (Dubey et al. 2024).
        Dynamic,   ///< A larger base for sequences beyond original_max_position ("NTK-aware").
        Yarn,      ///< As Llama3 with another ramp between the waves, and attention_factor (Peng et al. 2023).
        LongRope,  ///< A factor per pair, others beyond original_max_position (Ding et al. 2024).
    };
    Kind kind = Kind::None;
    double factor = 1;
    double low_freq_factor = 1;  ///< Llama3, as the next.
    double high_freq_factor = 4;
    double original_max_position = 8192;  ///< All but Linear.
    double attention_factor = 1;          ///< Yarn, LongRope: cosines and sines, so queries and keys, times this.
    double beta_fast = 32;                ///< Yarn: pairs that turn more often within the original length stay,
    double beta_slow = 1;                 ///< those that turn less often are stretched;
    bool truncate = true;                 ///< both limits rounded to whole pairs.
    std::vector<double> short_factors = {}, long_factors = {};  ///< LongRope, by pair.
    bool operator==(const RopeScaling&) const = default;

    /// Longest sequence that a model of `positions` is made for.
    int64_t stretched(int64_t positions) const;
    /// attention_factor where a configuration gives none: of Yarn by its paper, of LongRope by its authors' code.
    double usual_attention_factor() const;
};

/// "none", "linear", "llama3", ..., in the order of the enumeration: names in checkpoints and in config.json.
std::span<const std::string_view> rope_scaling_names();
inline std::string_view name_of(RopeScaling::Kind kind) { return rope_scaling_names()[static_cast<size_t>(kind)]; }

/// Radians per position of each pair of columns, for sequences of up to `positions` tokens: Dynamic and LongRope turn
/// by other angles in longer sequences.
std::vector<double> rope_frequencies(const ModelConfig& config, int64_t positions);

/// Cosines and sines: (positions, rotary_columns()) fp32, per position those of all pairs' cosines, then the sines;
/// computed in double.
std::vector<float> rope_table(const ModelConfig& config, int64_t positions);

}  // namespace llmc
