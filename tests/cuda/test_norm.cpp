// LayerNorm and RMSNorm against the CPU backend.
#include "tests/cuda/cuda_testing.h"

#include <cmath>

namespace llmc {
namespace {

constexpr float kEpsilon = 1e-5f;

/// Operands of one forward and one backward call.
struct Case {
    Case(DType dtype, int64_t N, int64_t C, bool centred_, bool accumulate_, uint32_t item = 0)
        : centred(centred_),
          accumulate(accumulate_),
          x(random_buffer(dtype, N, C, 2, 1)),
          d_out(random_buffer(dtype, N, C, 1, 10 * item + 2)),
          weight(random_buffer(dtype, C, 1, 1, 3)),
          bias(random_buffer(dtype, C, 1, 1, 4)),
          out(dtype, N, C),
          mean(DType::F32, N),
          rstd(DType::F32, N),
          d_x(random_buffer(dtype, N, C, 1, 5)),
          d_weight(random_buffer(DType::F32, C, 1, 1, 6)),
          d_bias(random_buffer(DType::F32, C, 1, 1, 7)),
          workspace(workspace_buffer(
              std::max(cpu_backend().norm_backward_workspace(N, C), cuda_backend().norm_backward_workspace(N, C)))) {
        if (!accumulate) d_x.set(Values(d_x.values().size(), std::nan("")));  // Must not be read.
    }
    /// The same values in fp32.
    explicit Case(const Case& other)
        : Case(DType::F32, other.x.tensor().shape[0], other.x.tensor().shape[1], other.centred, other.accumulate) {
        x.set(other.x.values());
        d_out.set(other.d_out.values());
        weight.set(other.weight.values());
        bias.set(other.bias.values());
        d_x.set(other.d_x.values());
    }

    template <typename On>
    void run(Backend& backend, On on, bool adds = true) const {
        if (centred) {
            backend.layernorm_forward(on(out), on(mean), on(rstd), on(x), on(weight), on(bias), kEpsilon);
            backend.layernorm_backward(on(d_x), accumulate, on(d_weight), on(d_bias), adds, on(d_out), on(x), on(mean),
                                       on(rstd), on(weight), on(workspace));
        } else {
            backend.rmsnorm_forward(on(out), on(rstd), on(x), on(weight), kEpsilon);
            backend.rmsnorm_backward(on(d_x), accumulate, on(d_weight), adds, on(d_out), on(x), on(rstd), on(weight),
                                     on(workspace));
        }
    }
    std::vector<std::byte> results() const {
        return centred ? joined({&out, &mean, &rstd, &d_x, &d_weight, &d_bias})
                       : joined({&out, &rstd, &d_x, &d_weight});
    }

    bool centred, accumulate;
    TestBuffer x, d_out, weight, bias, out, mean, rstd, d_x, d_weight, d_bias, workspace;
};

/// A mean is a sum that cancels: its error is that of roundings of the terms, however small it comes out, and that of
/// the CPU's sum of a long row in fp32 is several times ours. So it is judged by exact sums.
void expect_means(const TestBuffer& means, const TestBuffer& x) {
    const Tensor shape = x.tensor();
    const int64_t N = shape.shape[0], C = shape.shape[1];
    const Values values = x.values(), ours = means.values();
    for (int64_t n = 0; n < N; ++n) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < C; ++c) {
            sum += values[n * C + c];
            magnitude += std::fabs(values[n * C + c]);
        }
        EXPECT_NEAR(ours[n], sum / C, 2 * 0x1p-24 * magnitude / C) << "row " << n;
    }
    EXPECT_TRUE(means.intact());
}

void expect_case_as_good_as_cpu(DType dtype, int64_t N, int64_t C, bool centred, bool accumulate) {
    SCOPED_TRACE(fmt::format("{} N={} C={} {} {}", name_of(dtype), N, C, centred ? "layernorm" : "rmsnorm",
                             accumulate ? "+=" : "="));
    const Case cpu(dtype, N, C, centred, accumulate), truth(cpu);
    run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on); });
    run_on_cpu([&](Backend& b, auto on) { truth.run(b, on); });
    std::vector<std::byte> bits;
    cuda::for_each_seed([&] {
        const Case ours(dtype, N, C, centred, accumulate);
        run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
        expect_as_good_as_cpu(ours.out, cpu.out, truth.out);
        expect_as_good_as_cpu(ours.rstd, cpu.rstd, truth.rstd);
        if (centred) expect_means(ours.mean, ours.x);
        expect_as_good_as_cpu(ours.d_x, cpu.d_x, truth.d_x);
        expect_as_good_as_cpu(ours.d_weight, cpu.d_weight, truth.d_weight);
        if (centred) expect_as_good_as_cpu(ours.d_bias, cpu.d_bias, truth.d_bias);
        if (bits.empty()) bits = ours.results();
        EXPECT_TRUE(ours.results() == bits);
    });
}

