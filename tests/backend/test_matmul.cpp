// The three matrix products of the CPU backend against loops in double precision: on shapes that are multiples of
// nothing, with and without bias and residual, inside guarded memory, and bitwise at several thread counts. The bound
// on the error is twice that of a plain loop at the same precision.
#include "llmc/backend/cpu/cpu_backend.h"

#include "llmc/base/rng.h"
#include "llmc/base/units.h"
#include "tests/sanitizers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace llmc {
namespace {

using Values = std::vector<float>;

/// A tensor with memory of its own and guard bytes on both sides, which must stay as they are.
class Guarded {
  public:
    Guarded(DType dtype, int64_t rows, int64_t cols, const Values& values)
        : bytes_(rows * cols * size_of(dtype)),
          memory_(static_cast<std::byte*>(::operator new(static_cast<size_t>(bytes_ + 2 * kGuard), kAlign))) {
        std::memset(memory_.get(), kPattern, static_cast<size_t>(bytes_ + 2 * kGuard));
        tensor = Tensor(dtype, memory_.get() + kGuard, rows, cols);
        for (int64_t i = 0; i < rows * cols; ++i) set(i, values[static_cast<size_t>(i)]);
    }

    float get(int64_t i) const {
        return tensor.dtype == DType::F32 ? tensor.as<float>()[i] : to_float(tensor.as<bf16>()[i]);
    }
    void set(int64_t i, float value) {
        if (tensor.dtype == DType::F32)
            tensor.as<float>()[i] = value;
        else
            tensor.as<bf16>()[i] = to_bf16(value);
    }
    bool same_bits(const Guarded& other) const {
        return bytes_ == other.bytes_ && std::memcmp(tensor.data, other.tensor.data, static_cast<size_t>(bytes_)) == 0;
    }
    int64_t count() const { return bytes_ / size_of(tensor.dtype); }
    bool guards_intact() const {
        const auto intact = [](std::byte b) { return b == std::byte{kPattern}; };
        const std::byte* const end = memory_.get() + kGuard + bytes_;
        return std::all_of(memory_.get(), memory_.get() + kGuard, intact) && std::all_of(end, end + kGuard, intact);
    }

    Tensor tensor;

  private:
    static constexpr int64_t kGuard = 1024;
    static constexpr int kPattern = 0x5a;
    static constexpr std::align_val_t kAlign{kTensorAlignment};
    struct Free {
        void operator()(std::byte* memory) const { ::operator delete(memory, kAlign); }
    };

    int64_t bytes_;
    std::unique_ptr<std::byte, Free> memory_;
};

/// Every bit but the sign of zero; a NaN equals nothing.
bool same_values(const Guarded& a, const Guarded& b) {
    for (int64_t i = 0; i < a.count(); ++i) {
        if (a.get(i) != b.get(i)) return false;
    }
    return a.count() == b.count();
}

/// Normal values that `dtype` can hold exactly.
Values random_values(DType dtype, int64_t count, uint32_t item) {
    Values values(static_cast<size_t>(count));
    fill_normal(values.data(), count, 1.0f, 1234, RngStream::Test, item);
    if (dtype == DType::BF16)
        for (float& value : values) value = to_float(to_bf16(value));
    return values;
}

struct Case {
    int64_t N, OC, IC;
    DType dtype;
};

std::string case_name(const testing::TestParamInfo<Case>& info) {
    const Case& c = info.param;
    return std::to_string(c.N) + "x" + std::to_string(c.OC) + "x" + std::to_string(c.IC) +
           std::string(name_of(c.dtype));
}

/// One random problem.
class MatmulTest : public testing::TestWithParam<Case> {
  protected:
    void SetUp() override {
        if (c.dtype == DType::BF16 && !cpu::CpuBackend(1).info().supports_bf16) GTEST_SKIP() << "no bf16 on this CPU";
    }

    /// Notes the errors at actual[i] = start + sum of `terms` products a(t) * b(t), for expect_error_bounded(). The
    /// plain loop adds them in fp32, in order; both results are rounded to the output's type.
    template <typename Start, typename A, typename B>
    void compare(const Guarded& actual, int64_t i, int64_t terms, const Start& start, const A& a, const B& b) {
        double exact = start;
        float plain = start;
        for (int64_t t = 0; t < terms; ++t) {
            exact += static_cast<double>(a(t)) * b(t);
            plain += a(t) * b(t);
        }
        if (actual.tensor.dtype == DType::BF16) plain = to_float(to_bf16(plain));
        worst_plain_ = std::max(worst_plain_, std::abs(plain - exact));
        worst_actual_ = std::max(worst_actual_, std::abs(actual.get(i) - exact));
        largest_ = std::max(largest_, std::abs(exact));
    }

