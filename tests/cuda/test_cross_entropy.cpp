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
    void run(Backend& backend, On on, float d_scale) const {
        backend.cross_entropy(on(losses), on(logits), on(targets), V, d_scale);
    }

    int64_t V;
    Buffer targets, logits, losses;
};

TEST(CudaCrossEntropy, AsGoodAsCpu) {
    const float d_scale = 0.37f;
    for (const DType dtype : kActivationTypes)
        for (const Shape& s : kShapes) {
            SCOPED_TRACE(fmt::format("{} n={} V={} Vp={}", name_of(dtype), s.n, s.V, s.Vp));
            const Case cpu(dtype, s), truth(DType::F32, s);
            truth.logits.set(cpu.logits.values());
            run_on_cpu([&](Backend& b, auto on) { cpu.run(b, on, d_scale); });
            run_on_cpu([&](Backend& b, auto on) { truth.run(b, on, d_scale); });
            std::vector<std::byte> bits;
            cuda::for_each_seed([&] {
                const Case ours(dtype, s);
                const std::vector<std::byte> before = ours.logits.bytes();
                run_on_cuda([&](Backend& b, auto on) { ours.run(b, on, 0); });
                EXPECT_TRUE(ours.logits.bytes() == before);
                const std::vector<std::byte> losses = ours.losses.bytes();
                run_on_cuda([&](Backend& b, auto on) { ours.run(b, on, d_scale); });
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

TEST(CudaCrossEntropy, HugeAndMaskedLogits) {
    const double infinity = std::numeric_limits<double>::infinity();
    const Buffer logits(DType::F32, 3, 4,
                        Values{1e30, -1e30, 5, 0,            // All on the target.
                               -2e4, -2e4, -infinity, -2e4,  // One masked out.
                               20000, 20000, 20000, 19990});
    const Buffer targets(std::vector<int32_t>{0, 1, 3}), losses(DType::F32, 3);
    run_on_cuda([&](Backend& b, auto on) { b.cross_entropy(on(losses), on(logits), on(targets), 4, 1.0f); });
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
    const Buffer logits(DType::F32, 1, V, row), targets(std::vector<int32_t>{7777}), losses(DType::F32, 1);
    const auto run = [&](Backend& b, auto on) { b.cross_entropy(on(losses), on(logits), on(targets), V, 0); };
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
        const Buffer losses = random_buffer(DType::F32, 1, n, 5, 1);
        double expected = 123.25;
        for (const double loss : losses.values()) expected += loss;
        expect_same_bits_at_every_seed([&] {
            const Buffer total(DType::F64, 1, 1, Values{123.25});
            run_on_cuda([&](Backend& b, auto on) { b.accumulate_loss(on(total), on(losses)); });
            EXPECT_NEAR(total.values()[0], expected, 1e-9);
            return total.bytes();
        });
    }
}

}  // namespace
}  // namespace llmc
