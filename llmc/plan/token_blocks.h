// Blocks: how many tokens every token-wise operation of a layer (norms, products, activations: all but attention) and
// the final norm has at a time. Gradients of parameters are added up block by block, in the order of tokens, with tiles
// (tiles.h) and without: the size decides the last bits, so that a tile's need not.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/tokens_by_kind.h"

#include <span>
#include <string_view>

namespace llmc {

/// Blocks are multiples of so many tokens: every row range of a tensor then begins at a multiple of kPlanAlignment
/// bytes, as a tile's tensor does, and a library that goes by alignment does the same for both.
constexpr int64_t kBlockMultiple = 128;

/// Small enough to be a tile, and large enough that a layer takes at most about 2 % longer than in one piece: the
/// processor's are measured, the others what the cost model says (dev/bench/token_blocks.sh prints both).
std::span<const TokensByKind> token_blocks_table();

/// What a token costs in a layer, in multiply-adds of its products.
int64_t layer_work(const Model& model);

/// By the table's row for this kind of device, its least work in units of layer_work(); N where that is no more.
int64_t default_block_tokens(const Model& model, const BatchShape& shape, std::string_view kind);

}  // namespace llmc
