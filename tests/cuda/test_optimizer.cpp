// Sums between ranks, the gradient norm and AdamW against the CPU backend.
#include "tests/backend/norm_testing.h"
#include "tests/cuda/cuda_testing.h"

namespace llmc {
namespace {

using Ranges = std::vector<ParameterRange>;

constexpr int64_t kChunks = 547, kCount = kChunks * 128;  // More than one block; gaps between ranges are padding.
const Ranges kRanges = {{0, 1, true}, {64, 1000, false}, {2000, 67990, true}, {69995, 5, false}};

/// More than one launch takes.
Ranges many_ranges() {
    Ranges ranges;
    for (int64_t i = 0; i < 300; ++i) ranges.push_back({i * 200, 1 + i % 190, i % 2 == 0});
    return ranges;
}

AdamWSettings settings_of(int64_t update, float grad_clip) {
    AdamWSettings settings;
    settings.learning_rate = 3e-3f / static_cast<float>(update);
    settings.weight_decay = 0.1f;
    settings.grad_clip = grad_clip;
    settings.update = update;
    return settings;
}

/// Buffers of a training state with random parameters; all else is zero.
struct State {
    explicit State(DType dtype_)
        : dtype(dtype_),
          parameters(dtype_, kCount),
          values(random_buffer(DType::F32, kCount, 1, 0.1, 1)),
          m(DType::F32, kCount, 1, Values(kCount, 0.0)),
          v(DType::F32, kCount, 1, Values(kCount, 0.0)),
          norm(DType::F64, 1),
          sums(DType::F64, kChunks),
          pieces({kChunks}) {
        parameters.set(values.values());
        for (uint32_t i = 1; i <= 3; ++i) gradients.push_back(random_buffer(DType::F32, kCount, 1, 0.01, 100 + i));
    }

    void update(Backend& backend, auto on, const Buffer& gradient, const Ranges& ranges,
                const AdamWSettings& settings) const {
        norm_of(backend, on, norm, gradient, sums, pieces);
        backend.adamw(on(parameters), dtype == DType::BF16 ? on(values) : Tensor(), on(m), on(v), on(gradient), ranges,
                      settings, on(norm));
    }
    void train(Backend& backend, auto on, const Ranges& ranges, float grad_clip) const {
        for (int64_t i = 1; i <= 3; ++i) update(backend, on, gradients[i - 1], ranges, settings_of(i, grad_clip));
    }
    const Buffer& trained() const { return dtype == DType::BF16 ? values : parameters; }
    std::vector<std::byte> all() const { return joined({&parameters, &values, &m, &v}); }

    DType dtype;
    std::vector<Buffer> gradients;                        ///< Of the three updates.
    Buffer parameters, values, m, v, norm, sums, pieces;  ///< `values` is the master where parameters are bf16.
};

/// The CPU's result, up to a few roundings of fp32; exactly where nothing was to be changed.
void expect_like_cpu(const State& ours, const State& cpu, const Ranges& ranges) {
    EXPECT_NEAR(ours.norm.values()[0], cpu.norm.values()[0], 1e-12 * cpu.norm.values()[0]);
    expect_as_good_as_cpu(ours.trained(), cpu.trained(), cpu.trained());
    expect_as_good_as_cpu(ours.m, cpu.m, cpu.m);
    expect_as_good_as_cpu(ours.v, cpu.v, cpu.v);
    EXPECT_TRUE(ours.parameters.intact());
    std::vector<bool> inside(kCount, false);
    for (const ParameterRange& range : ranges) std::fill_n(inside.begin() + range.offset, range.count, true);
    const Values master = ours.values.values(), parameters = ours.parameters.values(), m = ours.m.values();
    const Values cpu_master = cpu.values.values(), cpu_parameters = cpu.parameters.values();
    for (int64_t i = 0; i < kCount; ++i) {
        if (inside[i]) {
            ASSERT_NE(m[i], 0) << i;
            if (ours.dtype == DType::BF16) {
                ASSERT_EQ(parameters[i], to_float(to_bf16(static_cast<float>(master[i])))) << i;
            }
        } else {
            ASSERT_EQ(m[i], 0) << i;
            ASSERT_EQ(parameters[i], cpu_parameters[i]) << i;
            ASSERT_EQ(master[i], cpu_master[i]) << i;
        }
    }
}

TEST(CudaAdamW, ThreeUpdates) {
    for (const DType dtype : kActivationTypes)
        for (const float grad_clip : {0.0f, 0.5f, 1000.0f}) {
            SCOPED_TRACE(fmt::format("{} grad_clip={}", name_of(dtype), grad_clip));
            const State cpu(dtype), ours(dtype);
            run_on_cpu([&](Backend& b, auto on) { cpu.train(b, on, kRanges, grad_clip); });
            run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, kRanges, grad_clip); });
            expect_like_cpu(ours, cpu, kRanges);
        }
}

TEST(CudaAdamW, ManyRanges) {
    const Ranges ranges = many_ranges();
    for (const DType dtype : kActivationTypes) {
        const State cpu(dtype), ours(dtype);
        run_on_cpu([&](Backend& b, auto on) { cpu.train(b, on, ranges, 1); });
        run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, ranges, 1); });
        expect_like_cpu(ours, cpu, ranges);
    }
}

TEST(CudaAdamW, SameBitsAtEverySeed) {
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_seed([&] {
            const State ours(dtype);
            run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, kRanges, 0.5f); });
            return joined({&ours.parameters, &ours.values, &ours.m, &ours.v, &ours.norm});
        });
}

