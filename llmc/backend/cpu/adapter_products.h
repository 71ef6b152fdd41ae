// The products of low-rank adapters: thin ones, with the long dimension in vectors and a register block of rows and of
// the rank. What is long is read once from memory and then from a cache. Blocks depend on the shape alone.
#pragma once

#include "llmc/backend/cpu/attention_simd.h"
#include "llmc/base/tensor.h"

#include <algorithm>
#include <cstdint>

namespace llmc::cpu {

constexpr int kBlockRows = 4;       ///< Of a register block.
constexpr int64_t kTaskRows = 64;   ///< Rows of what a thread takes at once.
constexpr int64_t kSumGroup = 256;  ///< Tokens that are added up before they join a sum.

/// A row-major matrix; rows may be further apart than they are long.
template <typename T>
struct Matrix {
    T* data;
    int64_t rows, cols, stride;
    T* row(int64_t i) const { return data + i * stride; }
    Matrix part(int64_t first_row, int64_t count) const { return {row(first_row), count, cols, stride}; }
    Matrix columns(int64_t first, int64_t count) const { return {data + first, rows, count, stride}; }
};
template <typename T>
Matrix<T> matrix_of(const Tensor& tensor) {
    return {tensor.as<T>(), tensor.shape[0], tensor.shape[1], tensor.shape[1]};
}

/// out (rows, few) = or += scale * x (rows, long) * y (few, long)^T, for kRows rows of x and kFew of y.
template <int kRows, int kFew, typename T>
void dot_block(float* out, int64_t out_stride, bool adds, const T* x, int64_t x_stride, const float* y,
               int64_t y_stride, int64_t length, float scale) {
    Vec sums[kRows][kFew] = {};
    int64_t k = 0;
    for (; k + kLanes <= length; k += kLanes) {
        Vec b[kFew];
        for (int j = 0; j < kFew; ++j) b[j] = load(y + j * y_stride + k);
        for (int i = 0; i < kRows; ++i) {
            const Vec a = load_elements(x + i * x_stride + k);
            for (int j = 0; j < kFew; ++j) sums[i][j] += a * b[j];
        }
    }
    for (int i = 0; i < kRows; ++i) {
        for (int j = 0; j < kFew; ++j) {
            float sum = sum_of(sums[i][j]);
            for (int64_t rest = k; rest < length; ++rest)
                sum += to_float(x[i * x_stride + rest]) * y[j * y_stride + rest];
            float& to = out[i * out_stride + j];
            to = (adds ? to : 0.0f) + scale * sum;
        }
    }
}

/// The same for any number of rows of both.
template <typename T>
void dots(const Matrix<float>& out, bool adds, const Matrix<const T>& x, const Matrix<const float>& y, float scale) {
    for (int64_t j = 0; j < y.rows;) {
        const int few = static_cast<int>(std::min<int64_t>(kBlockRows, y.rows - j));
        for (int64_t i = 0; i < x.rows;) {
            const bool whole = x.rows - i >= kBlockRows;
            const auto run = [&](auto block) {
                block(out.row(i) + j, out.stride, adds, x.row(i), x.stride, y.row(j), y.stride, x.cols, scale);
            };
            if (whole && few == kBlockRows) {
                run(dot_block<kBlockRows, kBlockRows, T>);
            } else if (whole) {
                for (int rest = 0; rest < few; ++rest) {
                    dot_block<kBlockRows, 1, T>(out.row(i) + j + rest, out.stride, adds, x.row(i), x.stride,
                                                y.row(j + rest), y.stride, x.cols, scale);
                }
            } else {
                for (int rest = 0; rest < few; ++rest) {
                    dot_block<1, 1, T>(out.row(i) + j + rest, out.stride, adds, x.row(i), x.stride, y.row(j + rest),
                                       y.stride, x.cols, scale);
                }
            }
            i += whole ? kBlockRows : 1;
        }
        j += few;
    }
}

/// out (rows, long) += scale * x (rows, few) * y (few, long): kRows rows and kVectors vectors of columns.
template <int kRows, int kVectors, typename T>
void spread_block(T* out, int64_t out_stride, const float* x, int64_t x_stride, const float* y, int64_t y_stride,
                  int64_t few, float scale) {
    Vec sums[kRows][kVectors] = {};
    for (int64_t r = 0; r < few; ++r) {
        Vec b[kVectors];
        for (int v = 0; v < kVectors; ++v) b[v] = load(y + r * y_stride + v * kLanes);
        for (int i = 0; i < kRows; ++i) {
            const Vec a = broadcast(x[i * x_stride + r]);
            for (int v = 0; v < kVectors; ++v) sums[i][v] += a * b[v];
        }
    }
    for (int i = 0; i < kRows; ++i) {
        for (int v = 0; v < kVectors; ++v) {
            T* const to = out + i * out_stride + v * kLanes;
            store_elements(to, load_elements(to) + scale * sums[i][v]);
        }
    }
}

template <typename T>
void spread(const Matrix<T>& out, const Matrix<const float>& x, const Matrix<const float>& y, float scale) {
    constexpr int kVectors = 2;
    const int64_t whole_columns = out.cols / (kVectors * kLanes) * (kVectors * kLanes);
    for (int64_t i = 0; i < out.rows;) {
        const bool whole = out.rows - i >= kBlockRows;
        for (int64_t j = 0; j < whole_columns; j += kVectors * kLanes) {
            const auto run = [&](auto block) {
                block(out.row(i) + j, out.stride, x.row(i), x.stride, y.data + j, y.stride, y.rows, scale);
            };
            whole ? run(spread_block<kBlockRows, kVectors, T>) : run(spread_block<1, kVectors, T>);
        }
        const int64_t end = i + (whole ? kBlockRows : 1);
        for (; i < end; ++i) {
            for (int64_t j = whole_columns; j < out.cols; ++j) {
                float sum = 0;
                for (int64_t r = 0; r < y.rows; ++r) sum += x.row(i)[r] * y.row(r)[j];
                out.row(i)[j] = from_float<T>(to_float(out.row(i)[j]) + scale * sum);
            }
        }
    }
}

/// Sums over tokens, in groups: out (few, long) = or += scale * x (N, few)^T * y (N, long), for kFew rows and kLanes
/// columns of it, or fewer.
template <int kFew, typename T>
void sum_block(float* out, int64_t out_stride, bool adds, const float* x, int64_t x_stride, const T* y,
               int64_t y_stride, int64_t N, int64_t columns, float scale) {
    Vec total[kFew] = {};
    for (int64_t group = 0; group < N; group += kSumGroup) {
        Vec part[kFew] = {};
        for (int64_t n = group; n < std::min(N, group + kSumGroup); ++n) {
            Vec b = {};
            if (columns == kLanes) {
                b = load_elements(y + n * y_stride);
            } else {
                for (int64_t j = 0; j < columns; ++j) b[j] = to_float(y[n * y_stride + j]);
            }
            for (int i = 0; i < kFew; ++i) part[i] += broadcast(x[n * x_stride + i]) * b;
        }
        for (int i = 0; i < kFew; ++i) total[i] += part[i];
    }
    for (int i = 0; i < kFew; ++i) {
        float* const to = out + i * out_stride;
        for (int64_t j = 0; j < columns; ++j) to[j] = (adds ? to[j] : 0.0f) + scale * total[i][j];
    }
}

}  // namespace llmc::cpu
