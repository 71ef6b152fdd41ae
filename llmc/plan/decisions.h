// What a plan decides for every layer, in words and numbers: what is kept, what runs again, what goes to host memory.
#pragma once

#include "llmc/plan/cost.h"
#include "llmc/plan/policy.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// Layers in a row for which the same was decided. Bytes and seconds are those of one of them.
struct LayerDecision {
    int first = 0, last = 0;
    std::string keeps;            ///< Name of a mode, one of decision_words().
    bool input_on_host = false;   ///< Its input is copied to host memory, and comes back for its backward.
    int64_t kept_bytes = 0;       ///< Of device memory, from the forward until its backward.
    int64_t host_bytes = 0;       ///< Copied out, and back.
    double repeated_seconds = 0;  ///< Of what runs again for it in one micro-batch.
    int64_t tile_tokens = 0;      ///< That what is not kept lives for; 0: all (tiles.h).
    int count() const { return last - first + 1; }
};

/// From the plan of a training step and what it was made from.
std::vector<LayerDecision> layer_decisions(const Model& model, const Plan& plan, const KeepSet& keep,
                                           const OpTimes& times);

/// What a mode keeps and what runs again, in words: of the names that `decisions` have.
struct ModeWords {
    std::string name, words;
};
std::vector<ModeWords> decision_words(const std::vector<LayerDecision>& decisions);

}  // namespace llmc
