// Choosing the next token from a model's logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llmc {

struct SamplerSettings {
    double temperature = 0.8;  ///< 0: the most likely token.
    int64_t top_k = 0;         ///< Only the k most likely tokens; 0: all.
    double top_p = 1;          ///< Only the fewest most likely tokens whose probabilities sum up to this.
    uint64_t seed = 0;
};

/// Draws one of logits.size() tokens, but none whose logit is -infinity or no number; -1 if there is no other. `text`
/// and `position` number the draw: the same numbers give the same token. Ties go to the smaller id. Temperature, then
/// top-k, then top-p, as in Hugging Face's generate().
int32_t sample_token(std::span<const float> logits, const SamplerSettings& settings, uint32_t text, uint64_t position);

}  // namespace llmc
