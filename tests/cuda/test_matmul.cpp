// Matrix products on the CUDA backend against the CPU backend: all three directions, bias, residual, accumulation.
#include "tests/cuda/cuda_testing.h"
#include "tests/cuda_on_cpu/seeds.h"

namespace llmc {
namespace {

struct Shape {
    int64_t N, OC, IC;
};
constexpr Shape kShapes[] = {{1, 8, 16}, {37, 48, 100}, {64, 128, 64}, {5, 97, 33}};

/// Runs `call` on both backends with operands of `dtype`, and on the CPU with fp32 ones; compares `out`.
void compare(DType dtype, const Shape& shape, std::initializer_list<const TestBuffer*> inputs, const TestBuffer& out,
             const std::function<void(Backend&, const std::vector<Tensor>&, Tensor out, Tensor workspace)>& call) {
    const auto run = [&](DType type, Backend& backend, bool on_device) {
        std::vector<TestBuffer> operands;
        for (const TestBuffer* input : inputs) operands.push_back(converted(type, *input));
        TestBuffer result = converted(out.dtype() == DType::F32 ? DType::F32 : type, out);
        TestBuffer workspace = workspace_buffer(backend.matmul_workspace(type, shape.N, shape.OC, shape.IC));
        std::vector<Tensor> tensors;
        OnDevice device;
        for (const TestBuffer& operand : operands) tensors.push_back(on_device ? device(operand) : operand.tensor());
        call(backend, tensors, on_device ? device(result) : result.tensor(),
             on_device ? device(workspace) : workspace.tensor());
        if (on_device) device.fetch();
        return result;
    };
    const TestBuffer exact = run(DType::F32, cpu_backend(), false);
    const TestBuffer cpu = run(dtype, cpu_backend(), false);
    const double roundings = 8 * std::sqrt(static_cast<double>(std::max(shape.N, shape.IC + shape.OC)));
    cuda::for_each_seed([&] { expect_as_good_as_cpu(run(dtype, cuda_backend(), true), cpu, exact, roundings); });
}

void for_each_shape(const std::function<void(DType, const Shape&)>& test) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& shape : kShapes) {
            SCOPED_TRACE(fmt::format("{} N={} OC={} IC={}", name_of(dtype), shape.N, shape.OC, shape.IC));
            test(dtype, shape);
        }
}

TEST(CudaMatmul, Forward) {
    for_each_shape([](DType dtype, const Shape& s) {
        const TestBuffer x = random_buffer(dtype, s.N, s.IC, 1, 1), weight = random_buffer(dtype, s.OC, s.IC, 1, 2);
        const TestBuffer bias = random_buffer(dtype, s.OC, 1, 1, 3), residual = random_buffer(dtype, s.N, s.OC, 3, 4);
        const TestBuffer out = random_buffer(dtype, s.N, s.OC, 1, 5);
        compare(dtype, s, {&x, &weight}, out,
                [](Backend& b, const auto& t, Tensor o, Tensor w) { b.matmul_forward(o, t[0], t[1], {}, {}, w); });
        compare(dtype, s, {&x, &weight, &bias}, out,
                [](Backend& b, const auto& t, Tensor o, Tensor w) { b.matmul_forward(o, t[0], t[1], t[2], {}, w); });
        compare(dtype, s, {&x, &weight, &bias, &residual}, out,
                [](Backend& b, const auto& t, Tensor o, Tensor w) { b.matmul_forward(o, t[0], t[1], t[2], t[3], w); });
        compare(dtype, s, {&x, &weight}, out, [](Backend& b, const auto& t, Tensor o, Tensor w) {
            b.matmul_forward(o, t[0], t[1], {}, o, w);  // The residual is the output.
        });
    });
}

TEST(CudaMatmul, Backward) {
    for_each_shape([](DType dtype, const Shape& s) {
        const TestBuffer d_out = random_buffer(dtype, s.N, s.OC, 1, 1), x = random_buffer(dtype, s.N, s.IC, 1, 2);
        const TestBuffer weight = random_buffer(dtype, s.OC, s.IC, 1, 3);
        const TestBuffer d_x = random_buffer(dtype, s.N, s.IC, 1, 4);
        const TestBuffer d_weight = random_buffer(DType::F32, s.OC, s.IC, 1, 5);
        compare(dtype, s, {&d_out, &weight}, d_x,
                [](Backend& b, const auto& t, Tensor o, Tensor w) { b.matmul_backward_input(o, t[0], t[1], w); });
        compare(dtype, s, {&d_out, &x}, d_weight, [](Backend& b, const auto& t, Tensor o, Tensor w) {
            b.matmul_backward_weight(o, {}, true, t[0], t[1], w);
        });
    });
}

