// GELU and SwiGLU against the plain formulas, and their gradients against finite differences.
#include "tests/backend/backend_testing.h"

namespace llmc {
namespace {

constexpr double kPi = 3.14159265358979323846;

template <typename Real>
Real gelu(Real x) {
    const Real u = static_cast<Real>(std::sqrt(2 / kPi)) * (x + static_cast<Real>(0.044715) * x * x * x);
    return static_cast<Real>(0.5) * x * (1 + std::tanh(u));
}

template <typename Real>
Real gelu_slope(Real x) {
    const Real scale = static_cast<Real>(std::sqrt(2 / kPi)), cubic = static_cast<Real>(0.044715);
    const Real t = std::tanh(scale * (x + cubic * x * x * x));
    const Real half = static_cast<Real>(0.5);
    return half * (1 + t) + half * x * (1 - t * t) * scale * (1 + 3 * cubic * x * x);
}

template <typename Real>
Real exact_gelu(Real x) {
    return static_cast<Real>(0.5) * x * (1 + std::erf(x / std::sqrt(static_cast<Real>(2))));
}

template <typename Real>
Real exact_gelu_slope(Real x) {
    const Real below = static_cast<Real>(0.5) * (1 + std::erf(x / std::sqrt(static_cast<Real>(2))));
    return below + x * std::exp(-x * x / 2) / static_cast<Real>(std::sqrt(2 * kPi));
}

template <typename Real>
Real sigmoid(Real x) {
    return 1 / (1 + std::exp(-x));
}

template <typename Real>
Values gelu_all(const Values& x) {
    Values out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = gelu(static_cast<Real>(x[i]));
    return out;
}

template <typename Real>
Values gelu_backward_all(const Values& d_out, const Values& x) {
    Values d_x(x.size());
    for (size_t i = 0; i < x.size(); ++i) d_x[i] = static_cast<Real>(d_out[i]) * gelu_slope(static_cast<Real>(x[i]));
    return d_x;
}

template <typename Real>
Values swiglu_all(const Values& gate_up, int64_t F) {
    Values out(gate_up.size() / 2);
    for (size_t i = 0; i < out.size(); ++i) {
        const Real g = gate_up[i / F * 2 * F + i % F], up = gate_up[i / F * 2 * F + F + i % F];
        out[i] = g * sigmoid(g) * up;
    }
    return out;
}

template <typename Real>
Values swiglu_backward_all(const Values& d_out, const Values& gate_up, int64_t F) {
    Values d_gate_up(gate_up.size());
    for (size_t i = 0; i < d_out.size(); ++i) {
        const size_t gate = i / F * 2 * F + i % F;
        const Real g = gate_up[gate], up = gate_up[gate + F], d = d_out[i], s = sigmoid(g);
        d_gate_up[gate] = d * up * s * (1 + g * (1 - s));
        d_gate_up[gate + F] = d * g * s;
    }
    return d_gate_up;
}

TEST(Activation, GeluForward) {
    cpu::CpuBackend backend(2);
    for_each_case([&](DType dtype, int64_t N, int64_t C) {
        const TestBuffer x = random_buffer(dtype, N, C, 3, 1);
        const TestBuffer out(dtype, N, C);
        backend.gelu_forward(out, x);
        expect_as_good_as_plain(out, gelu_all<float>(x.values()), gelu_all<double>(x.values()));
    });
}

TEST(Activation, GeluBackward) {
    cpu::CpuBackend backend(2);
    for_each_case([&](DType dtype, int64_t N, int64_t C) {
        const TestBuffer x = random_buffer(dtype, N, C, 3, 1), d_out = random_buffer(dtype, N, C, 1, 2);
        const Values plain = gelu_backward_all<float>(d_out.values(), x.values());
        const Values exact = gelu_backward_all<double>(d_out.values(), x.values());
        const TestBuffer d_x(dtype, N, C);
        backend.gelu_backward(d_x, d_out, x);
        expect_as_good_as_plain(d_x, plain, exact);
        backend.gelu_backward(d_out, d_out, x);  // In place.
        EXPECT_TRUE(d_out.bytes() == d_x.bytes());
        EXPECT_TRUE(d_out.intact());
    });
}

template <typename Real>
Values exact_gelu_all(const Values& x) {
    Values out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = exact_gelu(static_cast<Real>(x[i]));
    return out;
}

template <typename Real>
Values exact_gelu_backward_all(const Values& d_out, const Values& x) {
    Values d_x(x.size());
    for (size_t i = 0; i < x.size(); ++i)
        d_x[i] = static_cast<Real>(d_out[i]) * exact_gelu_slope(static_cast<Real>(x[i]));
    return d_x;
}

TEST(Activation, ExactGelu) {
    cpu::CpuBackend backend(2);
    for_each_case([&](DType dtype, int64_t N, int64_t C) {
        const TestBuffer x = random_buffer(dtype, N, C, 3, 1), d_out = random_buffer(dtype, N, C, 1, 2);
        const TestBuffer out(dtype, N, C), d_x(dtype, N, C);
        backend.gelu_exact_forward(out, x);
        expect_as_good_as_plain(out, exact_gelu_all<float>(x.values()), exact_gelu_all<double>(x.values()));
        const Values plain = exact_gelu_backward_all<float>(d_out.values(), x.values());
        const Values exact = exact_gelu_backward_all<double>(d_out.values(), x.values());
        backend.gelu_exact_backward(d_x, d_out, x);
        expect_as_good_as_plain(d_x, plain, exact);
        backend.gelu_exact_backward(d_out, d_out, x);  // In place.
        EXPECT_TRUE(d_out.bytes() == d_x.bytes());
        EXPECT_TRUE(d_out.intact());
    });
}

/// The two forms differ by up to 5e-4: one must not stand in for the other.
TEST(Activation, TheFormsOfGeluDiffer) {
    cpu::CpuBackend backend(1);
    const TestBuffer x(DType::F32, 1, 1, Values{2.2}), tanh(DType::F32, 1), exact(DType::F32, 1);
    backend.gelu_forward(tanh, x);
    backend.gelu_exact_forward(exact, x);
    EXPECT_NEAR(exact.values()[0], exact_gelu(2.2), 1e-6);
    EXPECT_GT(std::fabs(exact.values()[0] - tanh.values()[0]), 2e-4);
}

TEST(Activation, SwigluForward) {
    cpu::CpuBackend backend(2);
    for_each_case([&](DType dtype, int64_t N, int64_t F) {
        const TestBuffer gate_up = random_buffer(dtype, N, 2 * F, 2, 1);
        const TestBuffer out(dtype, N, F);
        backend.swiglu_forward(out, gate_up);
        expect_as_good_as_plain(out, swiglu_all<float>(gate_up.values(), F), swiglu_all<double>(gate_up.values(), F));
    });
}

TEST(Activation, SwigluBackward) {
    cpu::CpuBackend backend(2);
    for_each_case([&](DType dtype, int64_t N, int64_t F) {
        const TestBuffer gate_up = random_buffer(dtype, N, 2 * F, 2, 1), d_out = random_buffer(dtype, N, F, 1, 2);
        const TestBuffer d_gate_up(dtype, N, 2 * F);
        backend.swiglu_backward(d_gate_up, d_out, gate_up);
        expect_as_good_as_plain(d_gate_up, swiglu_backward_all<float>(d_out.values(), gate_up.values(), F),
                                swiglu_backward_all<double>(d_out.values(), gate_up.values(), F));
    });
}

TEST(Activation, GradientsAreDerivatives) {
    const Values x = random_buffer(DType::F32, 4, 10, 2, 1).values();
    const Values weights = random_buffer(DType::F32, 4, 10, 1, 2).values();
    expect_is_derivative(
        gelu_backward_all<double>(weights, x), [&](const Values& at) { return dot(weights, gelu_all<double>(at)); }, x);
    expect_is_derivative(
        exact_gelu_backward_all<double>(weights, x),
        [&](const Values& at) { return dot(weights, exact_gelu_all<double>(at)); }, x);
    const Values half(weights.begin(), weights.begin() + 20);
    expect_is_derivative(
        swiglu_backward_all<double>(half, x, 5), [&](const Values& at) { return dot(half, swiglu_all<double>(at, 5)); },
        x);
}

TEST(Activation, LargeInputsSaturate) {
    cpu::CpuBackend backend(1);
    const Values x = {-1e6, -100, -30, 0, 30, 100, 1e6, 0};
    const Values expected = {0, 0, 0, 0, 30, 100, 1e6, 0}, slopes = {0, 0, 0, 0.5, 1, 1, 1, 0.5};
    const TestBuffer input(DType::F32, 8, 1, x), ones(DType::F32, 8, 1, Values(8, 1.0)), out(DType::F32, 8);
    backend.gelu_forward(out, input);
    EXPECT_EQ(out.values(), expected);
    backend.gelu_backward(out, ones, input);
    EXPECT_EQ(out.values(), slopes);
    backend.gelu_exact_forward(out, input);
    EXPECT_LE(largest_error(out.values(), expected), 1e-38);
    backend.gelu_exact_backward(out, ones, input);
    EXPECT_LE(largest_error(out.values(), slopes), 1e-7);
    const TestBuffer gate_up(DType::F32, 1, 16, Values{-1e6, -100, -30, 0, 30, 100, 1e6, 0, 1, 1, 1, 1, 1, 1, 1, 1});
    backend.swiglu_forward(Tensor(DType::F32, out.tensor().data, 1, 8), gate_up);
    EXPECT_LE(largest_error(out.values(), expected), 1e-11);
}

TEST(Activation, ThreadCountDoesNotMatter) {
    for (const DType dtype : kActivationTypes) {
        const TestBuffer x = random_buffer(dtype, 333, 2002, 1, 1), d_out = random_buffer(dtype, 333, 2002, 1, 2);
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            const TestBuffer out(dtype, 333, 2002), d_x(dtype, 333, 2002), product(dtype, 333, 1001);
            const TestBuffer d_x2(dtype, 333, 2002);
            backend.gelu_forward(out, x);
            backend.gelu_backward(d_x, d_out, x);
            backend.swiglu_forward(product, x);
            backend.swiglu_backward(d_x2, product, x);
            const TestBuffer exact(dtype, 333, 2002), d_exact(dtype, 333, 2002);
            backend.gelu_exact_forward(exact, x);
            backend.gelu_exact_backward(d_exact, d_out, x);
            return joined({&out, &d_x, &product, &d_x2, &exact, &d_exact});
        });
    }
}

}  // namespace
}  // namespace llmc