TEST(CudaNorm, AsGoodAsCpu) {
    for_each_case([](DType dtype, int64_t N, int64_t C) {
        if (C == 1) return;  // Its variance is the rounding of zero; see OneColumn.
        for (const bool centred : {true, false}) expect_case_as_good_as_cpu(dtype, N, C, centred, N == 5);
    });
}

/// The gradients of a case's parameters start as these.
void fill_gradients(const Case& c, double value) {
    for (const TestBuffer* buffer : {&c.d_weight, &c.d_bias})
        buffer->set(Values(static_cast<size_t>(buffer->count()), value));
}

void expect_writing_is_adding_to_zeros(DType dtype, int64_t N, int64_t C, bool centred) {
    SCOPED_TRACE(fmt::format("{} N={} C={} {}", name_of(dtype), N, C, centred ? "layernorm" : "rmsnorm"));
    const Case added(dtype, N, C, centred, false), written(dtype, N, C, centred, false);
    const Case second(dtype, N, C, centred, false, 1), added_second(dtype, N, C, centred, false, 1);
    fill_gradients(added, 0);
    fill_gradients(written, std::nan(""));
    fill_gradients(second, std::nan(""));
    run_on_cuda([&](Backend& b, auto on) { added.run(b, on, true); });
    run_on_cuda([&](Backend& b, auto on) { written.run(b, on, false); });
    run_on_cuda([&](Backend& b, auto on) { second.run(b, on, false); });
    EXPECT_TRUE(same_values(written.d_weight, added.d_weight));
    added_second.d_weight.set(written.d_weight.values());
    added_second.d_bias.set(written.d_bias.values());
    run_on_cuda([&](Backend& b, auto on) { added_second.run(b, on, true); });
    expect_rounded_sums(added_second.d_weight, written.d_weight, second.d_weight);
    if (centred) {
        EXPECT_TRUE(same_values(written.d_bias, added.d_bias));
        expect_rounded_sums(added_second.d_bias, written.d_bias, second.d_bias);
    }
    EXPECT_TRUE(written.d_weight.intact() && written.d_bias.intact());
}

TEST(CudaNorm, WritingIsAddingToZeros) {
    for (const bool centred : {true, false}) {
        for_each_case([&](DType dtype, int64_t N, int64_t C) {
            if (C > 1) expect_writing_is_adding_to_zeros(dtype, N, C, centred);
        });
        for (const DType dtype : kActivationTypes) expect_writing_is_adding_to_zeros(dtype, 205, 264, centred);
    }
}

TEST(CudaNorm, OneColumn) {
    for (const bool centred : {true, false}) {
        const Case ours(DType::F32, 5, 1, centred, false);
        run_on_cuda([&](Backend& b, auto on) { ours.run(b, on); });
        for (int64_t n = 0; n < 5; ++n) {
            const double x = ours.x.values()[n], weight = ours.weight.values()[0], bias = ours.bias.values()[0];
            const double expected = centred ? bias : x / std::sqrt(x * x + kEpsilon) * weight;
            EXPECT_NEAR(ours.out.values()[n], expected, 1e-6 * (1 + std::fabs(expected)));
        }
    }
}

// Longer than what a block's registers hold, in either direction, whole groups and single elements.
TEST(CudaNorm, LongRows) {
    for (const DType dtype : kActivationTypes)
        for (const int64_t C : {2111, 16384 + 256})
            for (const bool centred : {true, false}) expect_case_as_good_as_cpu(dtype, 17, C, centred, true);
}

// Many groups of rows, the last of them short.
TEST(CudaNorm, ManyRows) {
    for (const DType dtype : kActivationTypes)
        for (const int64_t C : {40, 264}) expect_case_as_good_as_cpu(dtype, 205, C, true, false);
}

// A mean that is large beside the spread cancels in one-pass formulas.
TEST(CudaNorm, LargeMean) {
    const int64_t C = 768;
    Values values = random_buffer(DType::F32, 1, C, 1, 1).values();
    for (double& value : values) value = static_cast<float>(1000 + value);
    const TestBuffer x(DType::F32, 1, C, values), weight(DType::F32, C, 1, Values(C, 1.0));
    const TestBuffer bias(DType::F32, C, 1, Values(C, 0.0)), out(DType::F32, 1, C), mean(DType::F32, 1),
        rstd(DType::F32, 1);
    run_on_cuda([&](Backend& b, auto on) {
        b.layernorm_forward(on(out), on(mean), on(rstd), on(x), on(weight), on(bias), kEpsilon);
    });
    double center = 0, variance = 0;
    for (const double value : values) center += value / C;
    for (const double value : values) variance += (value - center) * (value - center) / C;
    for (int64_t c = 0; c < C; ++c)
        EXPECT_NEAR(out.values()[c], (values[c] - center) / std::sqrt(variance + kEpsilon), 2e-4);
}

}  // namespace
}  // namespace llmc