    /// Our largest error over all elements is at most twice the plain loop's, plus a last bit of fp32 (a plain loop
    /// over few terms may happen to be exact).
    void expect_error_bounded() {
        EXPECT_LE(worst_actual_, 2 * worst_plain_ + 0x1p-23 * largest_);
        worst_plain_ = worst_actual_ = largest_ = 0;
    }

    Guarded make(DType dtype, int64_t rows, int64_t cols, uint32_t item) {
        return {dtype, rows, cols, random_values(dtype, rows * cols, item)};
    }
    /// A gradient that starts so.
    Guarded filled(int64_t rows, int64_t cols, float value) {
        return {DType::F32, rows, cols, Values(static_cast<size_t>(rows * cols), value)};
    }
    Guarded workspace_for(const Backend& backend) {
        const int64_t bytes = backend.matmul_workspace(c.dtype, N, OC, IC);
        return {DType::F32, ceil_div(bytes, 4), 1, Values(static_cast<size_t>(ceil_div(bytes, 4)), NAN)};
    }

    /// Runs forward with the given backend; residual is none, separate or `out` itself.
    enum class Residual { None, Separate, Aliased };
    Guarded forward(Backend& backend, bool with_bias, Residual kind) {
        Guarded out = make(c.dtype, N, OC, kind == Residual::Aliased ? 3 : 9);
        const Guarded workspace = workspace_for(backend);
        const Tensor add = kind == Residual::None ? Tensor() : kind == Residual::Aliased ? out.tensor : residual.tensor;
        backend.matmul_forward(out.tensor, x.tensor, weight.tensor, with_bias ? bias.tensor : Tensor(), add,
                               workspace.tensor);
        EXPECT_TRUE(out.guards_intact() && workspace.guards_intact());
        return out;
    }

    const Case c = GetParam();
    const int64_t N = c.N, OC = c.OC, IC = c.IC;
    Guarded x = make(c.dtype, N, IC, 0), weight = make(c.dtype, OC, IC, 1), bias = make(c.dtype, OC, 1, 2);
    Guarded residual = make(c.dtype, N, OC, 3), d_out = make(c.dtype, N, OC, 4);

  private:
    double worst_plain_ = 0, worst_actual_ = 0, largest_ = 0;
};

TEST_P(MatmulTest, ForwardMatchesDoublePrecision) {
    cpu::CpuBackend backend(2);
    for (const bool with_bias : {false, true}) {
        for (const auto kind : {Residual::None, Residual::Separate, Residual::Aliased}) {
            const Guarded out = forward(backend, with_bias, kind);
            for (int64_t n = 0; n < N; ++n) {
                for (int64_t o = 0; o < OC; ++o) {
                    const float added = kind == Residual::None ? 0.0f : residual.get(n * OC + o);
                    // The bias is one more product, so that the plain loop rounds after adding it.
                    const int64_t terms = IC + with_bias;
                    compare(
                        out, n * OC + o, terms, added,
                        [&](int64_t t) { return t < IC ? x.get(n * IC + t) : bias.get(o); },
                        [&](int64_t t) { return t < IC ? weight.get(o * IC + t) : 1.0f; });
                }
            }
            expect_error_bounded();
        }
    }
}

TEST_P(MatmulTest, BackwardInputMatchesDoublePrecision) {
    cpu::CpuBackend backend(2);
    Guarded d_x = make(c.dtype, N, IC, 9);
    const Guarded workspace = workspace_for(backend);
    backend.matmul_backward_input(d_x.tensor, d_out.tensor, weight.tensor, workspace.tensor);
    EXPECT_TRUE(d_x.guards_intact() && workspace.guards_intact());
    for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < IC; ++i)
            compare(
                d_x, n * IC + i, OC, 0.0f, [&](int64_t t) { return d_out.get(n * OC + t); },
                [&](int64_t t) { return weight.get(t * IC + i); });
    expect_error_bounded();
}

