// Hopper's own products against plain sums, and what they take along against the kernels that do it alone.
#include "llmc/backend/cuda/gemm_hopper.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

using cuda::Applied;
using cuda::HopperKind;

struct Shape {
    int64_t N, OC, IC;
};
/// Of tiles of 128 x 256 (of SwiGLU 128 twice) and 64 of what is summed, with a ring of four: one row, less than a
/// tile, whole ones, a remainder in each dimension, and many.
constexpr Shape kShapes[] = {{1, 16, 8},     {128, 256, 64}, {129, 264, 72}, {200, 144, 328},
                             {37, 528, 136}, {300, 784, 80}, {2100, 272, 8}, {64, 48, 24}};

__nv_bfloat16* elements(const Tensor& tensor) { return reinterpret_cast<__nv_bfloat16*>(tensor.data); }

/// Whole numbers of -3 to 3, of which all sums are exact in fp32.
TestBuffer whole_numbers(int64_t rows, int64_t columns, uint32_t item) {
    Values values;
    for (const int32_t value : random_integers(rows * columns, 7, item)) values.push_back(value - 3);
    return TestBuffer(DType::BF16, rows, columns, values);
}

struct Operands {
    explicit Operands(const Shape& s, bool whole)
        : shape(s),
          x(numbers(whole, s.N, s.IC, 1)),
          weight(numbers(whole, s.OC, s.IC, 2)),
          bias(numbers(whole, 1, s.OC, 3)),
          residual(numbers(whole, s.N, s.OC, 4)) {}
    static TestBuffer numbers(bool whole, int64_t rows, int64_t columns, uint32_t item) {
        return whole ? whole_numbers(rows, columns, item) : random_buffer(DType::BF16, rows, columns, 0.5, item);
    }
    Shape shape;
    TestBuffer x, weight, bias, residual;
};

struct Wanted {
    bool bias = false, residual = false, in_place = false;
    Applied applied = Applied::Nothing;
    int multiprocessors = 8;
};

struct Results {
    TestBuffer out, activated;
};

Results multiply(const Operands& operands, const Wanted& wanted) {
    const auto [N, OC, IC] = operands.shape;
    Results results = {TestBuffer(DType::BF16, N, OC),
                       TestBuffer(DType::BF16, N, wanted.applied == Applied::Swiglu ? OC / 2 : OC)};
    if (wanted.in_place) results.out.set(operands.residual.values());
    run_on_cuda([&](Backend& b, auto on) {
        const TestBuffer& residual = wanted.in_place ? results.out : operands.residual;
        const cuda::HopperProduct product = {
            .out = on(results.out).data,
            .activated = wanted.applied == Applied::Nothing ? nullptr : elements(on(results.activated)),
            .left = elements(on(operands.x)),
            .right = elements(on(operands.weight)),
            .bias = wanted.bias ? elements(on(operands.bias)) : nullptr,
            .residual = wanted.residual ? on(residual).data : nullptr,
            .pre = nullptr,
            .rows = static_cast<int>(N),
            .columns = static_cast<int>(OC),
            .depth = static_cast<int>(IC)};
        b.synchronize();
        cuda::gemm_hopper(product, HopperKind::Forward, wanted.applied, wanted.multiprocessors,
                          static_cast<cudaStream_t>(b.stream()));
    });
    EXPECT_TRUE(results.out.intact() && results.activated.intact());
    return results;
}

/// Rounded to bf16 as it is stored.
TestBuffer exact_product(const Operands& operands, bool bias, bool residual) {
    const auto [N, OC, IC] = operands.shape;
    const Values x = operands.x.values(), weight = operands.weight.values(), of_bias = operands.bias.values(),
                 of_residual = operands.residual.values();
    Values out;
    for (int64_t n = 0; n < N; ++n)
        for (int64_t c = 0; c < OC; ++c) {
            double sum = (bias ? of_bias[c] : 0) + (residual ? of_residual[n * OC + c] : 0);
            for (int64_t k = 0; k < IC; ++k) sum += x[n * IC + k] * weight[c * IC + k];
            out.push_back(sum);
        }
    return TestBuffer(DType::BF16, N, OC, out);
}

