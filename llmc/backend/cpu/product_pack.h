// How the operands of our own matrix products are packed (product_tile.h says into what). The summed dimension is
// called depth here; a "part" of it is packed at a time.
#pragma once

#include "llmc/backend/cpu/product_tile.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace llmc::cpu {

/// A row-major matrix of an operand; `rows` are of the memory, not of the product.
template <typename T>
struct PackSource {
    const T* data;
    int64_t stride;  ///< Elements from one row to the next.
    const T* at(int64_t row, int64_t col) const { return data + row * stride + col; }
};

/// One unit of two neighbours in depth, the second of which may be missing.
template <typename Product, typename T>
inline void put_unit(Unit* to, const T* first, const T* second) {
    if constexpr (Product::kPerUnit == 1) {
        *reinterpret_cast<LooseFloat*>(to) = to_float(*first);
    } else {
        *to = first->bits | (second ? uint32_t{second->bits} << 16 : 0u);
    }
}

/// kLanes units of two neighbouring rows.
template <typename Product, typename T>
inline Vec units_of_rows(const T* first, const T* second) {
    if constexpr (Product::kPerUnit == 1) {
        return load_elements(first);
    } else {
        const auto low = reinterpret_cast<UintVec>(load_elements(first)) >> 16;
        return reinterpret_cast<Vec>(low | reinterpret_cast<UintVec>(load_elements(second)));
    }
}

/// `count` elements of a row become units; zeros up to a multiple of kPerUnit.
template <typename Product, typename T>
inline void pack_row(Unit* to, const T* from, int64_t count) {
    using Element = typename Product::Element;
    auto* elements = reinterpret_cast<Element*>(to);
    if constexpr (std::is_same_v<Element, T>) {
        std::memcpy(static_cast<void*>(elements), from, static_cast<size_t>(count) * sizeof(T));
    } else {
        int64_t i = 0;
        for (; i + kLanes <= count; i += kLanes) store(elements + i, load_elements(from + i));
        for (; i < count; ++i) elements[i] = to_float(from[i]);
    }
    if (Product::kPerUnit == 2 && count % 2 != 0) elements[count] = Element{};
}

/// Rows `first`, ... of a left operand stored (m, depth): `count` elements from `begin` on. Rows up to `rows` are
/// zeros.
template <typename Product, typename T>
void pack_left_rows(Unit* to, PackSource<T> a, int64_t first, int64_t present, int64_t rows, int64_t begin,
                    int64_t count) {
    for (int64_t i = 0; i < present; ++i) pack_row<Product>(to + i * kRowStep, a.at(first + i, begin), count);
    for (int64_t i = present; i < rows; ++i)
        std::fill_n(to + i * kRowStep, ceil_div(count, Product::kPerUnit), Unit{0});
}

/// `width` units of two neighbouring rows, zeros up to a multiple of kLanes. Reads whole vectors where `available`
/// elements from the first on allow it.
template <typename Product, typename T>
inline void pack_across(Unit* to, const T* first, const T* second, int64_t width, int64_t available) {
    for (int64_t i = 0; i < width; i += kLanes) {
        if (available - i >= kLanes && (Product::kPerUnit == 1 || second)) {
            store(to + i, units_of_rows<Product>(first + i, second + i));
            continue;
        }
        const int64_t there = std::min<int64_t>(kLanes, width - i);
        for (int64_t j = i; j < i + there; ++j) put_unit<Product>(to + j, first + j, second ? second + j : nullptr);
        std::fill_n(to + i + there, kLanes - there, Unit{0});
    }
}

/// The same of a left operand stored (depth, m), of which `available` columns from `first` on may be read.
template <typename Product, typename T>
void pack_left_columns(Unit* to, PackSource<T> a, int64_t first, int64_t present, int64_t available, int64_t begin,
                       int64_t count) {
    const int64_t end = begin + count;
    for (int64_t k = begin; k < end; k += Product::kPerUnit, to += kColumnStep)
        pack_across<Product>(to, a.at(k, first), k + 1 < end ? a.at(k + 1, first) : nullptr, present, available);
}

/// Columns `first`, ... of a right operand stored (depth, n), in panels.
template <typename Product, typename T>
void pack_right_rows(Unit* to, PackSource<T> b, int64_t first, int64_t columns, int64_t begin, int64_t count) {
    const int64_t end = begin + count, step = panel_units(ceil_div(count, Product::kPerUnit));
    for (int64_t k = begin; k < end; k += Product::kPerUnit, to += kTileColumns) {
        const T *row = b.at(k, first), *next = k + 1 < end ? b.at(k + 1, first) : nullptr;
        Unit* panel = to;
        for (int64_t col = 0; col < columns; col += kTileColumns, panel += step) {
            const int64_t width = std::min<int64_t>(kTileColumns, columns - col);
            pack_across<Product>(panel, row + col, next ? next + col : nullptr, width, width);
            if (width <= kTileColumns - kLanes)
                std::fill_n(panel + round_up(width, kLanes), kTileColumns - round_up(width, kLanes), Unit{0});
        }
    }
}

/// kLanes units of a row, of which `count` elements are there.
template <typename Product, typename T>
inline Vec units_of_row(const T* from, int64_t count) {
    constexpr int64_t kElements = kLanes * Product::kPerUnit;
    if (count >= kElements) {
        if constexpr (Product::kPerUnit == 1) return load_elements(from);
        return load(from);
    }
    alignas(64) Unit part[kLanes + 1] = {};
    if (count > 0) pack_row<Product>(part, from, count);
    return load(part);
}

/// Columns `first`, ... of a right operand stored (n, depth), in panels: a transpose.
template <typename Product, typename T>
void pack_right_columns(Unit* to, PackSource<T> b, int64_t first, int64_t columns, int64_t begin, int64_t count) {
    const int64_t depth = ceil_div(count, Product::kPerUnit);
    for (int64_t col = 0; col < round_up(columns, kTileColumns); col += kLanes) {
        Unit* panel = to + col / kTileColumns * panel_units(depth) + col % kTileColumns;
        for (int64_t u = 0; u < depth; u += kLanes) {
            const int64_t k = begin + u * Product::kPerUnit, left = begin + count - k;
            Vec block[kLanes];
#pragma GCC unroll 16
            for (int lane = 0; lane < kLanes; ++lane) {
                block[lane] = col + lane < columns ? units_of_row<Product>(b.at(first + col + lane, k), left) : Vec{};
            }
            transpose_lanes(block);
            const int64_t there = std::min<int64_t>(kLanes, depth - u);
            if (there == kLanes) {
#pragma GCC unroll 16
                for (int lane = 0; lane < kLanes; ++lane) store(panel + (u + lane) * kTileColumns, block[lane]);
            } else {
                for (int64_t lane = 0; lane < there; ++lane) store(panel + (u + lane) * kTileColumns, block[lane]);
            }
        }
    }
}

}  // namespace llmc::cpu
