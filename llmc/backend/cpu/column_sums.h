// Sums of the columns of a matrix, for gradients of biases.
#pragma once

#include "llmc/base/tensor.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace llmc::cpu {

/// Rows are added in groups, and then the groups, so that the rounding error grows with the root of their number.
constexpr int64_t kColumnSumGroup = 64;

/// sums (cols) = or += the sums of columns [first, first + cols) of x.
template <typename T>
void column_sums(float* sums, bool adds, const Tensor& x, int64_t first, int64_t cols) {
    constexpr int64_t kStrip = 256, kGroup = kColumnSumGroup;
    const int64_t rows = x.shape[0], stride = x.shape[1];
    for (int64_t strip = 0; strip < cols; strip += kStrip) {
        const int64_t width = std::min(kStrip, cols - strip);
        std::array<float, kStrip> total = {}, part;
        for (int64_t group = 0; group < rows; group += kGroup) {
            part.fill(0);
            const T* from = x.as<T>() + group * stride + first + strip;
            for (int64_t row = group; row < std::min(group + kGroup, rows); ++row, from += stride) {
#pragma omp simd
                for (int64_t j = 0; j < width; ++j) part[j] += to_float(from[j]);
            }
            for (int64_t j = 0; j < width; ++j) total[j] += part[j];
        }
        for (int64_t j = 0; j < width; ++j) sums[strip + j] = adds ? sums[strip + j] + total[j] : total[j];
    }
}

}  // namespace llmc::cpu
