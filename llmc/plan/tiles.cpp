#include "llmc/plan/tiles.h"

#include "llmc/base/check.h"
#include "llmc/base/units.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {

Tiling::Tiling(const std::vector<OpRow>& block, int64_t N, int64_t tile_tokens)
    : block_(block), N_(N), tile_tokens_(tile_tokens < N ? tile_tokens : 0) {
    for (int row = 0; row < static_cast<int>(block.size()); ++row) {
        const bool tiled = is_tiled() && is_token_wise(block[static_cast<size_t>(row)].kind);
        if (tiled && !groups_.empty() && groups_.back().is_tiled) {
            groups_.back().last = row;
        } else {
            groups_.push_back({row, row, tiled});
        }
    }
}

const RowGroup& Tiling::group_of(int row) const {
    return *std::find_if(groups_.begin(), groups_.end(), [row](const RowGroup& group) { return row <= group.last; });
}

std::vector<RowRange> Tiling::tiles(const RowGroup& group) const {
    if (!group.is_tiled) return {RowRange{}};
    std::vector<RowRange> ranges;
    for (int64_t first = 0; first < N_; first += tile_tokens_)
        ranges.push_back({first, std::min(tile_tokens_, N_ - first)});
    return ranges;
}

std::vector<bool> Tiling::whole_slots(int slots, const std::vector<bool>& kept) const {
    std::vector<bool> whole(static_cast<size_t>(slots), !is_tiled());
    if (!is_tiled()) return whole;
    const auto mark = [&](int slot) {
        if (slot != kNone && slot != kLayerOutput) whole[static_cast<size_t>(slot)] = true;
    };
    mark(kLayerInput);
    for (size_t slot = 0; slot < kept.size(); ++slot) {
        if (kept[slot]) mark(static_cast<int>(slot));
    }
    for (const OpRow& row : block_) {
        if (is_token_wise(row.kind)) continue;
        for (const int slot : {row.in, row.out, row.stat0, row.stat1}) mark(slot);
    }
    for (const OpRow& row : block_) {
        if (facts_of(row.kind).out_replaces_residual) whole[static_cast<size_t>(row.residual)] = false;
    }
    return whole;
}

int Tiling::place_of(int slot) const {
    for (const OpRow& row : block_) {
        if (facts_of(row.kind).out_replaces_residual && row.residual == slot) slot = row.out;
    }
    return slot;
}

int64_t tile_tokens_of(int64_t wanted, int64_t block_tokens, int64_t N) {
    const int64_t tokens = block_tokens > 0 ? round_up(wanted, block_tokens) : wanted;
    return tokens < N ? tokens : 0;
}

std::vector<int64_t> tile_choices(int64_t block_tokens, int64_t N) {
    constexpr int64_t kFactor = 4;
    std::vector<int64_t> choices = {0};
    for (int64_t pieces = kFactor; block_tokens > 0 && block_tokens < N; pieces *= kFactor) {
        const int64_t tokens = tile_tokens_of((N + pieces - 1) / pieces, block_tokens, N);
        if (tokens > 0 && tokens != choices.back()) choices.push_back(tokens);
        if (tokens <= block_tokens) break;
    }
    return choices;
}

std::string TilesCheck::fault_of_range(const Step& step) {
    const Operation operation = {step.layer, step.row, step.pass};
    auto begun = std::find_if(begun_.begin(), begun_.end(),
                              [&](const Begun& candidate) { return candidate.operation == operation; });
    if (begun == begun_.end()) begun = begun_.insert(begun_.end(), {operation});
    if (step.first_token != begun->next)
        return fmt::format("begins at token {} instead of {}", step.first_token, begun->next);
    const int64_t end = step.first_token + step.tokens, N = plan_.shape.N();
    const bool is_whole = plan_.block_tokens > 0 && end % plan_.block_tokens == 0;
    if (step.tokens < 1 || step.tokens > plan_.tile_tokens || end > N || (end != N && !is_whole))
        return "is about too many tokens, none, or a part of a block";
    begun->next = end;
    if (end == N) begun_.erase(begun);
    return "";
}

std::string TilesCheck::fault_of(const Step& step) {
    if (step.kind != StepKind::Compute) return "";
    const bool is_tile = step.is_of_tile();
    if (is_tile) {
        if (plan_.tile_tokens == 0) return "is about some tokens in a plan without tiles";
        if (step.row < 0 || !is_token_wise(step.op)) return "is about some tokens, and needs all of them";
        if (std::string fault = fault_of_range(step); !fault.empty()) return fault;
    }
    for (int slot = 0; slot < kNumSlots; ++slot) {
        const int32_t t = step.operands[static_cast<size_t>(slot)];
        if (t < 0 || !plan_.tensor(t).is_tile) continue;
        const Access use = access(step, static_cast<Slot>(slot));
        if (!is_tile) return fmt::format("needs all tokens of {}, which has those of a tile", plan_.tensor(t).name);
        int64_t& written = written_[static_cast<size_t>(t)];
        if (use.reads && written != step.first_token)
            return fmt::format("needs {} of its own tokens, not of those from {}", plan_.tensor(t).name, written);
        if (use.writes) written = step.first_token;
    }
    return "";
}

std::string TilesCheck::fault_of_end() const {
    if (begun_.empty()) return "";
    const OpRow& row = model_.block[static_cast<size_t>(begun_.front().operation.row)];
    return fmt::format("ends before {} of layer {} has had all tokens", row.name, begun_.front().operation.layer);
}

}  // namespace llmc
