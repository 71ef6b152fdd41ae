// The optimisers there are, as rows of a table. What an optimiser computes is written at Backend::begin_update() and
// Backend::update(); a new one is a row here and its formulas in the two backends.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace llmc {

enum class OptimizerKind : uint8_t { AdamW, Lion };

struct OptimizerRow {
    OptimizerKind kind;
    std::string_view name;  ///< As --optimizer takes it, and as checkpoints hold it.
    bool second_moment;     ///< Keeps v beside m.
};

constexpr std::array kOptimizers = {
    OptimizerRow{OptimizerKind::AdamW, "adamw", true},
    OptimizerRow{OptimizerKind::Lion, "lion", false},
};

constexpr const OptimizerRow& optimizer_row(OptimizerKind kind) {
    for (const OptimizerRow& row : kOptimizers) {
        if (row.kind == kind) return row;
    }
    return kOptimizers.front();
}

}  // namespace llmc
