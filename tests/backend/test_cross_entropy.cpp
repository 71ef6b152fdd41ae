// Cross-entropy against plain loops in double and against finite differences.
#include "tests/backend/backend_testing.h"

namespace llmc {
namespace {

/// Loss of one row of V logits.
template <typename Real>
double row_loss(const double* logits, int64_t V, int32_t target) {
    Real largest = logits[0], sum = 0;
    for (int64_t v = 0; v < V; ++v) largest = std::max(largest, static_cast<Real>(logits[v]));
    for (int64_t v = 0; v < V; ++v) sum += std::exp(static_cast<Real>(logits[v]) - largest);
    return std::log(sum) + largest - static_cast<Real>(logits[target]);
}

struct Expected {
    Values losses, d_logits;
};

template <typename Real>
Expected cross_entropy(const Values& logits, const std::vector<int32_t>& targets, int64_t V, int64_t Vp, Real d_scale) {
    Expected result{Values(targets.size(), 0.0), Values(logits.size(), 0.0)};
    for (size_t n = 0; n < targets.size(); ++n) {
        if (targets[n] < 0) continue;
        const double* row = &logits[n * Vp];
        result.losses[n] = row_loss<Real>(row, V, targets[n]);
        const Real lse = static_cast<Real>(result.losses[n]) + static_cast<Real>(row[targets[n]]);
        for (int64_t v = 0; v < V; ++v)
            result.d_logits[n * Vp + v] = (std::exp(static_cast<Real>(row[v]) - lse) - (v == targets[n])) * d_scale;
    }
    return result;
}

struct Shape {
    int64_t n, V, Vp;
};

const Shape kShapes[] = {{1, 1, 1}, {5, 7, 8}, {37, 48, 64}, {5, 100, 100}, {3, 5000, 5120}, {2, 50257, 50304}};

void for_each_shape(const std::function<void(DType, const Shape&)>& test) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& shape : kShapes) {
            SCOPED_TRACE(fmt::format("{} n={} V={} Vp={}", name_of(dtype), shape.n, shape.V, shape.Vp));
            test(dtype, shape);
        }
}

/// Every third row is ignored.
std::vector<int32_t> make_targets(int64_t n, int64_t V) {
    std::vector<int32_t> targets = random_integers(n, V, 1);
    for (int64_t i = 2; i < n; i += 3) targets[i] = i % 2 == 0 ? -1 : -100;
    return targets;
}

void expect_zero(const Values& rows, int64_t row, int64_t Vp, int64_t begin) {
    for (int64_t v = begin; v < Vp; ++v) EXPECT_EQ(rows[row * Vp + v], 0) << row << ", " << v;
}

TEST(CrossEntropy, LossAndGradient) {
    cpu::CpuBackend backend(2);
    const float d_scale = 0.37f;
    const TestBuffer scale = scalar(d_scale);
    for_each_shape([&](DType dtype, const Shape& s) {
        const std::vector<int32_t> target = make_targets(s.n, s.V);
        const TestBuffer targets(target), logits = random_buffer(dtype, s.n, s.Vp, 3, 2), losses(DType::F32, s.n);
        const Expected exact = cross_entropy<double>(logits.values(), target, s.V, s.Vp, d_scale);
        const Expected plain = cross_entropy<float>(logits.values(), target, s.V, s.Vp, d_scale);
        const std::vector<std::byte> before = logits.bytes();

        backend.cross_entropy(losses, logits, targets, s.V, Tensor());
        EXPECT_TRUE(logits.bytes() == before);
        expect_as_good_as_plain(losses, plain.losses, exact.losses);
        for (int64_t n = 0; n < s.n; ++n)
            EXPECT_NEAR(losses.values()[n], exact.losses[n], 3e-7 * std::fabs(exact.losses[n]) + 1e-6);
        const std::vector<std::byte> loss_bytes = losses.bytes();

        backend.cross_entropy(losses, logits, targets, s.V, scale);
        EXPECT_TRUE(losses.bytes() == loss_bytes);
        expect_as_good_as_plain(logits, plain.d_logits, exact.d_logits);
        for (int64_t n = 0; n < s.n; ++n) expect_zero(logits.values(), n, s.Vp, target[n] < 0 ? 0 : s.V);
        EXPECT_TRUE(scale.intact());
    });
}

// The scale is read where it lies, at the time of the call. One of zero is a scale, not the absence of one.
TEST(CrossEntropy, TheScaleLiesInMemory) {
    cpu::CpuBackend backend(2);
    const TestBuffer scale = scalar(1);
    for_each_shape([&](DType dtype, const Shape& s) {
        const TestBuffer targets(make_targets(s.n, s.V)), losses(DType::F32, s.n), kept(DType::F32, s.n);
        backend.cross_entropy(kept, random_buffer(dtype, s.n, s.Vp, 3, 2), targets, s.V, Tensor());
        Values gradient_of_one;
        for (const double factor : {1.0, 0.25, -8.0, 0.0}) {
            const TestBuffer logits = random_buffer(dtype, s.n, s.Vp, 3, 2);
            scale.set({factor});
            backend.cross_entropy(losses, logits, targets, s.V, scale);
            EXPECT_TRUE(losses.bytes() == kept.bytes());
            Values ours = logits.values();
            if (gradient_of_one.empty()) gradient_of_one = ours;
            if (factor == 0) {
                EXPECT_TRUE(ours == Values(ours.size(), 0.0));
            }
            // Powers of two change no digit of a gradient, except of the smallest ones.
            for (size_t i = 0; i < ours.size(); ++i) ASSERT_NEAR(ours[i], factor * gradient_of_one[i], 0x1p-125) << i;
            EXPECT_TRUE(logits.intact() && scale.intact());
        }
    });
}