TEST_P(MatmulTest, BackwardWeightAddsToGradients) {
    cpu::CpuBackend backend(2);
    const Guarded start_weight = make(DType::F32, OC, IC, 7), start_bias = make(DType::F32, OC, 1, 8);
    Guarded d_weight = make(DType::F32, OC, IC, 7), d_bias = make(DType::F32, OC, 1, 8);
    const Guarded workspace = workspace_for(backend);
    backend.matmul_backward_weight(d_weight.tensor, d_bias.tensor, true, d_out.tensor, x.tensor, workspace.tensor);
    EXPECT_TRUE(d_weight.guards_intact() && d_bias.guards_intact() && workspace.guards_intact());
    for (int64_t o = 0; o < OC; ++o)
        for (int64_t i = 0; i < IC; ++i)
            compare(
                d_weight, o * IC + i, N, start_weight.get(o * IC + i), [&](int64_t t) { return d_out.get(t * OC + o); },
                [&](int64_t t) { return x.get(t * IC + i); });
    expect_error_bounded();
    for (int64_t o = 0; o < OC; ++o)
        compare(
            d_bias, o, N, start_bias.get(o), [&](int64_t t) { return d_out.get(t * OC + o); },
            [](int64_t) { return 1.0f; });
    expect_error_bounded();

    Guarded without_bias = make(DType::F32, OC, IC, 7);
    backend.matmul_backward_weight(without_bias.tensor, Tensor(), true, d_out.tensor, x.tensor, workspace.tensor);
    EXPECT_TRUE(without_bias.same_bits(d_weight));
}

TEST_P(MatmulTest, AddingAfterWritingIsTheSumOfBoth) {
    cpu::CpuBackend backend(2);
    const Guarded d_out2 = make(c.dtype, N, OC, 14), x2 = make(c.dtype, N, IC, 10);
    Guarded d_weight = filled(OC, IC, NAN), d_bias = filled(OC, 1, NAN);
    Guarded from_zero = filled(OC, IC, 0), bias_from_zero = filled(OC, 1, 0);
    const Guarded workspace = workspace_for(backend);
    const auto run = [&](Guarded& to, Guarded& to_bias, bool adds, const Guarded& of, const Guarded& from) {
        backend.matmul_backward_weight(to.tensor, to_bias.tensor, adds, of.tensor, from.tensor, workspace.tensor);
    };
    run(d_weight, d_bias, false, d_out, x);
    run(d_weight, d_bias, true, d_out2, x2);
    run(from_zero, bias_from_zero, true, d_out, x);
    run(from_zero, bias_from_zero, true, d_out2, x2);
    EXPECT_TRUE(same_values(d_weight, from_zero) && same_values(d_bias, bias_from_zero));
    const auto of_both = [this](const Guarded& first, const Guarded& second, int64_t t, int64_t columns, int64_t i) {
        return t < N ? first.get(t * columns + i) : second.get((t - N) * columns + i);
    };
    for (int64_t o = 0; o < OC; ++o)
        for (int64_t i = 0; i < IC; ++i)
            compare(
                d_weight, o * IC + i, 2 * N, 0.0f, [&](int64_t t) { return of_both(d_out, d_out2, t, OC, o); },
                [&](int64_t t) { return of_both(x, x2, t, IC, i); });
    expect_error_bounded();
    for (int64_t o = 0; o < OC; ++o)
        compare(
            d_bias, o, 2 * N, 0.0f, [&](int64_t t) { return of_both(d_out, d_out2, t, OC, o); },
            [](int64_t) { return 1.0f; });
    expect_error_bounded();
}

TEST_P(MatmulTest, SameBitsAtEveryThreadCount) {
    cpu::CpuBackend one(1);
    const Guarded out = forward(one, true, Residual::Separate);
    Guarded d_x = make(c.dtype, N, IC, 9), d_weight = make(DType::F32, OC, IC, 7), d_bias = make(DType::F32, OC, 1, 8);
    const auto run_backward = [&](Backend& backend, Guarded& to_x, Guarded& to_weight, Guarded& to_bias) {
        const Guarded workspace = workspace_for(backend);
        backend.matmul_backward_input(to_x.tensor, d_out.tensor, weight.tensor, workspace.tensor);
        backend.matmul_backward_weight(to_weight.tensor, to_bias.tensor, true, d_out.tensor, x.tensor,
                                       workspace.tensor);
        EXPECT_TRUE(workspace.guards_intact());
    };
    run_backward(one, d_x, d_weight, d_bias);
    for (const int threads : {1, 2, 3}) {
        cpu::CpuBackend backend(threads);
        EXPECT_TRUE(out.same_bits(forward(backend, true, Residual::Separate))) << threads;
        EXPECT_TRUE(out.same_bits(forward(backend, true, Residual::Aliased))) << threads;
        Guarded x2 = make(c.dtype, N, IC, 5), w2 = make(DType::F32, OC, IC, 7), b2 = make(DType::F32, OC, 1, 8);
        run_backward(backend, x2, w2, b2);
        EXPECT_TRUE(d_x.same_bits(x2) && d_weight.same_bits(w2) && d_bias.same_bits(b2)) << threads;
    }
}