class CudaHopperGemm : public testing::TestWithParam<Shape> {
  protected:
    void SetUp() override {
        if (const std::string why = cuda_backend().why_no_hopper(); !why.empty()) GTEST_SKIP() << why;
    }
};

TEST_P(CudaHopperGemm, IsTheProductRoundedOnce) {
    const Operands operands(GetParam(), /*whole=*/true);
    for (const Wanted& wanted : {Wanted{}, Wanted{.bias = true}, Wanted{.bias = true, .residual = true},
                                 Wanted{.residual = true, .in_place = true}}) {
        const TestBuffer expected = exact_product(operands, wanted.bias, wanted.residual);
        EXPECT_TRUE(same_values(multiply(operands, wanted).out, expected)) << wanted.bias << wanted.residual;
    }
}

TEST_P(CudaHopperGemm, HasTheSameBitsOnAnyNumberOfBlocksAtEverySchedule) {
    const Operands operands(GetParam(), /*whole=*/false);
    Wanted wanted = {.bias = true};
    const std::vector<std::byte> expected = multiply(operands, wanted).out.bytes();
    const TestBuffer exact = exact_product(operands, true, false);
    EXPECT_LE(largest_error(multiply(operands, wanted).out.values(), exact.values()),
              0x1p-8 * largest_magnitude(exact.values()));
    cuda::for_each_seed([&] {
        for (const int multiprocessors : {2, 3}) {
            wanted.multiprocessors = multiprocessors;
            EXPECT_TRUE(multiply(operands, wanted).out.bytes() == expected) << multiprocessors;
        }
    });
}

TEST_P(CudaHopperGemm, AppliesActivationsAsTheirOwnKernelsDo) {
    const Operands operands(GetParam(), /*whole=*/false);
    const std::vector<std::byte> expected = multiply(operands, {.bias = true}).out.bytes();
    for (const Applied applied : {Applied::Gelu, Applied::Swiglu}) {
        const bool is_gelu = applied == Applied::Gelu;
        if (!is_gelu && GetParam().OC % 16 != 0) continue;
        const Results fused = multiply(operands, {.bias = true, .applied = applied});
        EXPECT_TRUE(fused.out.bytes() == expected) << "the product's own bits";
        const TestBuffer apart(DType::BF16, fused.activated.tensor().shape[0], fused.activated.tensor().shape[1]);
        run_on_cuda([&](Backend& b, auto on) {
            if (is_gelu) return b.gelu_forward(on(apart), on(fused.out));
            b.swiglu_forward(on(apart), on(fused.out));
        });
        EXPECT_TRUE(fused.activated.bytes() == apart.bytes()) << (is_gelu ? "GELU" : "SwiGLU");
    }
}

// ---- gradients of inputs ------------------------------------------------------------------------------------------

/// d_out lies where the residual does.
struct InputGradient {
    explicit InputGradient(const Shape& s)
        : d_x(DType::BF16, s.N, s.IC),
          pre(random_buffer(DType::BF16, s.N, 2 * s.IC, 2, 5)),
          d_gelu(DType::BF16, s.N, s.IC),
          d_gate_up(DType::BF16, s.N, 2 * s.IC) {}
    /// What is made of the product, d_x where that is nothing.
    const TestBuffer& result(Applied applied) const {
        return applied == Applied::Nothing ? d_x : applied == Applied::GeluGradient ? d_gelu : d_gate_up;
    }
    TestBuffer d_x, pre, d_gelu, d_gate_up;
};

void multiply(const Operands& operands, const InputGradient& to, Applied applied, int multiprocessors = 8) {
    const auto [N, OC, IC] = operands.shape;
    run_on_cuda([&](Backend& b, auto on) {
        const bool is_product = applied == Applied::Nothing;
        const cuda::HopperProduct product = {.out = is_product ? on(to.d_x).data : nullptr,
                                             .activated = is_product ? nullptr : elements(on(to.result(applied))),
                                             .left = elements(on(operands.residual)),
                                             .right = elements(on(operands.weight)),
                                             .bias = nullptr,
                                             .residual = nullptr,
                                             .pre = is_product ? nullptr : elements(on(to.pre)),
                                             .rows = static_cast<int>(N),
                                             .columns = static_cast<int>(IC),
                                             .depth = static_cast<int>(OC)};
        b.synchronize();
        cuda::gemm_hopper(product, HopperKind::InputGradient, applied, multiprocessors,
                          static_cast<cudaStream_t>(b.stream()));
    });
    EXPECT_TRUE(to.result(applied).intact());
}

