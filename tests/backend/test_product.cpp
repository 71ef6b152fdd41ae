// Our own matrix products on one block, against loops in double precision (the error at most twice that of a plain
// fp32 loop): every form and type, on shapes that are multiples of nothing, with gaps between rows; that cutting a
// product changes no bit; and the table that says which products are used, in the backend, at every thread count.
#include "llmc/backend/cpu/cpu_backend.h"
#include "llmc/backend/cpu/product.h"

#include "llmc/base/error.h"
#include "llmc/base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace llmc {
namespace {

using cpu::GemmSpec;
using cpu::ProductKind;
using cpu::ProductOperands;
using cpu::ProductRule;

/// Numbers of one type, with 64 more of them on both sides.
class Numbers {
  public:
    Numbers(DType type, int64_t count, uint32_t item) : type_(type), values_(static_cast<size_t>(count)) {
        fill_normal(values_.data(), count, 1.0f, 77, RngStream::Test, item);
        memory_.resize(static_cast<size_t>((count + 2 * kGuard) * size_of(type)), std::byte{0x5a});
        for (int64_t i = 0; i < count; ++i) put(i, values_[static_cast<size_t>(i)]);
        for (int64_t i = 0; i < count; ++i) values_[static_cast<size_t>(i)] = get(i);
    }
    void* data() { return memory_.data() + kGuard * size_of(type_); }
    float get(int64_t i) const {
        const std::byte* at = memory_.data() + (kGuard + i) * size_of(type_);
        if (type_ == DType::F32) return *reinterpret_cast<const float*>(at);
        return to_float(*reinterpret_cast<const bf16*>(at));
    }
    float before(int64_t i) const { return values_[static_cast<size_t>(i)]; }
    const std::vector<std::byte>& bytes() const { return memory_; }
    DType type() const { return type_; }

  private:
    static constexpr int64_t kGuard = 64;
    void put(int64_t i, float value) {
        std::byte* at = memory_.data() + (kGuard + i) * size_of(type_);
        if (type_ == DType::F32)
            *reinterpret_cast<float*>(at) = value;
        else
            *reinterpret_cast<bf16*>(at) = to_bf16(value);
    }

    DType type_;
    std::vector<float> values_;
    std::vector<std::byte> memory_;
};

struct Form {
    bool transpose_a, transpose_b, accumulate, bias, residual;
};

/// A product with operands in memory, all of them with gaps between rows.
struct Problem {
    GemmSpec spec;
    Form form;
    Numbers a, b, c, bias, residual;

    Problem(int64_t m, int64_t n, int64_t k, DType ab, DType type_c, const Form& how)
        : spec{.m = m,
               .n = n,
               .k = k,
               .lda = (how.transpose_a ? m : k) + 3,
               .ldb = (how.transpose_b ? k : n) + 5,
               .ldc = n + 2,
               .transpose_a = how.transpose_a,
               .transpose_b = how.transpose_b,
               .accumulate = how.accumulate,
               .bias = how.bias,
               .ab = ab,
               .c = type_c},
          form(how),
          a(ab, (how.transpose_a ? k : m) * spec.lda, 1),
          b(ab, (how.transpose_b ? n : k) * spec.ldb, 2),
          c(type_c, m * spec.ldc, 3),
          bias(type_c, n, 4),
          residual(type_c, m * spec.ldc, 5) {}

    float at_a(int64_t i, int64_t k) const { return a.before(form.transpose_a ? k * spec.lda + i : i * spec.lda + k); }
    float at_b(int64_t k, int64_t j) const { return b.before(form.transpose_b ? j * spec.ldb + k : k * spec.ldb + j); }

    /// The block of these rows and columns.
    void run(const ProductRule& rule, int64_t row, int64_t rows, int64_t col, int64_t cols) {
        GemmSpec part = spec;
        part.m = rows, part.n = cols;
        const auto at = [](Numbers& x, int64_t i) { return static_cast<char*>(x.data()) + i * size_of(x.type()); };
        std::vector<float> scratch(static_cast<size_t>(cpu::product_scratch_bytes(part, rule) / 4 + 32), NAN);
        void* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) / 4;
        const int64_t of_c = row * spec.ldc + col;
        run_product(part, rule,
                    {.a = at(a, form.transpose_a ? row : row * spec.lda),
                     .b = at(b, form.transpose_b ? col * spec.ldb : col),
                     .c = at(c, of_c),
                     .bias = form.bias ? at(bias, col) : nullptr,
                     .residual = form.residual ? at(residual, of_c) : nullptr},
                    aligned);
    }
    void run(const ProductRule& rule) { run(rule, 0, spec.m, 0, spec.n); }

