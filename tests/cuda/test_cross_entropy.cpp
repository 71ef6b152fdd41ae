// Cross-entropy against the CPU backend.
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

struct Shape {
    int64_t n, V, Vp;
};

const Shape kShapes[] = {{1, 1, 1}, {5, 7, 8}, {37, 48, 64}, {5, 100, 100}, {3, 5000, 5120}, {2, 50257, 50304}};

/// Every third row is ignored.
std::vector<int32_t> make_targets(int64_t n, int64_t V) {
    std::vector<int32_t> targets = random_integers(n, V, 1);
    for (int64_t i = 2; i < n; i += 3) targets[i] = i % 2 == 0 ? -1 : -100;
    return targets;
}

struct Case {
    Case(DType dtype, const Shape& s)
        : V(s.V),
          targets(make_targets(s.n, s.V)),
          logits(random_buffer(dtype, s.n, s.Vp, 3, 2)),
          losses(DType::F32, s.n) {}

    template <typename On>
    void run(Backend& backend, On on, Tensor d_scale) const {
        backend.cross_entropy(on(losses), on(logits), on(targets), V, d_scale);
    }

    int64_t V;
    TestBuffer targets, logits, losses;
};

TEST(CudaCrossEntropy, AsGoodAsCpu) {
    const TestBuffer d_scale = scalar(0.37f);
    for (const DType dtype : kActivationTypes)
        for (const Shape& s : kShapes) {
            SCOPED_TRACE(fmt::format("{} n={} V={} Vp={}", name_of(dtype), s.n, s.V, s.Vp));
            const Case cpu(dtype, s), truth(DType::F32, s);
            truth.logits.set(cpu.logits.values());
            run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on, on(d_scale)); });
            run_on_cpu([&](Backend& b, auto on) { truth.run(b, on, on(d_scale)); });
            std::vector<std::byte> bits;
            cuda::for_each_seed([&] {
                const Case ours(dtype, s);
                const std::vector<std::byte> before = ours.logits.bytes();
                run_on_cuda([&](Backend& b, auto on) { ours.run(b, on, Tensor()); });
                EXPECT_TRUE(ours.logits.bytes() == before);
                const std::vector<std::byte> losses = ours.losses.bytes();
                run_on_cuda([&](Backend& b, auto on) { ours.run(b, on, on(d_scale)); });
                EXPECT_TRUE(ours.losses.bytes() == losses);
                expect_as_good_as_cpu(ours.losses, cpu.losses, truth.losses);
                expect_as_good_as_cpu(ours.logits, cpu.logits, truth.logits);
                const Values gradients = ours.logits.values();
                const int32_t* target = ours.targets.tensor().as<int32_t>();
                for (int64_t i = 0; i < s.n * s.Vp; ++i) {
                    if (target[i / s.Vp] < 0 || i % s.Vp >= s.V) {
                        ASSERT_EQ(gradients[i], 0) << i;
                    }
                }
                if (bits.empty()) bits = ours.logits.bytes();
                EXPECT_TRUE(ours.logits.bytes() == bits);
            });
        }
}

// The scale is read on the device, in the order of the calls. One of zero is a scale, not the absence of one.
TEST(CudaCrossEntropy, TheScaleLiesInMemory) {
    for (const DType dtype : kActivationTypes)
        for (const Shape& s : {kShapes[0], kShapes[1], kShapes[2], kShapes[3]}) {
            SCOPED_TRACE(fmt::format("{} n={} V={} Vp={}", name_of(dtype), s.n, s.V, s.Vp));
            const Case kept(dtype, s), one(dtype, s), quarter(dtype, s), none(dtype, s);
            const TestBuffer scale = scalar(1);
            run_on_cuda([&](Backend& b, auto on) {
                kept.run(b, on, Tensor());
                one.run(b, on, on(scale));
                const float less = 0.25f, nothing = 0;
                b.copy_to_device(on(scale), &less);
                quarter.run(b, on, on(scale));
                b.copy_to_device(on(scale), &nothing);
                none.run(b, on, on(scale));
            });
            for (const Case* c : {&one, &quarter, &none}) EXPECT_TRUE(c->losses.bytes() == kept.losses.bytes());
            EXPECT_TRUE(kept.logits.bytes() == Case(dtype, s).logits.bytes());
            EXPECT_EQ(largest_magnitude(none.logits.values()), 0);
            Values expected = one.logits.values();
            EXPECT_GT(largest_magnitude(expected), s.V > 1 ? 0.1 : -1);
            for (double& value : expected) value /= 4;  // Which changes no digit, except of the smallest numbers.
            EXPECT_LE(largest_error(quarter.logits.values(), expected), 0x1p-125);
            EXPECT_TRUE(scale.intact());
        }
}

