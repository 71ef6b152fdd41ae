#include "llmc/train/tile_options.h"

#include "llmc/base/counted.h"
#include "llmc/base/error.h"
#include "llmc/plan/tiles.h"

#include <charconv>

namespace llmc {

bool chooses_tiles(const Options& options) { return options.tile_tokens == "auto"; }

int64_t given_tile_tokens(const Options& options) {
    const std::string& text = options.tile_tokens;
    if (text == "none" || chooses_tiles(options)) return 0;
    int64_t tokens = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tokens);
    if (error != std::errc() || end != text.data() + text.size() || tokens < 1 || tokens > kMostTileTokens) {
        fail_usage("--tile-tokens={}: give a number of tokens up to {}, auto or none", text, kMostTileTokens);
    }
    return tokens;
}

std::vector<PlanRequest> tiled_requests(const Options& options, const PlanRequest& request) {
    if (!chooses_tiles(options)) return {request};
    std::vector<PlanRequest> requests;
    for (const int64_t tokens : tile_choices(request.block_tokens, request.shape.N())) {
        requests.push_back(request);
        requests.back().tile_tokens = tokens;
    }
    return requests;
}

std::string describe_tiles(const Options& options, const Plan& plan) {
    const int64_t wanted = given_tile_tokens(options);
    if (plan.tile_tokens == 0) {
        if (wanted == 0) return "";
        return fmt::format("none (--tile-tokens={}: a micro-batch has {}, in blocks of {})", wanted,
                           counted(plan.shape.N(), "token"), plan.block_tokens);
    }
    std::string words = fmt::format("{} tokens, in blocks of {}", plan.tile_tokens, plan.block_tokens);
    if (wanted > 0 && wanted != plan.tile_tokens) {
        words += fmt::format(" (--tile-tokens={}, rounded up to whole blocks)", wanted);
    }
    if (chooses_tiles(options)) words += " (--tile-tokens=auto)";
    return words;
}

}  // namespace llmc
