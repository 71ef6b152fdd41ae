// Optimiser state in 8 bits (Dettmers et al. 2022, "8-bit optimizers via block-wise quantization"): blocks of 256
// elements, each with the largest magnitude in it, and for every element one of the 256 values of a map, times that.
// A map is dense near 1 and reaches down seven decades: of decade i, from 10^(i-7) to 10^(i-6), the middles of so many
// equal parts; and 0 and 1. The signed map (of means) has 2^i of either sign, the unsigned one (of squares) 2^(i+1).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace llmc {

/// Elements that share a largest magnitude; the last block of a row is short.
constexpr int64_t kStateBlock = 256;
/// Rows with fewer elements keep their state in fp32.
constexpr int64_t kSmallestRowIn8Bits = 4096;

class DynamicMap {
  public:
    /// The values of bitsandbytes, to the bit: parts of a decade are cut in fp32, by fused steps from its nearer end.
    constexpr explicit DynamicMap(bool is_signed) {
        constexpr float kPowers[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
        size_t count = 0;
        values_[count++] = 0.0f;
        values_[count++] = 1.0f;
        for (int decade = 0; decade < 7; ++decade) {
            const int parts = is_signed ? 1 << decade : 2 << decade;
            for (int part = 0; part < parts; ++part) {
                const float value = kPowers[decade] * ((cut(part, parts) + cut(part + 1, parts)) / 2.0f);
                values_[count++] = value;
                if (is_signed) values_[count++] = -value;
            }
        }
        std::sort(values_.begin(), values_.end());
        for (size_t i = 0; i < bounds_.size(); ++i) bounds_[i] = middle(values_[i], values_[i + 1]);
        fill_cells();
    }

    constexpr const std::array<float, 256>& values() const { return values_; }
    constexpr float operator[](uint8_t code) const { return values_[code]; }

    /// The code of the value that is nearest to x, of [-1, 1]; of two that are as near, the lower one.
    constexpr uint8_t nearest(float x) const {
        const uint8_t lowest = cells_[cell_of(x)];
        return static_cast<uint8_t>(lowest + (lowest < 255 && x > bounds_[lowest] ? 1 : 0));
    }

  private:
    /// Numbers with the same upper sixteen bits are a cell. The maps are so coarse that at most one bound lies in any.
    static constexpr uint32_t kFirst = 0x3400, kLast = 0x3f80;  ///< From 2^-23 to 1.
    static constexpr uint32_t kCells = kLast - kFirst + 1;

    static constexpr float cut(int part, int parts) {
        const float first = 0.1f, step = (1.0f - first) / static_cast<float>(parts);
        return part < (parts + 1) / 2 ? static_cast<float>(double{first} + double{step} * part)
                                      : static_cast<float>(1.0 - double{step} * (parts - part));
    }

    /// The largest fp32 number that is not above the middle of two.
    static constexpr float middle(float low, float high) {
        const double exact = (double{low} + double{high}) / 2;
        float rounded = static_cast<float>(exact);
        if (double{rounded} <= exact) return rounded;
        const uint32_t bits = std::bit_cast<uint32_t>(rounded);
        return std::bit_cast<float>(rounded > 0 ? bits - 1 : bits + 1);
    }

    /// Cells of either sign, those of numbers near zero as the first of their sign.
    static constexpr uint32_t cell_of(float x) {
        const uint32_t upper = std::bit_cast<uint32_t>(x) >> 16, magnitude = upper & 0x7fffu;
        const uint32_t cell = magnitude < kFirst ? 0 : (magnitude > kLast ? kLast : magnitude) - kFirst;
        return (upper >> 15) * kCells + cell;
    }

    /// Of each cell the code of its lowest number.
    constexpr void fill_cells() {
        for (uint32_t sign = 0; sign < 2; ++sign)
            for (uint32_t cell = 0; cell < kCells; ++cell) {
                const uint32_t upper = kFirst + cell;
                // Of negative numbers, the lowest has the largest magnitude; near zero, where there is no bound, any.
                const uint32_t bits = sign == 0 ? (cell == 0 ? 0 : upper << 16) : 0x80000000u | upper << 16 | 0xffffu;
                const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), std::bit_cast<float>(bits));
                cells_[sign * kCells + cell] = static_cast<uint8_t>(bound - bounds_.begin());
            }
    }

    std::array<float, 256> values_ = {};  ///< Ascending.
    std::array<float, 255> bounds_ = {};  ///< Above bounds_[i], values_[i + 1] is nearer than values_[i].
    std::array<uint8_t, size_t{2}* kCells> cells_ = {};
};

/// Of first moments, which have a sign, and of second moments, which have none.
const DynamicMap& signed_map();
const DynamicMap& unsigned_map();

/// Quantises one block of 1 to kStateBlock elements; returns its largest magnitude.
float quantise_block(uint8_t* codes, const float* x, int64_t count, const DynamicMap& map);
/// x = map[code] * largest.
void dequantise_block(float* x, const uint8_t* codes, float largest, int64_t count, const DynamicMap& map);

}  // namespace llmc