    void expect_exact_enough() const {
        double worst = 0, worst_plain = 0, largest = 0;
        for (int64_t i = 0; i < spec.m; ++i) {
            for (int64_t j = 0; j < spec.n; ++j) {
                const int64_t at = i * spec.ldc + j;
                float plain = form.accumulate ? c.before(at) : form.residual ? residual.before(at) : 0.0f;
                if (form.bias) plain += bias.before(j);
                double exact = plain;
                for (int64_t k = 0; k < spec.k; ++k) {
                    exact += double{at_a(i, k)} * at_b(k, j);
                    plain += at_a(i, k) * at_b(k, j);
                }
                if (spec.c == DType::BF16) plain = to_float(to_bf16(plain));
                worst = std::max(worst, std::abs(c.get(at) - exact));
                worst_plain = std::max(worst_plain, std::abs(plain - exact));
                largest = std::max(largest, std::abs(exact));
            }
        }
        EXPECT_LE(worst, 2 * worst_plain + 0x1p-23 * largest);
        for (int64_t i = 0; i < spec.m; ++i)
            for (int64_t j = spec.n; j < spec.ldc; ++j) EXPECT_EQ(c.get(i * spec.ldc + j), c.before(i * spec.ldc + j));
        const auto is_guard = [](std::byte byte) { return byte == std::byte{0x5a}; };
        const int64_t guard = 64 * size_of(spec.c);
        EXPECT_TRUE(std::all_of(c.bytes().begin(), c.bytes().begin() + guard, is_guard));
        EXPECT_TRUE(std::all_of(c.bytes().end() - guard, c.bytes().end(), is_guard));
    }
};

struct Types {
    ProductKind kind;
    DType ab, c;
};

std::vector<Types> types() {
    std::vector<Types> all = {{ProductKind::Fp32, DType::F32, DType::F32},
                              {ProductKind::Fp32, DType::BF16, DType::BF16},
                              {ProductKind::Fp32, DType::BF16, DType::F32}};
    if (cpu::can_form_products("amd-avx512")) {
        all.push_back({ProductKind::Bf16, DType::BF16, DType::BF16});
        all.push_back({ProductKind::Bf16, DType::BF16, DType::F32});
    }
    return all;
}

constexpr int64_t kDepths[] = {32, 512};
constexpr Form kForms[] = {{false, true, false, true, true},   {false, true, false, false, false},
                           {false, false, false, false, true}, {true, false, true, false, false},
                           {true, false, false, false, false}, {true, true, true, false, false}};
constexpr int64_t kShapes[][3] = {{1, 17, 1},   {1, 1, 70},   {14, 32, 64},  {29, 70, 33},
                                  {3, 16, 513}, {23, 5, 129}, {47, 97, 1031}};

TEST(Product, MatchesDoublePrecision) {
    for (const Types& t : types()) {
        for (const auto& [m, n, k] : kShapes) {
            for (const Form& form : kForms) {
                if (form.bias && t.ab != t.c) continue;
                for (const int64_t depth : kDepths) {
                    SCOPED_TRACE(fmt::format("kind {} of {} to {}: {} x {} x {}, depth {}, transposed {} {}",
                                             static_cast<int>(t.kind), name_of(t.ab), name_of(t.c), m, n, k, depth,
                                             form.transpose_a, form.transpose_b));
                    Problem problem(m, n, k, t.ab, t.c, form);
                    problem.run({t.kind, depth});
                    problem.expect_exact_enough();
                }
            }
        }
    }
}

TEST(Product, CuttingChangesNoBit) {
    for (const Types& t : types()) {
        for (const Form& form : kForms) {
            if (form.bias && t.ab != t.c) continue;
            SCOPED_TRACE(fmt::format("kind {} of {}, transposed {} {}", static_cast<int>(t.kind), name_of(t.ab),
                                     form.transpose_a, form.transpose_b));
            constexpr int64_t kRows = 61, kCols = 83, kRow = 17, kCol = 39;
            const ProductRule rule = {t.kind, 64};
            Problem whole(kRows, kCols, 200, t.ab, t.c, form), cut(kRows, kCols, 200, t.ab, t.c, form);
            whole.run(rule);
            cut.run(rule, 0, kRow, 0, kCol);
            cut.run(rule, 0, kRow, kCol, kCols - kCol);
            cut.run(rule, kRow, kRows - kRow, 0, kCol);
            cut.run(rule, kRow, kRows - kRow, kCol, kCols - kCol);
            EXPECT_EQ(whole.c.bytes(), cut.c.bytes());
        }
    }
}