std::vector<Case> cases() {
    std::vector<Case> all;
    for (const DType dtype : {DType::F32, DType::BF16})
        for (const auto& [N, OC, IC] : {std::array<int64_t, 3>{1, 1, 1},
                                        {5, 7, 3},
                                        {37, 50, 29},
                                        {130, 257, 65},
                                        {1, 96, 200},
                                        {64, 64, 64},
                                        {300, 33, 1100},
                                        {29, 1100, 37},
                                        {1100, 31, 500}})
            all.push_back({N, OC, IC, dtype});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, MatmulTest, testing::ValuesIn(cases()), case_name);

// ---- writing gradients of weights -------------------------------------------------------------------------------

class MatmulWriteTest : public MatmulTest {};

TEST_P(MatmulWriteTest, WritingIsAddingToZeros) {
    for (const int threads : {1, 2, 3}) {
        SCOPED_TRACE(threads);
        cpu::CpuBackend backend(threads);
        const Guarded workspace = workspace_for(backend);
        Guarded added = filled(OC, IC, 0), added_bias = filled(OC, 1, 0);
        Guarded written = filled(OC, IC, NAN), written_bias = filled(OC, 1, NAN), alone = filled(OC, IC, NAN);
        const auto run = [&](Guarded& to, Tensor to_bias, bool adds) {
            backend.matmul_backward_weight(to.tensor, to_bias, adds, d_out.tensor, x.tensor, workspace.tensor);
        };
        run(added, added_bias.tensor, true);
        run(written, written_bias.tensor, false);
        run(alone, Tensor(), false);
        EXPECT_TRUE(same_values(written, added));
        EXPECT_TRUE(same_values(written_bias, added_bias));
        EXPECT_TRUE(alone.same_bits(written));
        EXPECT_TRUE(written.guards_intact() && written_bias.guards_intact() && alone.guards_intact());
        EXPECT_TRUE(workspace.guards_intact());
    }
}

/// Blocks of all extents (llmc/backend/cpu/matmul.cpp), whole and cut at the edges, over short and long sums.
std::vector<Case> write_cases() {
    std::vector<Case> all = cases();
    for (const DType dtype : {DType::F32, DType::BF16})
        for (const auto& [N, OC, IC] : {std::array<int64_t, 3>{70, 1024, 768},
                                        {70, 1001, 1500},
                                        {100, 512, 768},
                                        {2000, 512, 700},
                                        {100, 256, 768},
                                        {100, 250, 391},
                                        {3000, 128, 384},
                                        {256, 768, 768},
                                        {333, 2000, 100},
                                        {64, 5003, 96}})
            all.push_back({N, OC, IC, dtype});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Shapes, MatmulWriteTest, testing::ValuesIn(write_cases()), case_name);

TEST(MatmulWorkspace, GrowsWithThreadsOnly) {
    const cpu::CpuBackend one(1), three(3);
    const int64_t bytes = one.matmul_workspace(DType::F32, 130, 257, 65);
    EXPECT_EQ(one.matmul_workspace(DType::F32, 130, 257, 65), bytes);
    EXPECT_EQ(three.matmul_workspace(DType::F32, 130, 257, 65), threads_there_are(3) * bytes);
}

TEST(MatmulDeathTest, RefusesTooSmallAWorkspace) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    cpu::CpuBackend backend(2);
    Values memory(64, 1.0f);
    const Tensor t(DType::F32, memory.data(), 4, 4), small(DType::F32, memory.data() + 32, 8);
    EXPECT_DEATH(backend.matmul_forward(Tensor(DType::F32, memory.data() + 16, 4, 4), t, t, Tensor(), Tensor(), small),
                 "check failed");
}

}  // namespace
}  // namespace llmc
