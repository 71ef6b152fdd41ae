// Tiles: how many tokens a layer's internals live for. Every operation of a layer but attention is token-wise: between
// one attention and the next, all of them may have some tokens before they have the next ones, and what they hand to
// each other needs room for these tokens alone. Attention reads and writes tensors of all tokens, and so do a layer's
// input and output, and what the policy keeps.
//
// In a plan with tiles, whatever its policy, the gradient of attention's input takes the place of the input, which
// nothing reads any more: of what attention has of all tokens, that is the most. The backend makes copies for it, so
// that plans without tiles leave it apart.
//
// A tile is a whole number of blocks (token_blocks.h), and tiles follow each other in the order of tokens, forward,
// repeated and backward: every sum over tokens has the same parts in the same order as without tiles.
#pragma once

#include "llmc/model/model.h"
#include "llmc/plan/step.h"

#include <string>
#include <vector>

namespace llmc {

/// Rows of a model's block that have a tile, one after the other, before the first of them has the next tile.
struct RowGroup {
    int first = 0, last = 0;
    bool is_tiled = false;  ///< Else one row that has all tokens at once.
};

/// How a block is run: without tiles (`tile_tokens` = 0, or as many as there are) row by row.
class Tiling {
  public:
    Tiling(const std::vector<OpRow>& block, int64_t N, int64_t tile_tokens);

    bool is_tiled() const { return tile_tokens_ > 0; }
    int64_t tile_tokens() const { return tile_tokens_; }
    const std::vector<RowGroup>& groups() const { return groups_; }
    const RowGroup& group_of(int row) const;
    /// In order; of a group without tiles one, whose count is 0.
    std::vector<RowRange> tiles(const RowGroup& group) const;

    /// Whether activations are there for all tokens, by slot, where `kept` of them survive the forward (empty: none
    /// does): what is kept, and what attention reads or writes; never what something else takes the place of.
    std::vector<bool> whole_slots(int slots, const std::vector<bool>& kept) const;
    /// The slot whose activation ends up where this one's is.
    int place_of(int slot) const;

  private:
    const std::vector<OpRow>& block_;
    int64_t N_, tile_tokens_;
    std::vector<RowGroup> groups_;
};

/// Tokens of a tile for `wanted` ones: whole blocks, at most all tokens; 0 where that is one tile, or `wanted` is 0.
int64_t tile_tokens_of(int64_t wanted, int64_t block_tokens, int64_t N);

/// Sizes worth a try, from all tokens (0) down to a block: smaller ones save little more.
std::vector<int64_t> tile_choices(int64_t block_tokens, int64_t N);

/// Holds plans against what is said above: every operation's tiles are all tokens, in order and in whole blocks, and
/// what a tile's tensor is read for is what was written to it last.
class TilesCheck {
  public:
    TilesCheck(const Model& model, const Plan& plan) : model_(model), plan_(plan), written_(plan.tensors.size(), -1) {}
    /// What is wrong with the next step, or part of one; empty if nothing.
    std::string fault_of(const Step& step);
    /// To be asked after the last step.
    std::string fault_of_end() const;

  private:
    std::string fault_of_range(const Step& step);

    const Model& model_;
    const Plan& plan_;
    std::vector<int64_t> written_;  ///< By tensor of a tile, the tile's first token.
    struct Operation {
        int layer, row;
        Pass pass;
        bool operator==(const Operation&) const = default;
    };
    struct Begun {
        Operation operation;
        int64_t next = 0;  ///< Token.
    };
    std::vector<Begun> begun_;
};

}  // namespace llmc