TEST(CudaCrossEntropy, HugeAndMaskedLogits) {
    const double infinity = std::numeric_limits<double>::infinity();
    const TestBuffer logits(DType::F32, 3, 4,
                            Values{1e30, -1e30, 5, 0,            // All on the target.
                                   -2e4, -2e4, -infinity, -2e4,  // One masked out.
                                   20000, 20000, 20000, 19990});
    const TestBuffer targets(std::vector<int32_t>{0, 1, 3}), losses(DType::F32, 3);
    const TestBuffer one = scalar(1);
    run_on_cuda([&](Backend& b, auto on) { b.cross_entropy(on(losses), on(logits), on(targets), 4, on(one)); });
    const double tail = std::exp(-10.0), sum = 3 + tail;
    EXPECT_LE(largest_error(losses.values(), {0, std::log(3.0), std::log(sum) + 10}), 1e-6);
    EXPECT_LE(largest_error(logits.values(),
                            {0, 0, 0, 0, 1 / 3.0, 1 / 3.0 - 1, 0, 1 / 3.0, 1 / sum, 1 / sum, 1 / sum, tail / sum - 1}),
              1e-6);
}

// Threads whose columns are all masked out, and a NaN that must not be lost.
TEST(CudaCrossEntropy, LongRows) {
    const int64_t V = 10000;
    Values row = random_buffer(DType::F32, 1, V, 1, 1).values();
    std::fill(row.begin(), row.begin() + 5000, -std::numeric_limits<double>::infinity());
    const TestBuffer logits(DType::F32, 1, V, row), targets(std::vector<int32_t>{7777}), losses(DType::F32, 1);
    const auto run = [&](Backend& b, auto on) { b.cross_entropy(on(losses), on(logits), on(targets), V, Tensor()); };
    run_on_cpu(run);
    const double expected = losses.values()[0];
    run_on_cuda(run);
    EXPECT_NEAR(losses.values()[0], expected, 2e-6);
    row[9000] = std::nan("");
    logits.set(row);
    run_on_cuda(run);
    EXPECT_TRUE(std::isnan(losses.values()[0]));
}

TEST(CudaCrossEntropy, AccumulateLoss) {
    for (const int64_t n : {1, 31, 1025, 10001}) {
        const TestBuffer losses = random_buffer(DType::F32, 1, n, 5, 1);
        double expected = 123.25;
        for (const double loss : losses.values()) expected += loss;
        expect_same_bits_at_every_seed([&] {
            const TestBuffer total(DType::F64, 1, 1, Values{123.25});
            run_on_cuda([&](Backend& b, auto on) { b.accumulate_loss(on(total), true, on(losses)); });
            EXPECT_NEAR(total.values()[0], expected, 1e-9);
            return total.bytes();
        });
    }
}

TEST(CudaCrossEntropy, WritingALossIsAddingToZero) {
    for (const int64_t n : {1, 31, 1025, 10001}) {
        const TestBuffer losses = random_buffer(DType::F32, 1, n, 5, 1), more = random_buffer(DType::F32, 1, n, 5, 2);
        const TestBuffer added = zeros(DType::F64, 1), written(DType::F64, 1), second(DType::F64, 1);
        const TestBuffer both(DType::F64, 1);
        run_on_cuda([&](Backend& b, auto on) {
            b.accumulate_loss(on(added), true, on(losses));
            b.accumulate_loss(on(written), false, on(losses));
            b.accumulate_loss(on(second), false, on(more));
            b.accumulate_loss(on(both), false, on(losses));
            b.accumulate_loss(on(both), true, on(more));
        });
        EXPECT_TRUE(same_values(written, added));
        EXPECT_EQ(both.values()[0], written.values()[0] + second.values()[0]);
        EXPECT_TRUE(written.intact() && both.intact());
    }
}

}  // namespace
}  // namespace llmc
