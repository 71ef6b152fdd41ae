// Policies: which activations survive the forward. A policy is a pure function (model, shape) -> KeepSet, about a page;
// the generator (generate.h) turns the KeepSet into steps. A new strategy is a new function here and a row in the
// table.
#pragma once

#include "llmc/model/model.h"

#include <string>
#include <vector>

namespace llmc {

/// What survives. Everything else is brought back just before something reads it.
struct KeepSet {
    /// slots[layer][activation slot]: survives the forward. Slot 0 is the layer's input. Keeping a statistic without
    /// its operation's output is a waste: the operation runs again and rewrites it.
    std::vector<std::vector<bool>> slots;
    /// walk[layer]: inputs of earlier layers to hold on to, once, when this layer's input is brought back from an
    /// earlier boundary (every one of them is passed on the way). Empty: none.
    std::vector<std::vector<int>> walk;
    /// The last layer's internals, still there when its backward starts, are used as they are.
    bool keep_last_layer = true;
    /// host[layer]: this layer's input, if it survives, does so in host memory (host_boundaries.h), which the last
    /// layer's cannot. Empty: as the table of places says of layer boundaries.
    std::vector<bool> host;
};

struct PolicyRow {
    const char* name;         ///< "layer".
    const char* level;        ///< "1", or "" for policies that have no number.
    const char* description;  ///< What it does, in words, for the banner and --help.
    KeepSet (*function)(const Model& model);
    bool host_memory = false;  ///< Some of what survives is not on the device: searches have nothing to match it.
};

/// All policies, in the order of --help.
const std::vector<PolicyRow>& policies();

/// By name or level digit; fails (exit code 2) with the list if there is none.
const PolicyRow& find_policy(const std::string& name);

/// Its description, with the numbers that it has for a model: sqrt's k.
std::string policy_words(const PolicyRow& policy, const Model& model);

/// Layers per segment of the `sqrt` policy: argmin over k of ceil(L/k) + k - 1, ties to the smaller k.
int sqrt_segment(int L);

}  // namespace llmc