TEST(CudaMatmul, BiasGradient) {
    for_each_shape([](DType dtype, const Shape& s) {
        const TestBuffer d_out = random_buffer(dtype, s.N, s.OC, 1, 1), x = random_buffer(dtype, s.N, s.IC, 1, 2);
        const TestBuffer d_weight = random_buffer(DType::F32, s.OC, s.IC, 1, 5);
        const TestBuffer d_bias = random_buffer(DType::F32, s.OC, 1, 1, 6);
        OnDevice device;
        const TestBuffer ours = converted(DType::F32, d_bias),
                         workspace = workspace_buffer(cuda_backend().matmul_workspace(dtype, s.N, s.OC, s.IC));
        cuda_backend().matmul_backward_weight(device(d_weight), device(ours), true, device(d_out), device(x),
                                              device(workspace));
        device.fetch();
        Values exact = d_bias.values();
        const Values rows = d_out.values();
        for (size_t i = 0; i < rows.size(); ++i) exact[i % exact.size()] += rows[i];
        EXPECT_LE(largest_error(ours.values(), exact), 0x1p-20 * (1 + largest_magnitude(exact)) * 4);
    });
}

// ---- writing gradients of weights ---------------------------------------------------------------------------------

struct Gradients {
    Gradients(const Shape& s, double start)
        : weight(DType::F32, s.OC, s.IC, Values(static_cast<size_t>(s.OC * s.IC), start)),
          bias(DType::F32, s.OC, 1, Values(static_cast<size_t>(s.OC), start)) {}
    bool same_as(const Gradients& other) const {
        return same_values(weight, other.weight) && same_values(bias, other.bias);
    }
    bool intact() const { return weight.intact() && bias.intact(); }
    TestBuffer weight, bias;
};

std::vector<Shape> write_shapes() {
    std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
    shapes.insert(shapes.end(), {{300, 100, 72}, {1024, 64, 128}, {130, 257, 65}});
#ifndef LLMC_CUDA_ON_CPU  // Where the library has kernels of many kinds.
    shapes.insert(shapes.end(), {{8192, 768, 768}, {1024, 2304, 768}, {16384, 64, 64}, {1000, 3001, 333}});
#endif
    return shapes;
}

TEST(CudaMatmul, WritingIsAddingToZeros) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& s : write_shapes()) {
            SCOPED_TRACE(fmt::format("{} N={} OC={} IC={}", name_of(dtype), s.N, s.OC, s.IC));
            const TestBuffer d_out = random_buffer(dtype, s.N, s.OC, 1, 1), x = random_buffer(dtype, s.N, s.IC, 1, 2);
            const TestBuffer d_out2 = random_buffer(dtype, s.N, s.OC, 1, 3), x2 = random_buffer(dtype, s.N, s.IC, 1, 4);
            const TestBuffer workspace = workspace_buffer(cuda_backend().matmul_workspace(dtype, s.N, s.OC, s.IC));
            const Gradients added(s, 0), written(s, std::nan("")), alone(s, std::nan("")), second(s, std::nan(""));
            const Gradients both(s, std::nan("")), both_added(s, 0);
            run_on_cuda([&](Backend& b, auto on) {
                const auto run = [&](const Gradients& to, bool adds, const TestBuffer& of, const TestBuffer& from) {
                    b.matmul_backward_weight(on(to.weight), on(to.bias), adds, on(of), on(from), on(workspace));
                };
                run(added, true, d_out, x);
                run(written, false, d_out, x);
                b.matmul_backward_weight(on(alone.weight), Tensor(), false, on(d_out), on(x), on(workspace));
                run(second, false, d_out2, x2);
                run(both_added, true, d_out, x);
                run(both_added, true, d_out2, x2);
                run(both, false, d_out, x);
                run(both, true, d_out2, x2);
            });
            EXPECT_TRUE(written.same_as(added));
            EXPECT_TRUE(alone.weight.bytes() == written.weight.bytes());
            EXPECT_TRUE(both.same_as(both_added));
            expect_rounded_sums(both.weight, written.weight, second.weight);
            expect_rounded_sums(both.bias, written.bias, second.bias);
            EXPECT_TRUE(written.intact() && both.intact() && workspace.intact());
        }
}

#ifdef LLMC_CUDA_ON_CPU
// One search, so one plan with one algorithm, whichever of the two is called first.
TEST(CudaMatmul, WritingUsesTheAlgorithmOfAdding) {
    const Shape s = {37, 48, 100};
    for (const DType dtype : kActivationTypes)
        for (const bool adds_first : {false, true}) {
            cuda::CudaBackend backend(0);  // It knows no plans yet.
            const TestBuffer d_out = random_buffer(dtype, s.N, s.OC, 1, 1), x = random_buffer(dtype, s.N, s.IC, 1, 2);
            const TestBuffer workspace = workspace_buffer(backend.matmul_workspace(dtype, s.N, s.OC, s.IC));
            const Gradients gradients(s, 0);
            OnDevice device;
            const Tensor d_weight = device(gradients.weight), of = device(d_out), from = device(x),
                         scratch = device(workspace);
            cuda_backend().synchronize();
            const uint64_t before = cuda_on_cpu::counts().algorithm_searches;
            for (const bool adds : {adds_first, !adds_first, adds_first}) {
                backend.matmul_backward_weight(d_weight, Tensor(), adds, of, from, scratch);
                backend.synchronize();
                EXPECT_EQ(cuda_on_cpu::counts().algorithm_searches - before, 1u);
            }
        }
}
#endif

}  // namespace
}  // namespace llmc
