// GELU (both forms) and SwiGLU against the CPU backend.
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

/// All six operations on random operands; gradients of the first in place if asked for.
struct Case {
    Case(DType dtype, int64_t N, int64_t F)
        : x(random_buffer(dtype, N, 2 * F, 2, 1)),
          d_out(random_buffer(dtype, N, 2 * F, 1, 2)),
          d_product(random_buffer(dtype, N, F, 1, 3)),
          gelu(dtype, N, 2 * F),
          d_gelu(dtype, N, 2 * F),
          product(dtype, N, F),
          d_gate_up(dtype, N, 2 * F),
          exact(dtype, N, 2 * F),
          d_exact(dtype, N, 2 * F) {}
    /// The same operands in fp32.
    explicit Case(const Case& other, DType dtype)
        : Case(dtype, other.product.tensor().shape[0], other.product.tensor().shape[1]) {
        x.set(other.x.values());
        d_out.set(other.d_out.values());
        d_product.set(other.d_product.values());
    }

    template <typename On>
    void run(Backend& backend, On on) const {
        backend.gelu_forward(on(gelu), on(x));
        backend.gelu_backward(on(d_gelu), on(d_out), on(x));
        backend.gelu_exact_forward(on(exact), on(x));
        backend.gelu_exact_backward(on(d_exact), on(d_out), on(x));
        backend.gelu_backward(on(d_out), on(d_out), on(x));  // In place.
        backend.swiglu_forward(on(product), on(x));
        backend.swiglu_backward(on(d_gate_up), on(d_product), on(x));
    }
    std::vector<std::byte> results() const {
        return joined({&gelu, &d_gelu, &d_out, &product, &d_gate_up, &exact, &d_exact});
    }

    TestBuffer x, d_out, d_product, gelu, d_gelu, product, d_gate_up, exact, d_exact;
};

TEST(CudaActivation, AsGoodAsCpu) {
    for_each_case([](DType dtype, int64_t N, int64_t F) {
        const Case cpu(dtype, N, F), truth(cpu, DType::F32);
        run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on); });
        run_on_cpu([&](Backend& b, auto on) { truth.run(b, on); });
        cuda::for_each_seed([&] {
            const Case ours(dtype, N, F);
            run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
            expect_as_good_as_cpu(ours.gelu, cpu.gelu, truth.gelu);
            expect_as_good_as_cpu(ours.d_gelu, cpu.d_gelu, truth.d_gelu);
            expect_as_good_as_cpu(ours.product, cpu.product, truth.product);
            expect_as_good_as_cpu(ours.d_gate_up, cpu.d_gate_up, truth.d_gate_up);
            expect_as_good_as_cpu(ours.exact, cpu.exact, truth.exact);
            expect_as_good_as_cpu(ours.d_exact, cpu.d_exact, truth.d_exact);
            EXPECT_TRUE(ours.d_out.bytes() == ours.d_gelu.bytes());
        });
    });
}

TEST(CudaActivation, SameBitsAtEverySeed) {
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_seed([&] {
            const Case ours(dtype, 9, 520);
            run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
            return ours.results();
        });
}

TEST(CudaActivation, LargeInputsSaturate) {
    for (const DType dtype : kActivationTypes) {
        const Values x = {-1e6, -100, -30, 0, 30, 100, 1e6, 0};
        const Values expected = {0, 0, 0, 0, 30, 100, 1e6, 0}, slopes = {0, 0, 0, 0.5, 1, 1, 1, 0.5};
        const TestBuffer input(dtype, 8, 1, x), ones(dtype, 8, 1, Values(8, 1.0)), out(dtype, 8), d_x(dtype, 8);
        const TestBuffer rounded(dtype, 8, 1, expected);
        run_on_cuda([&](Backend& b, auto on) {
            b.gelu_forward(on(out), on(input));
            b.gelu_backward(on(d_x), on(ones), on(input));
        });
        EXPECT_EQ(out.values(), rounded.values());
        EXPECT_EQ(d_x.values(), slopes);
    }
}

// Rows inside a tensor need not begin at a multiple of 16 bytes.
TEST(CudaActivation, UnalignedRows) {
    for (const DType dtype : kActivationTypes) {
        const TestBuffer x = random_buffer(dtype, 5, 102, 1, 1), whole(dtype, 5, 102), part(dtype, 5, 102);
        const TestBuffer product(dtype, 5, 51), product_part(dtype, 5, 51);
        run_on_cuda([&](Backend& b, auto on) {
            b.gelu_forward(on(whole), on(x));
            b.zero(on(part));
            b.gelu_forward(on(part).row_range(1, 3), on(x).row_range(1, 3));
            b.swiglu_forward(on(product), on(x));
            b.zero(on(product_part));
            b.swiglu_forward(on(product_part).row_range(1, 3), on(x).row_range(1, 3));
        });
        for (int64_t i = 0; i < 510; ++i) EXPECT_EQ(part.values()[i], i / 102 % 4 == 0 ? 0 : whole.values()[i]) << i;
        for (int64_t i = 0; i < 255; ++i)
            EXPECT_EQ(product_part.values()[i], i / 51 % 4 == 0 ? 0 : product.values()[i]) << i;
    }
}

}  // namespace
}  // namespace llmc
