// LayerNorm and RMSNorm against plain loops, and their gradients against finite differences.
#include "tests/backend/backend_testing.h"

namespace llmc {
namespace {

constexpr float kEpsilon = 1e-5f;

struct Forward {
    Values out, mean, rstd;
};

/// LayerNorm, or RMSNorm if there is no bias.
template <typename Real>
Forward forward(const Values& x, const Values& weight, const Values& bias) {
    const size_t C = weight.size(), N = x.size() / C;
    Forward result{Values(N * C), Values(N), Values(N)};
    for (size_t n = 0; n < N; ++n) {
        Real mean = 0, variance = 0;
        for (size_t c = 0; c < C && !bias.empty(); ++c) mean += static_cast<Real>(x[n * C + c]);
        mean /= static_cast<Real>(C);
        for (size_t c = 0; c < C; ++c) {
            const Real centred = static_cast<Real>(x[n * C + c]) - mean;
            variance += centred * centred;
        }
        const Real rstd = 1 / std::sqrt(variance / static_cast<Real>(C) + static_cast<Real>(kEpsilon));
        for (size_t c = 0; c < C; ++c)
            result.out[n * C + c] = (static_cast<Real>(x[n * C + c]) - mean) * rstd * static_cast<Real>(weight[c]) +
                                    static_cast<Real>(bias.empty() ? 0 : bias[c]);
        result.mean[n] = mean;
        result.rstd[n] = rstd;
    }
    return result;
}

struct Gradients {
    Values d_x, d_weight, d_bias;  ///< Start with what they are added to.
};

template <typename Real>
Gradients backward(const Gradients& before, const Values& d_out, const Values& x, const Values& mean,
                   const Values& rstd, const Values& weight, bool centred) {
    const size_t C = weight.size(), N = x.size() / C;
    Gradients result = before;
    std::vector<Real> d_weight(C, 0), d_bias(C, 0);
    for (size_t n = 0; n < N; ++n) {
        const Real scale = rstd[n], center = centred ? mean[n] : 0;
        Real mean_g = 0, mean_gh = 0;
        for (size_t c = 0; c < C; ++c) {
            const Real d = d_out[n * C + c], h = (static_cast<Real>(x[n * C + c]) - center) * scale;
            d_weight[c] += d * h;
            d_bias[c] += d;
            mean_g += d * static_cast<Real>(weight[c]);
            mean_gh += d * static_cast<Real>(weight[c]) * h;
        }
        mean_g = centred ? mean_g / static_cast<Real>(C) : 0;
        mean_gh /= static_cast<Real>(C);
        for (size_t c = 0; c < C; ++c) {
            const Real h = (static_cast<Real>(x[n * C + c]) - center) * scale;
            const Real g = static_cast<Real>(d_out[n * C + c]) * static_cast<Real>(weight[c]);
            result.d_x[n * C + c] += scale * (g - mean_g - h * mean_gh);
        }
    }
    for (size_t c = 0; c < C; ++c) {
        result.d_weight[c] += d_weight[c];
        if (centred) result.d_bias[c] += d_bias[c];
    }
    return result;
}

/// Operands of one call; mean and rstd are those of the exact forward operation.
struct Case {
    Case(DType dtype, int64_t N, int64_t C, bool centred_, uint32_t item = 0)
        : centred(centred_),
          x(random_buffer(dtype, N, C, 2, 10 * item + 1)),
          d_out(random_buffer(dtype, N, C, 1, 10 * item + 2)),
          weight(random_buffer(dtype, C, 1, 1, 3)),
          bias(random_buffer(dtype, C, 1, 1, 4)),
          out(dtype, N, C),
          mean(DType::F32, N),
          rstd(DType::F32, N),
          d_x(random_buffer(dtype, N, C, 1, 5)),
          d_weight(random_buffer(DType::F32, C, 1, 1, 6)),
          d_bias(random_buffer(DType::F32, C, 1, 1, 7)) {
        const Forward exact = forward<double>(x.values(), weight.values(), centred ? bias.values() : Values());
        mean.set(exact.mean);
        rstd.set(exact.rstd);
    }

