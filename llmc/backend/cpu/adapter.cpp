// Low-rank adapters: three thin products (adapter_products.h). B is turned first, so that it, too, has the long
// dimension in its rows. With dropout: adapter_dropout.cpp.
#include "llmc/backend/cpu/adapter_dropout.h"
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/parallel.h"

#include "llmc/base/check.h"

#include <array>

namespace llmc::cpu {
namespace {

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

void CpuBackend::adapter_down_forward(Tensor z, Tensor x, Tensor a, const AdapterShape& shape, const Dropout& dropout,
                                      Tensor /*workspace*/) {
    const int64_t N = x.shape[0], IC = x.shape[1], R = a.shape[0];
    CHECK(is_fp32(z, N, R) && is_fp32(a, R, IC) && is(x, N, IC), N, IC, R);
    CHECK(shape.z_columns() == R, shape.z_columns(), R);
    by_type(x, [&]<typename T>(T*) {
        if (dropout)
            return dropped_dots<T>(matrix_of<float>(z), matrix_of<const T>(x), matrix_of<const float>(a), shape,
                                   dropout);
        for_each_range(N, kTaskRows, x.bytes(), [&](int64_t begin, int64_t end) {
            dots<T>(matrix_of<float>(z).part(begin, end - begin), /*adds=*/false,
                    matrix_of<const T>(x).part(begin, end - begin), matrix_of<const float>(a), 1);
        });
    });
}

void CpuBackend::adapter_down_backward_weight(Tensor d_a, bool adds, Tensor d_z, Tensor x, const AdapterShape& shape,
                                              const Dropout& dropout, Tensor /*workspace*/) {
    const int64_t N = x.shape[0], IC = x.shape[1], R = d_a.shape[0];
    CHECK(is_fp32(d_a, R, IC) && is_fp32(d_z, N, R) && is(x, N, IC), N, IC, R);
    CHECK(shape.z_columns() == R, shape.z_columns(), R);
    by_type(x, [&]<typename T>(T*) {
        if (dropout) {
            return dropped_sums<T>(matrix_of<float>(d_a), adds, matrix_of<const float>(d_z), matrix_of<const T>(x),
                                   shape, dropout);
        }
        sums<T>(matrix_of<float>(d_a), adds, matrix_of<const float>(d_z), matrix_of<const T>(x), 1);
    });
}

void CpuBackend::adapter_down_backward_input(Tensor d_x, Tensor d_z, Tensor a, const AdapterShape& shape,
                                             const Dropout& dropout, Tensor /*workspace*/) {
    const int64_t N = d_x.shape[0], IC = d_x.shape[1], R = a.shape[0];
    CHECK(is(d_x, N, IC) && is_fp32(d_z, N, R) && is_fp32(a, R, IC), N, IC, R);
    CHECK(shape.z_columns() == R, shape.z_columns(), R);
    by_type(d_x, [&]<typename T>(T*) {
        if (dropout)
            return dropped_spread<T>(matrix_of<T>(d_x), matrix_of<const float>(d_z), matrix_of<const float>(a), shape,
                                     dropout);
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
                dots<T>(z_rows.columns(first_z, shape.rank), /*adds=*/false,
                        rows.columns(group.first_column, group.columns), readable(b_rows), group.scale);
            });
        });
    });
}

int64_t CpuBackend::adapter_workspace(int64_t /*N*/, int64_t rows, int64_t columns) const {
    return round_up(rows * columns * size_of(DType::F32), kTensorAlignment);
}

}  // namespace llmc::cpu
