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
void compare(DType dtype, const Shape& shape, std::initializer_list<const Buffer*> inputs, const Buffer& out,
             const std::function<void(Backend&, const std::vector<Tensor>&, Tensor out, Tensor workspace)>& call) {
    const auto run = [&](DType type, Backend& backend, bool on_device) {
        std::vector<Buffer> operands;
        for (const Buffer* input : inputs) operands.push_back(converted(type, *input));
        Buffer result = converted(out.dtype() == DType::F32 ? DType::F32 : type, out);
        Buffer workspace = workspace_buffer(backend.matmul_workspace(type, shape.N, shape.OC, shape.IC));
        std::vector<Tensor> tensors;
        OnDevice device;
        for (const Buffer& operand : operands) tensors.push_back(on_device ? device(operand) : operand.tensor());
        call(backend, tensors, on_device ? device(result) : result.tensor(),
             on_device ? device(workspace) : workspace.tensor());
        if (on_device) device.fetch();
        return result;
    };
    const Buffer exact = run(DType::F32, cpu_backend(), false);
    const Buffer cpu = run(dtype, cpu_backend(), false);
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
        const Buffer x = random_buffer(dtype, s.N, s.IC, 1, 1), weight = random_buffer(dtype, s.OC, s.IC, 1, 2);
        const Buffer bias = random_buffer(dtype, s.OC, 1, 1, 3), residual = random_buffer(dtype, s.N, s.OC, 3, 4);
        const Buffer out = random_buffer(dtype, s.N, s.OC, 1, 5);
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
        const Buffer d_out = random_buffer(dtype, s.N, s.OC, 1, 1), x = random_buffer(dtype, s.N, s.IC, 1, 2);
        const Buffer weight = random_buffer(dtype, s.OC, s.IC, 1, 3);
        const Buffer d_x = random_buffer(dtype, s.N, s.IC, 1, 4);
        const Buffer d_weight = random_buffer(DType::F32, s.OC, s.IC, 1, 5);
        compare(dtype, s, {&d_out, &weight}, d_x,
                [](Backend& b, const auto& t, Tensor o, Tensor w) { b.matmul_backward_input(o, t[0], t[1], w); });
        compare(dtype, s, {&d_out, &x}, d_weight,
                [](Backend& b, const auto& t, Tensor o, Tensor w) { b.matmul_backward_weight(o, {}, t[0], t[1], w); });
    });
}

TEST(CudaMatmul, BiasGradient) {
    for_each_shape([](DType dtype, const Shape& s) {
        const Buffer d_out = random_buffer(dtype, s.N, s.OC, 1, 1), x = random_buffer(dtype, s.N, s.IC, 1, 2);
        const Buffer d_weight = random_buffer(DType::F32, s.OC, s.IC, 1, 5);
        const Buffer d_bias = random_buffer(DType::F32, s.OC, 1, 1, 6);
        OnDevice device;
        const Buffer ours = converted(DType::F32, d_bias),
                     workspace = workspace_buffer(cuda_backend().matmul_workspace(dtype, s.N, s.OC, s.IC));
        cuda_backend().matmul_backward_weight(device(d_weight), device(ours), device(d_out), device(x),
                                              device(workspace));
        device.fetch();
        Values exact = d_bias.values();
        const Values rows = d_out.values();
        for (size_t i = 0; i < rows.size(); ++i) exact[i % exact.size()] += rows[i];
        EXPECT_LE(largest_error(ours.values(), exact), 0x1p-20 * (1 + largest_magnitude(exact)) * 4);
    });
}

}  // namespace
}  // namespace llmc
