// Low-rank adapters for tests: shapes, operands, and what each operation is, in double precision and as plain loops.
#pragma once

#include "tests/backend/dropout_testing.h"

namespace llmc {

struct AdapterCase {
    const char* name;
    int64_t N, IC, OC;
    AdapterShape shape;
    float p = 0;  ///< Of dropout.

    /// Without its rows.
    Dropout dropout() const { return {p, 99, 5, 7, {}}; }
};

inline const std::vector<AdapterCase>& adapter_cases() {
    static const std::vector<AdapterCase> cases = {
        {"one", 1, 1, 1, {1, {{0, 1, 1}}}},
        {"odd", 37, 50, 23, {3, {{0, 23, 2}}}},
        {"queries and values", 70, 96, 60, {4, {{0, 30, 2}, {45, 15, 0.5f}}}},
        {"queries, keys, values", 130, 64, 128, {8, {{0, 64, 2}, {64, 32, 2}, {96, 32, 2}}}},
        {"wide", 300, 200, 520, {17, {{8, 512, 0.25f}}}},
        {"large rank", 65, 33, 70, {40, {{0, 40, 1}, {40, 30, 3}}}},
        {"one dropped", 3, 5, 4, {2, {{0, 4, 1}}}, 0.5f},
        {"queries and values dropped", 70, 90, 60, {4, {{0, 30, 2}, {45, 15, 0.5f}}}, 0.25f},
        {"long and dropped", 19, 300, 8, {17, {{0, 8, 0.25f}}}, 0.1f},
        {"large rank dropped", 20, 33, 12, {40, {{0, 8, 1}, {8, 4, 3}}}, 0.3f},
        {"many tokens dropped", 300, 20, 8, {2, {{0, 8, 1}}}, 0.2f},
    };
    return cases;
}

/// Operands and results of all six operations; results hold what is added to where an operation adds.
struct AdapterBuffers {
    AdapterBuffers(const AdapterCase& c, DType dtype)
        : x(random_buffer(dtype, c.N, c.IC, 1, 1)),
          a(random_buffer(DType::F32, c.shape.z_columns(), c.IC, 0.1, 2)),
          b(random_buffer(DType::F32, c.shape.b_rows(), c.shape.rank, 0.1, 3)),
          z(random_buffer(DType::F32, c.N, c.shape.z_columns(), 1, 4)),
          d_out(random_buffer(dtype, c.N, c.OC, 1, 5)),
          d_z(random_buffer(DType::F32, c.N, c.shape.z_columns(), 1, 6)),
          out(random_buffer(dtype, c.N, c.OC, 1, 7)),
          d_x(random_buffer(dtype, c.N, c.IC, 1, 8)),
          d_a(random_buffer(DType::F32, c.shape.z_columns(), c.IC, 1, 9)),
          d_b(random_buffer(DType::F32, c.shape.b_rows(), c.shape.rank, 1, 10)),
          rows(mask_rows(c.N)),
          new_z(DType::F32, c.N, c.shape.z_columns()),
          new_d_z(DType::F32, c.N, c.shape.z_columns()) {}

