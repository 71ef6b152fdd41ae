// Which weights of a model have low-rank adapters (Hu et al. 2021); lora.h makes the rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llmc {

/// One adapted matrix, the same in every layer: rows [first_row, first_row + rows) of a weight of the layer.
struct LoraTarget {
    std::string weight;  ///< "qkv_weight": the row's name without the layer.
    std::string module;  ///< What Hugging Face calls the matrix, within a layer: "self_attn.q_proj".
    int64_t first_row = 0, rows = 0;
    double scale = 1;  ///< alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023).
    bool operator==(const LoraTarget&) const = default;
};

struct LoraSpec {
    int64_t rank = 0;  ///< 0: no adapters.
    std::vector<LoraTarget> targets;
    float dropout = 0;  ///< Probability, of what adapters read in training.
    bool operator==(const LoraSpec&) const = default;
    explicit operator bool() const { return rank > 0; }
};

}  // namespace llmc