TEST(CrossEntropy, GradientIsDerivative) {
    const int64_t V = 9;
    const std::vector<int32_t> targets = {4, 0, -1};
    const Values logits = random_buffer(DType::F32, 3, V, 2, 1).values();
    const auto loss = [&](const Values& at) { return row_loss<double>(&at[0], V, 4) + row_loss<double>(&at[V], V, 0); };
    expect_is_derivative(cross_entropy<double>(logits, targets, V, V, 1.0).d_logits, loss, logits);
}

TEST(CrossEntropy, HugeAndMaskedLogits) {
    cpu::CpuBackend backend(1);
    const double infinity = std::numeric_limits<double>::infinity();
    const TestBuffer logits(DType::F32, 3, 4,
                            Values{1e30, -1e30, 5, 0,            // All on the target.
                                   -2e4, -2e4, -infinity, -2e4,  // One masked out.
                                   20000, 20000, 20000, 19990});
    const TestBuffer targets(std::vector<int32_t>{0, 1, 3}), losses(DType::F32, 3);
    backend.cross_entropy(losses, logits, targets, 4, scalar(1));
    const double tail = std::exp(-10.0), sum = 3 + tail;
    EXPECT_LE(largest_error(losses.values(), {0, std::log(3.0), std::log(sum) + 10}), 1e-6);
    EXPECT_LE(largest_error(logits.values(),
                            {0, 0, 0, 0, 1 / 3.0, 1 / 3.0 - 1, 0, 1 / 3.0, 1 / sum, 1 / sum, 1 / sum, tail / sum - 1}),
              1e-6);
}

// The chunks of a long row: a first one that holds nothing, and a NaN that must not be lost in a later one.
TEST(CrossEntropy, LongRows) {
    cpu::CpuBackend backend(1);
    const int64_t V = 10000;
    Values row = random_buffer(DType::F32, 1, V, 1, 1).values();
    std::fill(row.begin(), row.begin() + 5000, -std::numeric_limits<double>::infinity());
    const TestBuffer logits(DType::F32, 1, V, row), targets(std::vector<int32_t>{7777}), losses(DType::F32, 1);
    backend.cross_entropy(losses, logits, targets, V, Tensor());
    EXPECT_NEAR(losses.values()[0], row_loss<double>(row.data() + 5000, V - 5000, 2777), 2e-6);
    row[9000] = std::nan("");
    logits.set(row);
    backend.cross_entropy(losses, logits, targets, V, Tensor());
    EXPECT_TRUE(std::isnan(losses.values()[0]));
}

TEST(CrossEntropy, AccumulateLoss) {
    cpu::CpuBackend backend(2);
    const TestBuffer losses = random_buffer(DType::F32, 1, 10001, 5, 1), total(DType::F64, 1, 1, Values{123.25});
    double expected = 123.25;
    for (const double loss : losses.values()) expected += loss;
    backend.accumulate_loss(total, true, losses);
    EXPECT_NEAR(total.values()[0], expected, 1e-9);
    EXPECT_TRUE(total.intact());
}

TEST(CrossEntropy, WritingALossIsAddingToZero) {
    cpu::CpuBackend backend(2);
    for (const int64_t n : {1, 31, 1025, 10001}) {
        const TestBuffer losses = random_buffer(DType::F32, 1, n, 5, 1), more = random_buffer(DType::F32, 1, n, 5, 2);
        const TestBuffer added = zeros(DType::F64, 1), written(DType::F64, 1), second(DType::F64, 1);
        backend.accumulate_loss(added, true, losses);
        backend.accumulate_loss(written, false, losses);
        EXPECT_TRUE(same_values(written, added));
        backend.accumulate_loss(second, false, more);
        backend.accumulate_loss(written, true, more);
        EXPECT_EQ(written.values()[0], added.values()[0] + second.values()[0]);
        EXPECT_TRUE(written.intact());
    }
}

TEST(CrossEntropy, ThreadCountDoesNotMatter) {
    const Shape shapes[] = {{999, 250, 256}, {9, 50257, 50304}};
    for (const DType dtype : kActivationTypes)
        for (const auto& [n, V, Vp] : shapes)
            expect_same_bits_at_every_thread_count([&, n = n, V = V, Vp = Vp](Backend& backend) {
                const TestBuffer targets(make_targets(n, V)), logits = random_buffer(dtype, n, Vp, 2, 2);
                const TestBuffer losses(DType::F32, n), total(DType::F64, 1, 1, Values{0});
                backend.cross_entropy(losses, logits, targets, V, scalar(0.01f));
                backend.accumulate_loss(total, true, losses);
                return joined({&losses, &logits, &total});
            });
}

}  // namespace
}  // namespace llmc
