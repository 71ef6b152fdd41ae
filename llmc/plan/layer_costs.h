// What one layer of a model costs in each of the modes that the search (search.h) chooses from, read off simulations of
// plans of small models like it: exact to the byte, whatever the generator and communicate.h put into a plan.
#pragma once

#include "llmc/plan/cost.h"
#include "llmc/plan/generate.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// What a layer may keep: a row of the table of modes.
struct LayerMode {
    std::string name;
    std::vector<bool> slots;  ///< By activation slot; the input is always kept.
};
std::vector<LayerMode> layer_modes(const Model& model);

/// Bytes and times of one layer in one mode.
struct ModeCost {
    int64_t kept_bytes = 0;  ///< Survives the forward.
    // Largest need during the layer's own backward, its kept bytes included: of the first layer, of one between others,
    // of the last. They differ by what ranks send each other beside it, which is about the neighbours.
    int64_t first_bytes = 0, middle_bytes = 0, last_bytes = 0;
    double extra_seconds = 0;
    double walk_seconds = 0;  ///< A walk from the layer's input to its output.
};

struct ModelCosts {
    int L = 0;       ///< Layers that have a backward; numbers of layers are theirs ...
    int lowest = 0;  ///< ... and the first of them is this one of the model.
    std::vector<LayerMode> modes;
    std::vector<ModeCost> cost;
    int64_t inputs_bytes = 0;    ///< There throughout: token ids.
    int64_t head_bytes = 0;      ///< Largest need at the head, on top of what all layers keep.
    int64_t outside_bytes = 0;   ///< Largest need before the first layer and after the last, of all memory.
    int64_t boundary_bytes = 0;  ///< X.
    /// As the boundary mode's middle_bytes, of a layer whose input a walk has just brought back. Less with ZeRO 3: the
    /// walk's gathers come after the reduction for the layer above, which is over by then.
    int64_t walked_bytes = 0;
    double layer_seconds = 0;  ///< A whole layer forward.

    int64_t backward_bytes(int layer, int mode) const {
        const ModeCost& of_mode = cost[static_cast<size_t>(mode)];
        return layer == L - 1 ? of_mode.last_bytes : layer == 0 ? of_mode.first_bytes : of_mode.middle_bytes;
    }
};

/// At least one layer must have a backward.
ModelCosts measure_layers(const Model& model, const PlanRequest& request, const OpTimes& times);

}  // namespace llmc