/// left (rows, depth) * right (depth, columns), of any strides, rounded to the type.
TestBuffer exact_sums(DType dtype, int64_t rows, int64_t columns, int64_t depth,
                      const std::function<double(int64_t, int64_t)>& left,
                      const std::function<double(int64_t, int64_t)>& right) {
    Values out;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < columns; ++column) {
            double sum = 0;
            for (int64_t k = 0; k < depth; ++k) sum += left(row, k) * right(k, column);
            out.push_back(sum);
        }
    return TestBuffer(dtype, rows, columns, out);
}

TestBuffer exact_input_gradient(const Operands& operands) {
    const auto [N, OC, IC] = operands.shape;
    const Values d_out = operands.residual.values(), weight = operands.weight.values();
    return exact_sums(
        DType::BF16, N, IC, OC, [&, columns = OC](int64_t n, int64_t c) { return d_out[n * columns + c]; },
        [&, columns = IC](int64_t c, int64_t i) { return weight[c * columns + i]; });
}

TEST_P(CudaHopperGemm, FormsInputGradients) {
    const Operands operands(GetParam(), /*whole=*/true);
    const InputGradient gradient(GetParam());
    multiply(operands, gradient, Applied::Nothing);
    EXPECT_TRUE(same_values(gradient.d_x, exact_input_gradient(operands)));
}

TEST_P(CudaHopperGemm, TakesActivationsGradientsAlongAsTheirOwnKernelsDo) {
    const Operands operands(GetParam(), /*whole=*/false);
    const auto [N, OC, IC] = operands.shape;
    const InputGradient alone(GetParam());
    multiply(operands, alone, Applied::Nothing);
    const TestBuffer exact = exact_input_gradient(operands);
    EXPECT_LE(largest_error(alone.d_x.values(), exact.values()), 0x1p-8 * largest_magnitude(exact.values()));
    Values of_gelu = alone.pre.values();
    of_gelu.resize(static_cast<size_t>(N * IC));
    const TestBuffer pre(DType::BF16, N, IC, of_gelu);
    run_on_cuda([&](Backend& b, auto on) {
        b.gelu_backward(on(alone.d_gelu), on(alone.d_x), on(pre));
        b.swiglu_backward(on(alone.d_gate_up), on(alone.d_x), on(alone.pre));
    });
    cuda::for_each_seed([&] {
        for (const int multiprocessors : {2, 3}) {
            const InputGradient fused(GetParam());
            for (const Applied applied : {Applied::Nothing, Applied::GeluGradient, Applied::SwigluGradient}) {
                multiply(operands, fused, applied, multiprocessors);
                EXPECT_TRUE(fused.result(applied).bytes() == alone.result(applied).bytes())
                    << static_cast<int>(applied) << " on " << multiprocessors;
            }
        }
    });
}

// ---- gradients of weights -----------------------------------------------------------------------------------------

/// d_weight (OC, IC) = d_out^T * x, which lie where the residual and x do; added to what it is, or written.
void multiply(const Operands& operands, const TestBuffer& d_weight, bool adds, int multiprocessors = 8) {
    const auto [N, OC, IC] = operands.shape;
    const GemmShape shape = {
        .m = IC, .n = OC, .k = N, .transpose_b = true, .input = DType::BF16, .output = DType::F32, .adds_c = true};
    ASSERT_TRUE(cuda::hopper_gemm_takes(shape) && cuda::hopper_kind(shape) == HopperKind::WeightGradient);
    const TestBuffer workspace = workspace_buffer(cuda::hopper_gemm_workspace(shape));
    run_on_cuda([&](Backend& b, auto on) {
        const Tensor to = on(d_weight);
        const cuda::HopperProduct product = {.out = to.data,
                                             .activated = nullptr,
                                             .left = elements(on(operands.residual)),
                                             .right = elements(on(operands.x)),
                                             .bias = nullptr,
                                             .residual = adds ? to.data : nullptr,
                                             .pre = nullptr,
                                             .rows = static_cast<int>(OC),
                                             .columns = static_cast<int>(IC),
                                             .depth = static_cast<int>(N),
                                             .workspace = static_cast<float*>(on(workspace).data)};
        b.synchronize();
        cuda::gemm_hopper(product, HopperKind::WeightGradient, Applied::Nothing, multiprocessors,
                          static_cast<cudaStream_t>(b.stream()));
    });
    EXPECT_TRUE(d_weight.intact() && workspace.intact());
}

