// The pieces of attention on one tile: how rows of a head are packed, and a register-blocked product of packed tiles
// that skips what the causal mask hides. attention.cpp builds the passes from them.
//
// Three forms of the same R x D rows, all made of 32-bit units (attention_simd.h) and padded with zeros:
//   rows     units of one row side by side: the left operand of a product, one unit broadcast at a time;
//   columns  the transpose, in panels of kPanel rows: the right operand of a product over D (scores);
//   panels   neighbouring rows paired into units, in panels of columns: the right operand of a product over R.
#pragma once

#include "llmc/backend/cpu/attention_simd.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace llmc::cpu {

/// Rows of a tile are padded to this: a multiple of kLanes, kMicroRows and 2.
constexpr int64_t kRowPadding = 48;
static_assert(kRowPadding % kLanes == 0 && kRowPadding % kMicroRows == 0);

constexpr int64_t kPanel = kMaxVectors * kLanes;

/// How D columns are cut into panels: as few as fit the register block, equally wide but for the last.
struct PanelCut {
    int64_t columns;  ///< D, padded to whole vectors.
    int64_t width;    ///< Of a panel.
    explicit PanelCut(int64_t D) : columns(round_up(D, kLanes)) {
        const int64_t vectors = columns / kLanes;
        width = ceil_div(vectors, ceil_div(vectors, kMaxVectors)) * kLanes;
    }
};

/// Units from one row of the `rows` form to the next.
template <typename Product>
int64_t row_units(int64_t D) {
    return round_up(ceil_div(D, Product::kPerUnit), kLanes);
}

/// The `rows` form of `count` rows of D elements, `stride` elements apart, and zeros up to the next kRowPadding.
template <typename Product, typename T>
void pack_rows(Unit* to, const T* from, int64_t stride, int64_t count, int64_t D) {
    const int64_t units = row_units<Product>(D);
    using Element = typename Product::Element;
    for (int64_t row = 0; row < count; ++row) {
        auto* elements = reinterpret_cast<Element*>(to + row * units);
        const T* source = from + row * stride;
        if constexpr (std::is_same_v<Element, T>) {
            std::memcpy(elements, source, D * sizeof(T));
        } else {
#pragma omp simd
            for (int64_t d = 0; d < D; ++d) elements[d] = to_float(source[d]);
        }
        std::memset(static_cast<void*>(elements + D), 0, (units * Product::kPerUnit - D) * sizeof(Element));
    }
    std::memset(static_cast<void*>(to + count * units), 0,
                (round_up(count, kRowPadding) - count) * units * sizeof(Unit));
}

/// The `columns` form, from the `rows` form: element (d, row) is at [row / kPanel][d][row % kPanel].
template <typename Product>
void pack_columns(Unit* to, const Unit* rows, int64_t count, int64_t D) {
    const int64_t units = row_units<Product>(D);
    for (int64_t row = 0; row < count; row += kLanes) {
        Unit* panel = to + row / kPanel * kPanel * units + row % kPanel;
        for (int64_t unit = 0; unit < units; unit += kLanes) {
            Vec block[kLanes];
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes; ++lane) block[lane] = load(rows + (row + lane) * units + unit);
            transpose_lanes(block);
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes; ++lane) store(panel + (unit + lane) * kPanel, block[lane]);
        }
    }
}

/// The `panels` form, from the `rows` form: unit (row / kPerUnit, d) is at [panel][row / kPerUnit][d - panel * width].
/// A panel has `depth` units per column, and `depth` >= count / kPerUnit, rounded up.
template <typename Product>
void pack_panels(Unit* to, const Unit* rows, int64_t count, int64_t D, int64_t depth) {
    const int64_t units = row_units<Product>(D);
    const PanelCut cut(D);
    for (int64_t first = 0; first < cut.columns; first += cut.width) {
        const int64_t width = std::min(cut.width, cut.columns - first);
        Unit* panel = to + first * depth;
        for (int64_t row = 0; row < count; row += Product::kPerUnit, panel += width) {
            const Unit* source = rows + row * units;
            for (int64_t d = 0; d < width; d += kLanes) {
                if constexpr (Product::kPerUnit == 1) {
                    store(panel + d, load(source + first + d));
                } else {
                    const auto* even = reinterpret_cast<const bf16*>(source) + first + d;
                    const auto* odd = reinterpret_cast<const bf16*>(source + units) + first + d;
                    const auto low = reinterpret_cast<UintVec>(load_elements(even)) >> 16;
                    store(panel + d, reinterpret_cast<Vec>(low | reinterpret_cast<UintVec>(load_elements(odd))));
                }
            }
        }
    }
}

/// The left operand: unit (row, k) is at units[row * row_step + k * depth_step].
struct LeftOperand {
    const Unit* units;
    int64_t row_step, depth_step;
};