TEST(CudaAdamW, NonFiniteNormChangesNothing) {
    for (const DType dtype : kActivationTypes)
        for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
            const State state(dtype);
            run_on_cpu([&](Backend& b, auto on) { state.train(b, on, kRanges, 0); });
            const std::vector<std::byte> before = state.all();
            Values values = random_buffer(DType::F32, kCount, 1, 1, 9).values();
            values[65000] = bad;
            const Buffer gradients(DType::F32, kCount, 1, values);
            run_on_cuda([&](Backend& b, auto on) { state.update(b, on, gradients, kRanges, settings_of(4, 1)); });
            EXPECT_FALSE(std::isfinite(state.norm.values()[0]));
            EXPECT_TRUE(state.all() == before);
        }
}

// ---- the gradient norm ------------------------------------------------------------------------------------------

TEST(CudaGradientNorm, SumsOfSquaresOfEveryChunkLength) {
    for (const int64_t chunk : kChunkLengths)
        for (const int64_t chunks : {1, 3, 10}) {
            SCOPED_TRACE(fmt::format("{} chunks of {}", chunks, chunk));
            const Buffer gradients = random_buffer(DType::F32, chunks, chunk, 0.01, 1);
            const Buffer ours(DType::F64, chunks), cpu(DType::F64, chunks);
            run_on_cuda([&](Backend& b, auto on) { b.square_sums(on(ours), on(gradients), chunk); });
            run_on_cpu([&](Backend& b, auto on) { b.square_sums(on(cpu), on(gradients), chunk); });
            for (int64_t i = 0; i < chunks; ++i)
                EXPECT_NEAR(ours.values()[i], cpu.values()[i], 1e-13 * cpu.values()[i]);
            EXPECT_TRUE(ours.intact());
        }
}

// Bits, not digits: alone, and among others.
TEST(CudaGradientNorm, ASumDependsOnItsChunkAlone) {
    for (const int64_t chunk : {128, 4096, 4224}) {
        constexpr int64_t kMany = 21;
        const Buffer gradients = random_buffer(DType::F32, kMany, chunk, 1, 1), sums(DType::F64, kMany);
        run_on_cuda([&](Backend& b, auto on) { b.square_sums(on(sums), on(gradients), chunk); });
        for (const int64_t i : {0, 9, 20}) {
            const Buffer sum(DType::F64, 1);
            run_on_cuda([&](Backend& b, auto on) { b.square_sums(on(sum), on(gradients).row_range(i, 1), chunk); });
            EXPECT_EQ(sum.values()[0], sums.values()[i]) << "chunk " << i << ", length " << chunk;
        }
    }
}

double norm_over_ranks(int64_t ranks, const std::vector<NormBucket>& buckets) {
    const NormOverRanks norm(ranks, buckets);
    run_on_cuda([&](Backend& b, auto on) { norm.run(b, on); });
    EXPECT_TRUE(norm.intact());
    return norm.norm();
}

TEST(CudaGradientNorm, SameBitsForEveryNumberOfRanks) {
    const std::vector<NormBucket> buckets = norm_buckets();
    const double one = norm_over_ranks(1, buckets);
    EXPECT_NEAR(one, plain_norm(buckets), 1e-12 * one);
    for (const int64_t ranks : {2, 3, 5}) EXPECT_EQ(norm_over_ranks(ranks, buckets), one) << ranks << " ranks";
}

TEST(CudaGradientNorm, SameBitsAtEverySeed) {
    const std::vector<NormBucket> buckets = norm_buckets();
    expect_same_bits_at_every_seed(
        [&] { return Buffer(DType::F64, 1, 1, Values{norm_over_ranks(2, buckets)}).bytes(); });
}

TEST(CudaGradientNorm, NonFiniteValuesShow) {
    const std::vector<NormBucket> good = norm_buckets();
    for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")})
        for (size_t bucket = 0; bucket < good.size(); ++bucket) {
            std::vector<NormBucket> buckets = good;
            buckets[bucket].gradients.back() = bad;
            const double norm = norm_over_ranks(3, buckets);
            EXPECT_TRUE(std::isnan(bad) ? std::isnan(norm) : std::isinf(norm)) << "bucket " << bucket;
        }
}

// The squares of these neither fit in fp32 nor vanish.
TEST(CudaGradientNorm, ExtremeGradients) {
    for (const double size : {1e30, 1e-30})
        for (const int64_t chunk : {256, 8192}) {
            const double norm = norm_over_ranks(1, {{chunk, Values(static_cast<size_t>(chunk), size)}});
            EXPECT_NEAR(norm / size, std::sqrt(chunk), 1e-6 * std::sqrt(chunk));
        }
}

// Tensors of any length; rows inside one need not begin at a multiple of 16 bytes.
TEST(CudaAdd, SameBitsAsCpu) {
    for (const int64_t count : {1, 4, 7, 1000, 5003})
        for (const int64_t first : {0, 1}) {
            const Buffer x = random_buffer(DType::F32, first + count, 1, 1, 2);
            const Buffer ours = random_buffer(DType::F32, first + count, 1, 1, 1), cpu = converted(DType::F32, ours);
            const auto add = [&](const Buffer& out) {
                return [&, first](Backend& b, auto on) {
                    b.add(on(out).row_range(first, count), on(x).row_range(first, count));
                };
            };
            run_on_cuda(add(ours));
            run_on_cpu(add(cpu));
            EXPECT_TRUE(ours.bytes() == cpu.bytes());
            EXPECT_TRUE(ours.intact() && x.intact());
        }
}

}  // namespace
}  // namespace llmc
