#include "llmc/backend/cpu/adapter_dropout.h"

#include "llmc/backend/cpu/parallel.h"

namespace llmc::cpu {
namespace {

constexpr int64_t kTileColumns = 256, kSpreadRows = 16;
constexpr int64_t kSumColumns = 16,
                  kSumRank = 32;  ///< Of a factor's gradient, what is summed with one drawing of masks.

/// Columns of a tile in memory.
int64_t stride_of(int64_t columns) { return round_up(columns, kDropoutChannels); }

/// D(x) of a tile, into `tile`.
template <typename T>
Matrix<float> dropped(float* tile, const Matrix<const T>& x, const Dropout& dropout, int64_t first_row, int64_t rows,
                      int64_t first, int64_t columns) {
    const Matrix<float> out = {tile, rows, columns, stride_of(columns)};
    fill_dropout_factors(tile, dropout, first_row, rows, first, columns);
    for (int64_t i = 0; i < rows; ++i) {
        const T* const from = x.row(first_row + i) + first;
        float* const to = out.row(i);
#pragma omp simd
        for (int64_t j = 0; j < columns; ++j) to[j] *= to_float(from[j]);
    }
    return out;
}

Matrix<const float> readable(const Matrix<float>& matrix) {
    return {matrix.data, matrix.rows, matrix.cols, matrix.stride};
}

/// Calls run(mask of the group, its first column of z) for every group.
template <typename Run>
void for_each_mask(const AdapterShape& shape, const Dropout& dropout, const Run& run) {
    for (size_t g = 0; g < shape.groups.size(); ++g) {
        const auto group = static_cast<int64_t>(g);
        run(dropout.at(dropout.site + group), group * shape.rank);
    }
}

/// Sums over all tokens of kSumColumns columns (or fewer) of a few rows of the factor: total (few, kSumColumns).
template <typename T>
void sum_columns(float* total, const Matrix<const float>& d_z, const Matrix<const T>& x, const Dropout& mask,
                 int64_t first, int64_t columns) {
    constexpr int kFew = 8;
    float tile[kSumGroup * kSumColumns];
    for (int64_t n = 0; n < x.rows; n += kSumGroup) {
        const int64_t tokens = std::min(kSumGroup, x.rows - n);
        const Matrix<float> y = dropped(tile, x, mask, n, tokens, first, columns);
        for (int64_t i = 0; i < d_z.cols;) {
            const bool whole = d_z.cols - i >= kFew;
            for (int64_t j = 0; j < columns; j += kLanes) {
                const auto run = [&](auto block) {
                    block(total + i * kSumColumns + j, kSumColumns, /*adds=*/true, d_z.row(n) + i, d_z.stride,
                          y.data + j, y.stride, tokens, std::min<int64_t>(kLanes, columns - j), 1);
                };
                whole ? run(sum_block<kFew, float>) : run(sum_block<1, float>);
            }
            i += whole ? kFew : 1;
        }
    }
}

}  // namespace

template <typename T>
void dropped_dots(const Matrix<float>& z, const Matrix<const T>& x, const Matrix<const float>& a,
                  const AdapterShape& shape, const Dropout& dropout) {
    const int64_t bytes = x.rows * x.cols * static_cast<int64_t>(sizeof(T));
    for_each_range(x.rows, kTaskRows, bytes, [&](int64_t begin, int64_t end) {
        float tile[kTaskRows * kTileColumns];
        for_each_mask(shape, dropout, [&](const Dropout& mask, int64_t first_z) {
            const Matrix<float> out = z.part(begin, end - begin).columns(first_z, shape.rank);
            for (int64_t first = 0; first < x.cols; first += kTileColumns) {
                const int64_t columns = std::min(kTileColumns, x.cols - first);
                const Matrix<float> y = dropped(tile, x, mask, begin, end - begin, first, columns);
                dots<float>(out, /*adds=*/first > 0, readable(y), a.part(first_z, shape.rank).columns(first, columns),
                            1);
            }
        });
    });
}

template <typename T>
void dropped_sums(const Matrix<float>& d_a, bool adds, const Matrix<const float>& d_z, const Matrix<const T>& x,
                  const AdapterShape& shape, const Dropout& dropout) {
    const int64_t bytes = x.rows * x.cols * static_cast<int64_t>(sizeof(T));
    for_each_range(x.cols, kSumColumns, bytes, [&](int64_t begin, int64_t end) {
        for_each_mask(shape, dropout, [&](const Dropout& mask, int64_t first_z) {
            for (int64_t done = 0; done < shape.rank; done += kSumRank) {
                const int64_t first = first_z + done, few = std::min(kSumRank, shape.rank - done);
                float total[kSumRank * kSumColumns] = {};
                sum_columns(total, d_z.columns(first, few), x, mask, begin, end - begin);
                for (int64_t i = 0; i < few; ++i) {
                    float* const to = d_a.row(first + i) + begin;
                    for (int64_t j = 0; j < end - begin; ++j) {
                        to[j] = (adds ? to[j] : 0.0f) + total[i * kSumColumns + j];
                    }
                }
            }
        });
    });
}

template <typename T>
void dropped_spread(const Matrix<T>& d_x, const Matrix<const float>& d_z, const Matrix<const float>& a,
                    const AdapterShape& shape, const Dropout& dropout) {
    const int64_t bytes = d_x.rows * d_x.cols * static_cast<int64_t>(sizeof(T));
    for_each_range(d_x.rows, kSpreadRows, bytes, [&](int64_t begin, int64_t end) {
        const int64_t rows = end - begin;
        float sum[kSpreadRows * kTileColumns], product[kSpreadRows * kTileColumns], factors[kSpreadRows * kTileColumns];
        for (int64_t first = 0; first < d_x.cols; first += kTileColumns) {
            const int64_t columns = std::min(kTileColumns, d_x.cols - first), stride = stride_of(columns);
            std::fill_n(sum, rows * stride, 0.0f);
            for_each_mask(shape, dropout, [&](const Dropout& mask, int64_t first_z) {
                std::fill_n(product, rows * stride, 0.0f);
                spread<float>({product, rows, columns, stride}, d_z.part(begin, rows).columns(first_z, shape.rank),
                              a.part(first_z, shape.rank).columns(first, columns), 1);
                fill_dropout_factors(factors, mask, begin, rows, first, columns);
#pragma omp simd
                for (int64_t i = 0; i < rows * stride; ++i) sum[i] += factors[i] * product[i];
            });
            for (int64_t i = 0; i < rows; ++i) {
                T* const to = d_x.row(begin + i) + first;
                for (int64_t j = 0; j < columns; ++j) to[j] = from_float<T>(to_float(to[j]) + sum[i * stride + j]);
            }
        }
    });
}

template void dropped_dots(const Matrix<float>&, const Matrix<const float>&, const Matrix<const float>&,
                           const AdapterShape&, const Dropout&);
template void dropped_sums(const Matrix<float>&, bool, const Matrix<const float>&, const Matrix<const float>&,
                           const AdapterShape&, const Dropout&);
template void dropped_spread(const Matrix<float>&, const Matrix<const float>&, const Matrix<const float>&,
                             const AdapterShape&, const Dropout&);
template void dropped_dots(const Matrix<float>&, const Matrix<const bf16>&, const Matrix<const float>&,
                           const AdapterShape&, const Dropout&);
template void dropped_sums(const Matrix<float>&, bool, const Matrix<const float>&, const Matrix<const bf16>&,
                           const AdapterShape&, const Dropout&);
template void dropped_spread(const Matrix<bf16>&, const Matrix<const float>&, const Matrix<const float>&,
                             const AdapterShape&, const Dropout&);

}  // namespace llmc::cpu