    void run_forward(Backend& backend) const {
        if (centred)
            backend.layernorm_forward(out, mean, rstd, x, weight, bias, kEpsilon);
        else
            backend.rmsnorm_forward(out, rstd, x, weight, kEpsilon);
    }

    void run_backward(Backend& backend, bool accumulate, bool adds) const {
        run_backward(backend, accumulate, adds, d_weight, d_bias);
    }
    /// Into these gradients of the parameters.
    void run_backward(Backend& backend, bool accumulate, bool adds, Tensor d_w, Tensor d_b) const {
        const Tensor rows = x;
        const TestBuffer workspace = workspace_buffer(backend.norm_backward_workspace(rows.shape[0], rows.shape[1]));
        if (centred)
            backend.layernorm_backward(d_x, accumulate, d_w, d_b, adds, d_out, x, mean, rstd, weight, workspace);
        else
            backend.rmsnorm_backward(d_x, accumulate, d_w, adds, d_out, x, rstd, weight, workspace);
        EXPECT_TRUE(workspace.intact());
    }

    template <typename Real>
    Gradients expected(bool accumulate, bool adds) const {
        const auto start = [](bool from_there, const TestBuffer& buffer) {
            return from_there ? buffer.values() : Values(buffer.values().size(), 0.0);
        };
        // RMSNorm leaves the bias's gradient as it is.
        return backward<Real>({start(accumulate, d_x), start(adds, d_weight), start(adds || !centred, d_bias)},
                              d_out.values(), x.values(), mean.values(), rstd.values(), weight.values(), centred);
    }

