// The register block of our own matrix products, and how its operands are packed. attention_simd.h has the vectors and
// the two kinds of multiplication. product.cpp is the loop around it.
//
// Both operands are cut along the summed dimension into units (one fp32 number, or two bf16 numbers) and packed:
//   left   kTileRows rows; `Rows`: the units of a row side by side, for matrices stored row by row in the summed
//          dimension, whose packing is a copy; `Columns`: the units of all rows at one place of the summed dimension
//          side by side, for transposed ones. Either is a copy of whole runs of memory, never a transpose.
//   right  panels of kTileColumns columns: the units of a panel's columns at one place side by side.
// bf16 becomes fp32 on the way where the products are of fp32. What is missing at the edges is zeros.
#pragma once

#include "llmc/backend/cpu/attention_simd.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace llmc::cpu {

#if defined(__AVX512F__)
constexpr int kTileRows = 14;  ///< 28 sums, two vectors of the right operand and one number of the left: 31 registers.
constexpr int kTileVectors = 2;
#elif defined(__AVX__)
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
#elif defined(__aarch64__)
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#else
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
#endif
constexpr int kTileColumns = kTileVectors * kLanes;

/// Units of the summed dimension that are packed at a time, at most.
constexpr int64_t kMaxDepth = 512;

/// Units from one row to the next in a left operand packed by rows. Not a power of two: the rows shall not meet in one
/// set of the cache.
constexpr int64_t kRowStep = kMaxDepth + kLanes;

/// Units from one place of the summed dimension to the next in one packed by columns: whole vectors.
constexpr int64_t kColumnStep = (kTileRows + kLanes - 1) / kLanes * kLanes;

/// From one panel of the right operand to the next: likewise no power of two.
constexpr int64_t panel_units(int64_t depth) { return (depth + 1) * kTileColumns; }

enum class LeftForm { Rows, Columns };
constexpr int64_t row_step(LeftForm form) { return form == LeftForm::Rows ? kRowStep : 1; }
constexpr int64_t depth_step(LeftForm form) { return form == LeftForm::Rows ? 1 : kColumnStep; }

/// Fetches memory into the second cache, a little at a time: `runs` of `lines` steps, `step` bytes apart.
class Fetcher {
  public:
    Fetcher() = default;
    Fetcher(const void* first, int64_t lines, int64_t step, int64_t runs, int64_t run_step, int64_t times)
        : at_(static_cast<const char*>(first)),
          left_(lines),
          lines_(lines),
          step_(step),
          jump_(run_step - lines * step),
          all_(lines * runs),
          each_(ceil_div(all_, times)) {}

    void fetch_some() {
        for (int64_t i = std::min(each_, all_); i > 0; --i) {
            __builtin_prefetch(at_, 0, 2);
            at_ += step_;
            if (--left_ == 0) left_ = lines_, at_ += jump_;
        }
        all_ -= std::min(each_, all_);
    }

  private:
    const char* at_ = nullptr;
    int64_t left_ = 0, lines_ = 0, step_ = 0, jump_ = 0, all_ = 0, each_ = 0;
};

constexpr int64_t kFetchEvery = 16;  ///< Units of the summed dimension.

/// sums = left * right, for the first `rows` rows and `vectors` vectors of a tile.
template <typename Product, LeftForm form, int rows, int vectors>
inline void multiply_tile(Vec (&sums)[kTileRows][kTileVectors], const Unit* left, const Unit* right, int64_t depth,
                          Fetcher& fetcher) {
    Vec sum[rows][vectors] = {};
    for (int64_t strip = 0; strip < depth; strip += kFetchEvery) {
        fetcher.fetch_some();
        for (int64_t k = std::min(kFetchEvery, depth - strip); k > 0;
             --k, left += depth_step(form), right += kTileColumns) {
            Vec b[vectors];
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) b[j] = load(right + j * kLanes);
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i) {
                const Vec a = Product::spread(left + i * row_step(form));
#pragma GCC unroll 4
                for (int j = 0; j < vectors; ++j) sum[i][j] = Product::multiply_add(a, b[j], sum[i][j]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) sums[i][j] = sum[i][j];
    }
}

}  // namespace llmc::cpu