/// A residual that is the output itself.
TEST(Product, AddsToItsOwnOutput) {
    for (const Types& t : types()) {
        Problem apart(31, 45, 700, t.ab, t.c, {false, true, false, false, true});
        Problem same = apart;
        std::memcpy(same.c.data(), same.residual.data(), static_cast<size_t>(31 * same.spec.ldc * size_of(t.c)));
        apart.run({t.kind, 96});
        std::vector<float> scratch(static_cast<size_t>(cpu::product_scratch_bytes(same.spec, {t.kind, 96}) / 4 + 32));
        void* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) / 4;
        run_product(same.spec, {t.kind, 96},
                    {.a = same.a.data(), .b = same.b.data(), .c = same.c.data(), .residual = same.c.data()}, aligned);
        for (int64_t i = 0; i < 31; ++i)
            for (int64_t j = 0; j < 45; ++j)
                EXPECT_EQ(apart.c.get(i * apart.spec.ldc + j), same.c.get(i * same.spec.ldc + j));
    }
}

// ---- the table ------------------------------------------------------------------------------------------------------

TEST(ProductRules, AreFoundByName) {
    EXPECT_EQ(cpu::product_rules("auto").name, cpu::rules_of_this_processor().name);
    for (const cpu::ProductRules& rules : cpu::product_table()) {
        if (cpu::can_form_products(rules.name)) {
            EXPECT_EQ(cpu::product_rules(rules.name).name, rules.name);
            EXPECT_EQ(cpu::CpuBackend(1, rules.name).products().name, rules.name);
        } else {
            EXPECT_THROW(cpu::product_rules(rules.name), Error);
        }
    }
    EXPECT_THROW(cpu::product_rules("mkl"), Error);
    EXPECT_FALSE(cpu::can_form_products("mkl"));
}

/// Whole products of the backend by every row of the table: double precision, and the same bits at any thread count.
TEST(ProductRules, EveryRowGivesTheSameBitsAtEveryThreadCount) {
    constexpr int64_t kN = 213, kOC = 130, kIC = 1090;
    for (const cpu::ProductRules& rules : cpu::product_table()) {
        if (!cpu::can_form_products(rules.name)) continue;
        for (const DType type : {DType::F32, DType::BF16}) {
            if (type == DType::BF16 && !cpu::CpuBackend(1).info().supports_bf16) continue;
            SCOPED_TRACE(fmt::format("{} {}", rules.name, name_of(type)));
            std::vector<std::byte> first;
            for (const int threads : {1, 2, 3, 5}) {
                cpu::CpuBackend backend(threads, rules.name);
                Numbers x(type, kN * kIC, 1), weight(type, kOC * kIC, 2), d_out(type, kN * kOC, 3);
                Numbers out(type, kN * kOC, 4), d_x(type, kN * kIC, 5), d_weight(DType::F32, kOC * kIC, 6);
                const int64_t bytes = backend.matmul_workspace(type, kN, kOC, kIC);
                const Tensor workspace(DType::U8, backend.allocate(bytes, "scratch"), bytes);
                const Tensor tx(type, x.data(), kN, kIC), tw(type, weight.data(), kOC, kIC);
                const Tensor td(type, d_out.data(), kN, kOC);
                backend.matmul_forward({type, out.data(), kN, kOC}, tx, tw, {}, {}, workspace);
                backend.matmul_backward_input({type, d_x.data(), kN, kIC}, td, tw, workspace);
                backend.matmul_backward_weight({DType::F32, d_weight.data(), kOC, kIC}, {}, true, td, tx, workspace);
                std::vector<std::byte> all = out.bytes();
                for (const Numbers* more : {&d_x, &d_weight})
                    all.insert(all.end(), more->bytes().begin(), more->bytes().end());
                if (threads == 1) first = all;
                EXPECT_EQ(all, first) << threads;
            }
        }
    }
}

}  // namespace
}  // namespace llmc
