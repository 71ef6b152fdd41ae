// Low-rank adapters: three thin products, with the long dimension in vectors and a register block of rows and of the
// rank. What is long is read once from memory and then from a cache. B is turned first, so that it, too, has the long
// dimension in its rows. Blocks depend on the shape alone.
#include "llmc/backend/cpu/attention_simd.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"

#include "llmc/base/check.h"

#include <algorithm>
#include <array>

namespace llmc::cpu {
namespace {

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

/// out (rows, few) = scale * x (rows, long) * y (few, long)^T, for kRows rows of x and kFew of y.
template <int kRows, int kFew, typename T>
void dot_block(float* out, int64_t out_stride, const T* x, int64_t x_stride, const float* y, int64_t y_stride,
               int64_t length, float scale) {
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
            out[i * out_stride + j] = scale * sum;
        }
    }
}

/// The same for any number of rows of both.
template <typename T>
void dots(const Matrix<float>& out, const Matrix<const T>& x, const Matrix<const float>& y, float scale) {
    for (int64_t j = 0; j < y.rows;) {
        const int few = static_cast<int>(std::min<int64_t>(kBlockRows, y.rows - j));
        for (int64_t i = 0; i < x.rows;) {
            const bool whole = x.rows - i >= kBlockRows;
            const auto run = [&](auto block) {
                block(out.row(i) + j, out.stride, x.row(i), x.stride, y.row(j), y.stride, x.cols, scale);
            };
            if (whole && few == kBlockRows) {
                run(dot_block<kBlockRows, kBlockRows, T>);
            } else if (whole) {
                for (int rest = 0; rest < few; ++rest) {
                    dot_block<kBlockRows, 1, T>(out.row(i) + j + rest, out.stride, x.row(i), x.stride, y.row(j + rest),
                                                y.stride, x.cols, scale);
                }
            } else {
                for (int rest = 0; rest < few; ++rest) {
                    dot_block<1, 1, T>(out.row(i) + j + rest, out.stride, x.row(i), x.stride, y.row(j + rest), y.stride,
                                       x.cols, scale);
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

/// All of out, shared out by columns.
template <typename T>
void sums(const Matrix<float>& out, bool adds, const Matrix<const float>& x, const Matrix<const T>& y, float scale) {
    constexpr int kFew = 8;
    const int64_t bytes = y.rows * y.cols * static_cast<int64_t>(sizeof(T));
    for_each_range(y.cols, kLanes, bytes, [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < out.rows;) {
            const bool whole = out.rows - i >= kFew;
            const auto run = [&](auto block) {
                block(out.row(i) + begin, out.stride, adds, x.data + i, x.stride, y.data + begin, y.stride, x.rows,
                      end - begin, scale);
            };
            whole ? run(sum_block<kFew, T>) : run(sum_block<1, T>);
            i += whole ? kFew : 1;
        }
    });
}

/// out (cols, rows) = or += x (rows, cols) transposed.
void transpose(const Matrix<float>& out, bool adds, const Matrix<const float>& x) {
    for_each_range(x.rows, kTaskRows, x.rows * x.cols * 8, [&](int64_t begin, int64_t end) {
        for (int64_t j = 0; j < x.cols; ++j) {
            for (int64_t i = begin; i < end; ++i) out.row(j)[i] = (adds ? out.row(j)[i] : 0.0f) + x.row(i)[j];
        }
    });
}

/// Calls run(T*) with T the type of a tensor's elements.
template <typename Run>
void by_type(const Tensor& tensor, const Run& run) {
    tensor.dtype == DType::F32 ? run(static_cast<float*>(nullptr)) : run(static_cast<bf16*>(nullptr));
}

bool is(const Tensor& tensor, int64_t rows, int64_t cols) {
    return tensor.data != nullptr && tensor.shape == std::array<int64_t, 3>{rows, cols, 1};
}
bool is_fp32(const Tensor& tensor, int64_t rows, int64_t cols) {
    return is(tensor, rows, cols) && tensor.dtype == DType::F32;
}

Matrix<const float> readable(const Matrix<float>& matrix) {
    return {matrix.data, matrix.rows, matrix.cols, matrix.stride};
}

/// Calls run(group, its first column of z, its rows of B, turned: (rank, columns)) for every group.
template <typename Run>
void for_each_group(const AdapterShape& shape, const Matrix<float>& turned, const Run& run) {
    int64_t first_row = 0, first_z = 0;
    for (const AdapterGroup& group : shape.groups) {
        run(group, first_z, turned.columns(first_row, group.columns));
        first_row += group.columns;
        first_z += shape.rank;
    }
}

Matrix<float> turned_in(const Tensor& workspace, const AdapterShape& shape) {
    CHECK(workspace.bytes() >= shape.rank * shape.b_rows() * size_of(DType::F32), workspace.bytes());
    return {static_cast<float*>(workspace.data), shape.rank, shape.b_rows(), shape.b_rows()};
}

}  // namespace

void CpuBackend::adapter_down_forward(Tensor z, Tensor x, Tensor a, Tensor /*workspace*/) {
    const int64_t N = x.shape[0], IC = x.shape[1], R = a.shape[0];
    CHECK(is_fp32(z, N, R) && is_fp32(a, R, IC) && is(x, N, IC), N, IC, R);
    by_type(x, [&]<typename T>(T*) {
        for_each_range(N, kTaskRows, x.bytes(), [&](int64_t begin, int64_t end) {
            dots<T>(matrix_of<float>(z).part(begin, end - begin), matrix_of<const T>(x).part(begin, end - begin),
                    matrix_of<const float>(a), 1);
        });
    });
}

void CpuBackend::adapter_down_backward_weight(Tensor d_a, bool adds, Tensor d_z, Tensor x, Tensor /*workspace*/) {
    const int64_t N = x.shape[0], IC = x.shape[1], R = d_a.shape[0];
    CHECK(is_fp32(d_a, R, IC) && is_fp32(d_z, N, R) && is(x, N, IC), N, IC, R);
    by_type(x, [&]<typename T>(T*) {
        sums<T>(matrix_of<float>(d_a), adds, matrix_of<const float>(d_z), matrix_of<const T>(x), 1);
    });
}

void CpuBackend::adapter_down_backward_input(Tensor d_x, Tensor d_z, Tensor a, Tensor /*workspace*/) {
    const int64_t N = d_x.shape[0], IC = d_x.shape[1], R = a.shape[0];
    CHECK(is(d_x, N, IC) && is_fp32(d_z, N, R) && is_fp32(a, R, IC), N, IC, R);
    by_type(d_x, [&]<typename T>(T*) {
        for_each_range(N, kTaskRows, d_x.bytes(), [&](int64_t begin, int64_t end) {
            spread<T>(matrix_of<T>(d_x).part(begin, end - begin), matrix_of<const float>(d_z).part(begin, end - begin),
                      matrix_of<const float>(a), 1);
        });
    });
}

void CpuBackend::adapter_up_forward(Tensor out, Tensor z, Tensor b, const AdapterShape& shape, Tensor workspace) {
    const int64_t N = out.shape[0], OC = out.shape[1];
    CHECK(is(out, N, OC) && is_fp32(z, N, shape.z_columns()) && is_fp32(b, shape.b_rows(), shape.rank), N, OC);
    const Matrix<float> turned = turned_in(workspace, shape);
    transpose(turned, /*adds=*/false, matrix_of<const float>(b));
    by_type(out, [&]<typename T>(T*) {
        for_each_range(N, kTaskRows, out.bytes(), [&](int64_t begin, int64_t end) {
            const Matrix<T> rows = matrix_of<T>(out).part(begin, end - begin);
            const Matrix<const float> z_rows = matrix_of<const float>(z).part(begin, end - begin);
            for_each_group(shape, turned, [&](const AdapterGroup& group, int64_t first_z, const Matrix<float>& b_rows) {
                spread<T>(rows.columns(group.first_column, group.columns), z_rows.columns(first_z, shape.rank),
                          readable(b_rows), group.scale);
            });
        });
    });
}

void CpuBackend::adapter_up_backward_weight(Tensor d_b, bool adds, Tensor d_out, Tensor z, const AdapterShape& shape,
                                            Tensor workspace) {
    const int64_t N = d_out.shape[0], OC = d_out.shape[1];
    CHECK(is(d_out, N, OC) && is_fp32(z, N, shape.z_columns()) && is_fp32(d_b, shape.b_rows(), shape.rank), N, OC);
    const Matrix<float> turned = turned_in(workspace, shape);
    by_type(d_out, [&]<typename T>(T*) {
        for_each_group(shape, turned, [&](const AdapterGroup& group, int64_t first_z, const Matrix<float>& d_rows) {
            sums<T>(d_rows, /*adds=*/false, matrix_of<const float>(z).columns(first_z, shape.rank),
                    matrix_of<const T>(d_out).columns(group.first_column, group.columns), group.scale);
        });
    });
    transpose(matrix_of<float>(d_b), adds, readable(turned));
}

void CpuBackend::adapter_up_backward_input(Tensor d_z, Tensor d_out, Tensor b, const AdapterShape& shape,
                                           Tensor workspace) {
    const int64_t N = d_out.shape[0], OC = d_out.shape[1];
    CHECK(is(d_out, N, OC) && is_fp32(d_z, N, shape.z_columns()) && is_fp32(b, shape.b_rows(), shape.rank), N, OC);
    const Matrix<float> turned = turned_in(workspace, shape);
    transpose(turned, /*adds=*/false, matrix_of<const float>(b));
    by_type(d_out, [&]<typename T>(T*) {
        for_each_range(N, kTaskRows, d_out.bytes(), [&](int64_t begin, int64_t end) {
            const Matrix<const T> rows = matrix_of<const T>(d_out).part(begin, end - begin);
            const Matrix<float> z_rows = matrix_of<float>(d_z).part(begin, end - begin);
            for_each_group(shape, turned, [&](const AdapterGroup& group, int64_t first_z, const Matrix<float>& b_rows) {
                dots<T>(z_rows.columns(first_z, shape.rank), rows.columns(group.first_column, group.columns),
                        readable(b_rows), group.scale);
            });
        });
    });
}

int64_t CpuBackend::adapter_workspace(int64_t /*N*/, int64_t rows, int64_t columns) const {
    return round_up(rows * columns * size_of(DType::F32), kTensorAlignment);
}

}  // namespace llmc::cpu