    TestBuffer x, a, b, z, d_out, d_z;  ///< Operands.
    TestBuffer out, d_x, d_a, d_b;      ///< Results ...
    TestBuffer rows;                    ///< What masks are drawn by.
    TestBuffer new_z, new_d_z;          ///< ... and these.
    std::vector<const TestBuffer*> results() const { return {&out, &d_x, &d_a, &d_b, &new_z, &new_d_z}; }
};

/// All six on a backend, whose tensors of the buffers `on` gives.
template <typename On>
void run_adapter(Backend& backend, const AdapterCase& c, const AdapterBuffers& t, bool adds, const On& on) {
    const TestBuffer of_a = workspace_buffer(backend.adapter_workspace(c.N, c.shape.z_columns(), c.IC));
    const TestBuffer of_b = workspace_buffer(backend.adapter_workspace(c.N, c.shape.b_rows(), c.shape.rank));
    Dropout dropout = c.dropout();
    dropout.rows = on(t.rows);
    backend.adapter_down_forward(on(t.new_z), on(t.x), on(t.a), c.shape, dropout, on(of_a));
    backend.adapter_down_backward_weight(on(t.d_a), adds, on(t.d_z), on(t.x), c.shape, dropout, on(of_a));
    backend.adapter_down_backward_input(on(t.d_x), on(t.d_z), on(t.a), c.shape, dropout, on(of_a));
    backend.adapter_up_forward(on(t.out), on(t.z), on(t.b), c.shape, on(of_b));
    backend.adapter_up_backward_weight(on(t.d_b), adds, on(t.d_out), on(t.z), c.shape, on(of_b));
    backend.adapter_up_backward_input(on(t.new_d_z), on(t.d_out), on(t.b), c.shape, on(of_b));
    backend.synchronize();
    EXPECT_TRUE(of_a.intact() && of_b.intact());
}

/// What the results become, in the order of AdapterBuffers::results(), computed in type Real.
template <typename Real>
std::vector<Values> plain_adapter(const AdapterCase& c, const AdapterBuffers& t, bool adds) {
    const int64_t R = c.shape.z_columns(), rank = c.shape.rank;
    const auto reals = [](const TestBuffer& buffer) {
        const Values values = buffer.values();
        return std::vector<Real>(values.begin(), values.end());
    };
    const std::vector<Real> x = reals(t.x), a = reals(t.a), b = reals(t.b), z = reals(t.z), d_out = reals(t.d_out),
                            d_z = reals(t.d_z);
    std::vector<Real> out = reals(t.out), d_x = reals(t.d_x), d_a = reals(t.d_a), d_b = reals(t.d_b),
                      new_z(static_cast<size_t>(c.N * R)), new_d_z(static_cast<size_t>(c.N * R));
    if (!adds) d_a.assign(d_a.size(), 0), d_b.assign(d_b.size(), 0);
    const auto factor = [&](int64_t n, int64_t k, int64_t r) {  // Of what the group of row r of A reads.
        if (c.p == 0) return Real{1};
        return static_cast<Real>(plain_factor(c.dropout().at(c.dropout().site + r / rank), t.rows, n, k));
    };
    for (int64_t r = 0; r < R; ++r) {
        for (int64_t k = 0; k < c.IC; ++k) {
            Real sum = 0;
            for (int64_t n = 0; n < c.N; ++n) sum += d_z[n * R + r] * factor(n, k, r) * x[n * c.IC + k];
            d_a[r * c.IC + k] += sum;
        }
    }
    for (int64_t n = 0; n < c.N; ++n) {
        for (int64_t r = 0; r < R; ++r) {
            for (int64_t k = 0; k < c.IC; ++k) new_z[n * R + r] += factor(n, k, r) * x[n * c.IC + k] * a[r * c.IC + k];
        }
        for (int64_t k = 0; k < c.IC; ++k) {
            Real sum = 0;
            for (int64_t r = 0; r < R; ++r) sum += factor(n, k, r) * d_z[n * R + r] * a[r * c.IC + k];
            d_x[n * c.IC + k] += sum;
        }
    }
    int64_t first_row = 0, first_z = 0;
    for (const AdapterGroup& group : c.shape.groups) {
        for (int64_t j = 0; j < group.columns; ++j) {
            const int64_t column = group.first_column + j, row = first_row + j;
            for (int64_t r = 0; r < rank; ++r) {
                Real sum = 0;
                for (int64_t n = 0; n < c.N; ++n) sum += d_out[n * c.OC + column] * z[n * R + first_z + r];
                d_b[row * rank + r] += group.scale * sum;
            }
            for (int64_t n = 0; n < c.N; ++n) {
                Real sum = 0;
                for (int64_t r = 0; r < rank; ++r) {
                    sum += z[n * R + first_z + r] * b[row * rank + r];
                    new_d_z[n * R + first_z + r] += group.scale * d_out[n * c.OC + column] * b[row * rank + r];
                }
                out[n * c.OC + column] += group.scale * sum;
            }
        }
        first_row += group.columns, first_z += rank;
    }
    std::vector<Values> all;
    for (const std::vector<Real>* result : {&out, &d_x, &d_a, &d_b, &new_z, &new_d_z}) {
        all.emplace_back(result->begin(), result->end());
    }
    return all;
}

}  // namespace llmc
