// Dropout for tests: rows that masks are drawn by, and the masks one counter at a time.
#pragma once

#include "llmc/base/dropout.h"
#include "llmc/base/rng.h"
#include "tests/backend/backend_testing.h"

namespace llmc {

/// Some rows of a document, then some of the next; numbers use all their bits.
inline TestBuffer mask_rows(int64_t N) {
    TestBuffer rows(DType::I32, N, 2);
    auto* const to = rows.tensor().as<int32_t>();
    for (int64_t n = 0; n < N; ++n) {
        to[2 * n] = static_cast<int32_t>(0x9E3779B9u * static_cast<uint32_t>(n / 5 + 1));
        to[2 * n + 1] = static_cast<int32_t>(n % 5 * 1001);
    }
    return rows;
}

/// Of row n and channel c, for `rows` of the host.
inline float plain_factor(const Dropout& dropout, const TestBuffer& rows, int64_t n, int64_t c) {
    const auto* const row = rows.tensor().as<int32_t>() + 2 * n;
    const uint64_t index = uint64_t{static_cast<uint32_t>(row[0])} << 32 | uint64_t{static_cast<uint32_t>(row[1])};
    const uint32_t item = static_cast<uint32_t>(dropout.layer) << 22 | static_cast<uint32_t>(dropout.site) << 16 |
                          static_cast<uint32_t>(c / 8);
    const uint32_t word = philox(dropout.seed, RngStream::Dropout, item, index)[static_cast<size_t>(c % 8 / 2)];
    const uint32_t draw = c % 2 == 0 ? word & 0xffffu : word >> 16;
    return static_cast<double>(draw) < std::round(dropout.p * 65536.0) ? 0.0f : 1 / (1 - dropout.p);
}

struct DropoutCase {
    int64_t N, C;
    float p;
    bool has_residual;
};

inline const std::vector<DropoutCase>& dropout_cases() {
    static const std::vector<DropoutCase> cases = {
        {1, 1, 0.5f, true}, {7, 13, 0.1f, true}, {33, 64, 0.3f, false}, {20, 1032, 0.9f, true}, {65, 515, 0.2f, false}};
    return cases;
}

/// Dropout of a case on a backend, whose tensors of the buffers `on` gives: a kept element's result is residual +
/// scale x, rounded once; a dropped one's the residual.
template <typename Run>
void expect_dropout(const DropoutCase& c, DType dtype, const Run& run_on_backend) {
    SCOPED_TRACE(fmt::format("{} x {}, p = {}, {}", c.N, c.C, c.p, name_of(dtype)));
    const TestBuffer x = random_buffer(dtype, c.N, c.C, 1, 1), residual = random_buffer(dtype, c.N, c.C, 1, 2);
    const TestBuffer out(dtype, c.N, c.C), rows = mask_rows(c.N);
    Dropout dropout = {c.p, 5, 3, 2, rows};
    run_on_backend([&](Backend& backend, auto on) {
        Dropout there = dropout;
        there.rows = on(rows);
        backend.dropout(on(out), on(x), c.has_residual ? on(residual) : Tensor(), there);
    });
    const Values from = x.values(), beside = residual.values(), result = out.values();
    for (int64_t n = 0; n < c.N; ++n) {
        for (int64_t channel = 0; channel < c.C; ++channel) {
            const auto i = static_cast<size_t>(n * c.C + channel);
            const double factor = plain_factor(dropout, rows, n, channel), start = c.has_residual ? beside[i] : 0;
            if (factor == 0) {
                ASSERT_EQ(result[i], start) << n << " " << channel;
            } else {
                const double exact = start + factor * from[i], size = std::abs(start) + std::abs(factor * from[i]);
                ASSERT_NEAR(result[i], exact, size * (dtype == DType::BF16 ? 0x1p-8 : 0x1p-23)) << n << " " << channel;
            }
        }
    }
}

}  // namespace llmc
