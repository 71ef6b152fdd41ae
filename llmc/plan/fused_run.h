// What a backend runs as one, in terms of a plan: operations of a block, one after the other, or the halves of one.
// Plain data, filled by run/fusion.h from what the backend states; fuse.h finds the steps.
#pragma once

#include "llmc/base/fusion.h"
#include "llmc/model/op.h"

#include <cstdint>
#include <vector>

namespace llmc {

/// What one step of a run must be.
struct FusedPart {
    OpKind op = OpKind::Matmul;
    Pass pass = Pass::Forward;
    int row = -1;     ///< Of Model::block; -1 outside layers.
    float share = 1;  ///< Of the time that it takes by itself, what it is expected to take as a part.
    bool operator==(const FusedPart&) const = default;
};

/// As Backend::fuses() answers for these operations.
struct FusedRun {
    Fusion fusion = Fusion::ActivationAndWeightGradient;
    std::vector<FusedPart> parts;  ///< One or more, all of them forward or none.
    bool same_bits = false;
    bool stores_between = true;
    int64_t workspace_bytes = 0;
};

}  // namespace llmc
