// --tile-tokens: how many tokens layers' internals live for.
#pragma once

#include "llmc/plan/generate.h"
#include "llmc/train/options.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

constexpr int64_t kMostTileTokens = 1'000'000'000;

/// The number given; 0 for none, and for auto, which is decided by what fits. Anything else is refused.
int64_t given_tile_tokens(const Options& options);
bool chooses_tiles(const Options& options);

/// The request as --tile-tokens says; of auto, with every size worth a try, the cheapest first.
std::vector<PlanRequest> tiled_requests(const Options& options, const PlanRequest& request);

/// What the plan's tiles are, in words: "" where it has none and nobody asked for any.
std::string describe_tiles(const Options& options, const Plan& plan);

}  // namespace llmc