/// kMicroRows x (vectors * kLanes) of a product, held in registers. `right` has `width` units per step of the depth.
/// Either out = scale * product, or out += product.
template <typename Product, int vectors, bool accumulate>
inline void multiply_block(float* out, int64_t out_stride, LeftOperand left, const Unit* right, int64_t width,
                           int64_t depth, float scale) {
    Vec sum[kMicroRows][vectors] = {};
    const Unit* a = left.units;
    for (int64_t k = 0; k < depth; ++k, a += left.depth_step, right += width) {
        Vec b[vectors];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) b[j] = load(right + j * kLanes);
#pragma GCC unroll 6
        for (int i = 0; i < kMicroRows; ++i) {
            const Vec spread = Product::spread(a + i * left.row_step);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) sum[i][j] = Product::multiply_add(spread, b[j], sum[i][j]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kMicroRows; ++i) {
        float* row = out + i * out_stride;
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) {
            const Vec result = accumulate ? load(row + j * kLanes) + sum[i][j] : scale * sum[i][j];
            store(row + j * kLanes, result);
        }
    }
}

/// multiply_block for a number of vectors known at run time.
template <typename Product, bool accumulate>
inline void multiply_block(int64_t vectors, float* out, int64_t out_stride, LeftOperand left, const Unit* right,
                           int64_t width, int64_t depth, float scale) {
    static_assert(kMaxVectors == 2 || kMaxVectors == 4);
    if (vectors == 1) return multiply_block<Product, 1, accumulate>(out, out_stride, left, right, width, depth, scale);
    if (vectors == 2) return multiply_block<Product, 2, accumulate>(out, out_stride, left, right, width, depth, scale);
    if constexpr (kMaxVectors == 4) {
        if (vectors == 3)
            return multiply_block<Product, 3, accumulate>(out, out_stride, left, right, width, depth, scale);
        if (vectors == 4)
            return multiply_block<Product, 4, accumulate>(out, out_stride, left, right, width, depth, scale);
    }
}

// In the following, `diagonal` = position of the first query - position of the first key of the tile, >= 0: query row r
// sees key column c if c <= r + diagonal.

/// Columns up to which scores_tile() writes the rows of the block of kMicroRows that starts at `row`.
inline int64_t written_columns(int64_t row, int64_t columns, int64_t diagonal) {
    return std::min(round_up(columns, kLanes), round_up(row + kMicroRows + diagonal, kLanes));
}

/// out (rows, columns) = scale * left (rows, depth) * right, where right is of `columns` form. For scores and their
/// gradient. Writes only what a query of the micro block sees, rounded up to whole vectors.
template <typename Product>
void scores_tile(float* out, int64_t out_stride, const Unit* left, int64_t row_step, const Unit* right, int64_t rows,
                 int64_t columns, int64_t depth, float scale, int64_t diagonal) {
    for (int64_t first = 0; first < columns; first += kPanel, right += kPanel * row_step) {
        for (int64_t row = 0; row < rows; row += kMicroRows) {
            const int64_t visible = written_columns(row, columns, diagonal) - first;
            if (visible <= 0) continue;
            multiply_block<Product, false>(std::min(visible, kPanel) / kLanes, out + row * out_stride + first,
                                           out_stride, {left + row * row_step, row_step, 1}, right, kPanel, depth,
                                           scale);
        }
    }
}

/// out (rows, D) += left (rows, keys) * right, where right is of `panels` form with `panel_depth` units per column.
/// `left` is the rows form of the probabilities or of their gradients. Stops at the last key a micro block sees.
template <typename Product>
void accumulate_over_keys(float* out, const Unit* left, int64_t row_step, const Unit* right, int64_t panel_depth,
                          int64_t rows, int64_t keys, int64_t D, int64_t diagonal) {
    const PanelCut cut(D);
    for (int64_t first = 0; first < cut.columns; first += cut.width) {
        const int64_t width = std::min(cut.width, cut.columns - first);
        for (int64_t row = 0; row < rows; row += kMicroRows) {
            const int64_t seen = std::min(keys, row + kMicroRows + diagonal);
            multiply_block<Product, true>(width / kLanes, out + row * cut.columns + first, cut.columns,
                                          {left + row * row_step, row_step, 1}, right + first * panel_depth, width,
                                          ceil_div(seen, Product::kPerUnit), 1.0f);
        }
    }
}

/// out (keys, D) += left^T (keys, rows) * right. `left` (rows / kPerUnit, keys) holds units of neighbouring rows,
/// `step` apart. Starts at the first query that sees a key of the micro block.
template <typename Product>
void accumulate_over_queries(float* out, const Unit* left, int64_t step, const Unit* right, int64_t panel_depth,
                             int64_t rows, int64_t keys, int64_t D, int64_t diagonal) {
    const PanelCut cut(D);
    for (int64_t first = 0; first < cut.columns; first += cut.width) {
        const int64_t width = std::min(cut.width, cut.columns - first);
        for (int64_t key = 0; key < keys; key += kMicroRows) {
            const int64_t begin = std::max<int64_t>(0, key - diagonal) / Product::kPerUnit;
            const int64_t end = ceil_div(rows, Product::kPerUnit);
            if (begin >= end) continue;
            multiply_block<Product, true>(width / kLanes, out + key * cut.columns + first, cut.columns,
                                          {left + begin * step + key, 1, step},
                                          right + first * panel_depth + begin * width, width, end - begin, 1.0f);
        }
    }
}

}  // namespace llmc::cpu