    bool centred;
    TestBuffer x, d_out, weight, bias, out, mean, rstd, d_x, d_weight, d_bias;
};

TEST(Norm, Forward) {
    cpu::CpuBackend backend(2);
    for (const bool centred : {true, false})
        for_each_case([&](DType dtype, int64_t N, int64_t C) {
            const Case c(dtype, N, C, centred);
            const Values bias = centred ? c.bias.values() : Values();
            const Forward plain = forward<float>(c.x.values(), c.weight.values(), bias);
            const Forward exact = forward<double>(c.x.values(), c.weight.values(), bias);
            c.run_forward(backend);
            expect_as_good_as_plain(c.out, plain.out, exact.out);
            expect_as_good_as_plain(c.rstd, plain.rstd, exact.rstd);
            if (centred) expect_as_good_as_plain(c.mean, plain.mean, exact.mean);
        });
}

/// What will be written must not be read.
void fill_with_nan(const TestBuffer& buffer) { buffer.set(Values(static_cast<size_t>(buffer.count()), std::nan(""))); }

TEST(Norm, Backward) {
    cpu::CpuBackend backend(2);
    for (const bool centred : {true, false})
        for (const auto& [accumulate, adds] : {std::pair(true, true), {false, true}, {true, false}, {false, false}})
            for_each_case([&, accumulate = accumulate, adds = adds](DType dtype, int64_t N, int64_t C) {
                const Case c(dtype, N, C, centred);
                const Gradients plain = c.expected<float>(accumulate, adds);
                const Gradients exact = c.expected<double>(accumulate, adds);
                if (!accumulate) fill_with_nan(c.d_x);
                if (!adds) fill_with_nan(c.d_weight);
                if (!adds && centred) fill_with_nan(c.d_bias);
                c.run_backward(backend, accumulate, adds);
                // In a row of one everything cancels, after it was multiplied by 1/sqrt(epsilon).
                const double terms = C > 1 ? 0 : 1 / std::sqrt(kEpsilon) * largest_magnitude(c.d_out.values());
                expect_as_good_as_plain(c.d_x, plain.d_x, exact.d_x, terms);
                expect_as_good_as_plain(c.d_weight, plain.d_weight, exact.d_weight);
                expect_as_good_as_plain(c.d_bias, plain.d_bias, exact.d_bias);
            });
}

/// Ragged shapes, and one that several threads share.
void for_each_sum(const std::function<void(DType, int64_t N, int64_t C, bool centred)>& test) {
    for (const bool centred : {true, false}) {
        for_each_case([&](DType dtype, int64_t N, int64_t C) { test(dtype, N, C, centred); });
        for (const DType dtype : kActivationTypes) test(dtype, 777, 390, centred);
    }
}

TEST(Norm, WritingIsAddingToZeros) {
    for (const int threads : {1, 2, 3}) {
        cpu::CpuBackend backend(threads);
        for_each_sum([&](DType dtype, int64_t N, int64_t C, bool centred) {
            const Case c(dtype, N, C, centred);
            const TestBuffer added = zeros(DType::F32, C), added_bias = zeros(DType::F32, C);
            const TestBuffer written(DType::F32, C), written_bias(DType::F32, C);
            c.run_backward(backend, false, true, added, added_bias);
            c.run_backward(backend, false, false, written, written_bias);
            EXPECT_TRUE(same_values(written, added));
            if (centred) {
                EXPECT_TRUE(same_values(written_bias, added_bias));
            }
            EXPECT_TRUE(written.intact() && written_bias.intact());
        });
    }
}

TEST(Norm, AddingAfterWritingIsTheSumOfBoth) {
    cpu::CpuBackend backend(2);
    for_each_sum([&](DType dtype, int64_t N, int64_t C, bool centred) {
        const Case first(dtype, N, C, centred), second(dtype, N, C, centred, 1);
        const TestBuffer both(DType::F32, C), both_bias(DType::F32, C);
        first.run_backward(backend, false, false);
        second.run_backward(backend, false, false);
        first.run_backward(backend, false, false, both, both_bias);
        second.run_backward(backend, false, true, both, both_bias);
        expect_rounded_sums(both, first.d_weight, second.d_weight);
        if (centred) expect_rounded_sums(both_bias, first.d_bias, second.d_bias);
    });
}

TEST(Norm, GradientsAreDerivatives) {
    for (const bool centred : {true, false}) {
        const Values x = random_buffer(DType::F32, 3, 8, 2, 1).values();
        const Values weight = random_buffer(DType::F32, 8, 1, 1, 2).values();
        const Values bias = centred ? random_buffer(DType::F32, 8, 1, 1, 3).values() : Values();
        const Values d_out = random_buffer(DType::F32, 3, 8, 1, 4).values();
        const Forward at = forward<double>(x, weight, bias);
        const Gradients zero{Values(24, 0.0), Values(8, 0.0), Values(8, 0.0)};
        const Gradients gradients = backward<double>(zero, d_out, x, at.mean, at.rstd, weight, centred);
        expect_is_derivative(
            gradients.d_x, [&](const Values& v) { return dot(d_out, forward<double>(v, weight, bias).out); }, x);
        expect_is_derivative(
            gradients.d_weight, [&](const Values& v) { return dot(d_out, forward<double>(x, v, bias).out); }, weight);
        if (centred)
            expect_is_derivative(
                gradients.d_bias, [&](const Values& v) { return dot(d_out, forward<double>(x, weight, v).out); }, bias);
    }
}

// A mean that is large beside the spread cancels in one-pass formulas.
TEST(Norm, LargeMean) {
    cpu::CpuBackend backend(1);
    const int64_t C = 768;
    Values values = random_buffer(DType::F32, 1, C, 1, 1).values();
    for (double& value : values) value = static_cast<float>(1000 + value);
    const Values ones(C, 1.0), zeros(C, 0.0);
    const TestBuffer x(DType::F32, 1, C, values), weight(DType::F32, C, 1, ones), bias(DType::F32, C, 1, zeros);
    const TestBuffer out(DType::F32, 1, C), mean(DType::F32, 1), rstd(DType::F32, 1);
    backend.layernorm_forward(out, mean, rstd, x, weight, bias, kEpsilon);
    EXPECT_LE(largest_error(out.values(), forward<double>(values, ones, zeros).out), 2e-4);
}

TEST(Norm, ThreadCountDoesNotMatter) {
    for (const DType dtype : kActivationTypes)
        for (const bool centred : {true, false})
            expect_same_bits_at_every_thread_count([&](Backend& backend) {
                const Case c(dtype, 777, 390, centred);
                c.run_forward(backend);
                c.run_backward(backend, true, true);
                return joined({&c.out, &c.mean, &c.rstd, &c.d_x, &c.d_weight, &c.d_bias});
            });
}

}  // namespace
}  // namespace llmc