TestBuffer exact_weight_gradient(const Operands& operands) {
    const auto [N, OC, IC] = operands.shape;
    const Values d_out = operands.residual.values(), x = operands.x.values();
    return exact_sums(
        DType::F32, OC, IC, N, [&, columns = OC](int64_t c, int64_t n) { return d_out[n * columns + c]; },
        [&, columns = IC](int64_t n, int64_t i) { return x[n * columns + i]; });
}

TEST_P(CudaHopperGemm, FormsWeightGradients) {
    const Operands operands(GetParam(), /*whole=*/true);
    const auto [N, OC, IC] = operands.shape;
    const TestBuffer written(DType::F32, OC, IC, Values(static_cast<size_t>(OC * IC), std::nan("")));
    multiply(operands, written, /*adds=*/false);
    EXPECT_TRUE(same_values(written, exact_weight_gradient(operands)));
    multiply(operands, written, /*adds=*/true);
    Values twice = exact_weight_gradient(operands).values();
    for (double& value : twice) value *= 2;
    EXPECT_TRUE(same_values(written, TestBuffer(DType::F32, OC, IC, twice)));
}

TEST_P(CudaHopperGemm, FormsWeightGradientsWithTheSameBitsOnAnyNumberOfBlocksAtEverySchedule) {
    const Operands operands(GetParam(), /*whole=*/false);
    const auto [N, OC, IC] = operands.shape;
    const TestBuffer expected(DType::F32, OC, IC);
    multiply(operands, expected, /*adds=*/false);
    const Values exact = exact_weight_gradient(operands).values();
    EXPECT_LE(largest_error(expected.values(), exact), 0x1p-22 * static_cast<double>(N));
    cuda::for_each_seed([&] {
        for (const int multiprocessors : {2, 3}) {
            const TestBuffer again(DType::F32, OC, IC);
            multiply(operands, again, /*adds=*/false, multiprocessors);
            EXPECT_TRUE(again.bytes() == expected.bytes()) << multiprocessors;
        }
    });
}

/// Of few tiles over many tokens the sums are divided, of the sizes alone, and fit into what the library is given.
TEST(CudaHopperGemmParts, AreOfFewTilesOverManyTokens) {
    const auto bytes = [](int64_t N, int64_t OC, int64_t IC) {
        const GemmShape shape = {.m = IC, .n = OC, .k = N, .transpose_b = true};
        const int64_t workspace = cuda::hopper_gemm_workspace(shape);
        EXPECT_LE(workspace, cuda_backend().matmul_workspace(DType::BF16, N, OC, IC)) << N << ' ' << OC << ' ' << IC;
        return workspace / (OC * IC * int64_t{sizeof(float)});
    };
    EXPECT_EQ(bytes(32768, 2304, 768), 2) << "54 tiles";
    EXPECT_EQ(bytes(32768, 768, 768), 7) << "18 tiles";
    EXPECT_EQ(bytes(32768, 3072, 768), 3) << "72 tiles";
    EXPECT_EQ(bytes(32768, 50304, 768), 0) << "more than a card has multiprocessors";
    EXPECT_EQ(bytes(1024, 768, 768), 0) << "adding would take longer";
    EXPECT_EQ(bytes(2100, 272, 8), 8) << "which the tests above divide";
    for (const int64_t N : {1, 63, 64, 2048, 1 << 20})
        for (const int64_t columns : {8, 1024, 4096})
            bytes(N, columns, 8), bytes(N, 8, columns), bytes(N, columns, 520);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaHopperGemm, testing::ValuesIn(kShapes), [](const auto& info) {
    return fmt::format("N{}OC{}IC{}", info.param.N, info.param.OC, info.param.IC);
});

}  // namespace
}  // namespace llmc
