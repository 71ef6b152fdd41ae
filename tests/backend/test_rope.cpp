// Rotary embedding against double precision, and its inverse.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace llmc::cpu {
namespace {

constexpr float kGuard = 12345.0f;
constexpr int64_t kGuards = 64;

struct Case {
    AttentionShape shape;
    int64_t first_position;
    int64_t part = 0;  ///< Columns that are rotated; 0: all of a head.
    int64_t columns() const { return part > 0 ? part : shape.HD; }
};

const Case kCases[] = {{{1, 1, 1, 1, 2}, 0},     {{2, 13, 3, 3, 8}, 0},      {{1, 50, 4, 2, 64}, 7},
                       {{3, 21, 6, 2, 10}, 33},  {{1, 3, 2, 1, 128}, 1001},  {{2, 300, 4, 4, 64}, 0},
                       {{2, 13, 3, 3, 8}, 0, 4}, {{1, 50, 4, 2, 64}, 7, 32}, {{3, 21, 6, 2, 11}, 33, 6}};

std::vector<float> make_table(int64_t max_T, int64_t HD) {
    std::vector<float> table(max_T * HD);
    for (int64_t t = 0; t < max_T; ++t)
        for (int64_t i = 0; i < HD / 2; ++i) {
            const double angle = static_cast<double>(t) * std::pow(10000.0, -2.0 * static_cast<double>(i) / HD);
            table[t * HD + i] = static_cast<float>(std::cos(angle));
            table[t * HD + HD / 2 + i] = static_cast<float>(std::sin(angle));
        }
    return table;
}

template <typename T>
struct Data {
    explicit Data(const AttentionShape& s) : memory(s.B * s.T * s.qkv_columns() + 2 * kGuards) {
        std::vector<float> values(memory.size());
        fill_normal(values.data(), static_cast<int64_t>(values.size()), 1.0f, 5, RngStream::Test, 0);
        for (size_t i = 0; i < memory.size(); ++i) memory[i] = from_float<T>(values[i]);
        for (int64_t i = 0; i < kGuards; ++i) memory[i] = memory[memory.size() - 1 - i] = from_float<T>(kGuard);
        tensor = Tensor(dtype_of<T>(), memory.data() + kGuards, s.B * s.T, s.qkv_columns());
    }
    float at(int64_t i) const { return to_float(memory[kGuards + i]); }
    bool intact() const {
        bool result = true;
        for (int64_t i = 0; i < kGuards; ++i)
            result = result && to_float(memory[i]) == to_float(from_float<T>(kGuard)) &&
                     to_float(memory[memory.size() - 1 - i]) == to_float(from_float<T>(kGuard));
        return result;
    }
    std::vector<T> memory;
    Tensor tensor;
};

/// What element i of a row becomes, in double.
template <typename T>
double rotated(const Data<T>& data, const std::vector<float>& table, const Case& c, int64_t n, int64_t column) {
    const AttentionShape& s = c.shape;
    const int64_t head = column / s.HD, d = column % s.HD, half = c.columns() / 2;
    const int64_t at = n * s.qkv_columns() + head * s.HD;
    if (head >= s.NH + s.NKV || d >= c.columns()) return data.at(at + d);
    const float* row = &table[(c.first_position + n % s.T) * c.columns()];
    const double cosine = row[d % half], sine = row[half + d % half];
    const double x = data.at(at + d % half), y = data.at(at + half + d % half);
    return d < half ? x * cosine - y * sine : y * cosine + x * sine;
}

template <typename T>
void check_case(const Case& c, double tolerance) {
    const AttentionShape& s = c.shape;
    std::vector<float> table = make_table(c.first_position + s.T, c.columns());
    const Tensor table_tensor(DType::F32, table.data(), c.first_position + s.T, c.columns());
    const Data<T> original(s);
    Data<T> turned(s);
    CpuBackend backend(2);
    backend.rope(turned.tensor, table_tensor, s, c.first_position, false);
    for (int64_t n = 0; n < s.B * s.T; ++n)
        for (int64_t column = 0; column < s.qkv_columns(); ++column)
            ASSERT_NEAR(turned.at(n * s.qkv_columns() + column), rotated(original, table, c, n, column), tolerance);
    for (const int threads : {1, 3}) {
        CpuBackend other_backend(threads);
        Data<T> other(s);
        other_backend.rope(other.tensor, table_tensor, s, c.first_position, false);
        EXPECT_EQ(std::memcmp(other.memory.data(), turned.memory.data(), turned.memory.size() * sizeof(T)), 0);
    }
    backend.rope(turned.tensor, table_tensor, s, c.first_position, true);
    for (int64_t i = 0; i < s.B * s.T * s.qkv_columns(); ++i) ASSERT_NEAR(turned.at(i), original.at(i), 3 * tolerance);
    EXPECT_TRUE(turned.intact());
}

}  // namespace

// Values reach about 5: half a unit in the last place is 2.4e-7 in fp32 and 1.6e-2 in bf16.
TEST(Rope, Fp32TurnsAndTurnsBack) {
    for (const Case& c : kCases) check_case<float>(c, 1e-6);
}

TEST(Rope, Bf16TurnsAndTurnsBack) {
    for (const Case& c : kCases) check_case<bf16>(c, 0.0157);
}

/// With angles times a factor, as YaRN has them, the inverse is the transpose: <a, R b> = <R' a, b>.
TEST(Rope, TheBackwardIsTheTranspose) {
    const AttentionShape s{1, 9, 2, 1, 8};
    std::vector<float> table = make_table(s.T, 6);
    for (float& entry : table) entry *= 1.37f;
    const Tensor table_tensor(DType::F32, table.data(), s.T, 6);
    const Data<float> a(s);
    Data<float> b(s);
    for (int64_t i = 0; i < s.T * s.qkv_columns(); ++i) b.tensor.as<float>()[i] = std::sin(static_cast<float>(i));
    Data<float> turned_b = b, turned_a = a;
    turned_b.tensor.data = turned_b.memory.data() + kGuards, turned_a.tensor.data = turned_a.memory.data() + kGuards;
    CpuBackend backend(1);
    backend.rope(turned_b.tensor, table_tensor, s, 0, false);
    backend.rope(turned_a.tensor, table_tensor, s, 0, true);
    double forward = 0, backward = 0;
    for (int64_t i = 0; i < s.T * s.qkv_columns(); ++i) {
        forward += static_cast<double>(a.at(i)) * turned_b.at(i);
        backward += static_cast<double>(turned_a.at(i)) * b.at(i);
    }
    EXPECT_NEAR(forward, backward, 1e-5 * std::fabs(forward));
    EXPECT_NE(turned_a.at(0), a.at(0));
}

TEST(RopeDeathTest, OddHeadSizesAreRefused) {
    float data[9] = {}, table[3] = {};
    EXPECT_DEATH(
        CpuBackend(1).rope(Tensor(DType::F32, data, 1, 9), Tensor(DType::F32, table, 1, 3), {1, 1, 1, 1, 3}, 0, false),
        "% 2");
}

}  // namespace llmc::cpu
