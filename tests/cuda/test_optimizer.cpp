// Sums between ranks, the gradient norm and the optimisers against the CPU backend.
#include "tests/backend/norm_testing.h"
#include "tests/backend/optimizer_testing.h"
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

OptimizerSettings settings_of(float grad_clip) {
    OptimizerSettings settings;
    settings.weight_decay = 0.1f;
    settings.grad_clip = grad_clip;
    return settings;
}

constexpr int64_t kUpdates = 10;

/// Buffers of a training state with random parameters; all else is zero.
struct OptimizerState {
    explicit OptimizerState(DType dtype_)
        : dtype(dtype_),
          parameters(dtype_, kCount),
          values(random_buffer(DType::F32, kCount, 1, 0.1, 1)),
          m(zeros(DType::F32, kCount)),
          v(zeros(DType::F32, kCount)),
          norm(DType::F64, 1),
          sums(DType::F64, kChunks),
          pieces({kChunks}),
          controls(controls_buffer(0, 0)),
          factors(DType::F32, kNumFactors) {
        parameters.set(values.values());
        for (uint32_t i = 1; i <= kUpdates; ++i)
            gradients.push_back(random_buffer(DType::F32, kCount, 1, 0.01, 100 + i));
    }

    /// The count of updates is the device's own.
    void update(Backend& backend, auto on, const TestBuffer& gradient, const Ranges& ranges, double learning_rate,
                const OptimizerSettings& settings) const {
        norm_of(backend, on, norm, gradient, sums, pieces);
        backend.copy_to_device(on(controls).row_range(static_cast<int64_t>(UpdateControl::LearningRate), 1),
                               &learning_rate);
        backend.begin_update(on(factors), on(controls), on(norm), settings);
        backend.update({on(parameters), dtype == DType::BF16 ? on(values) : Tensor(), on(m), on(v), on(gradient)},
                       ranges, settings, on(factors));
    }
    void train(Backend& backend, auto on, const Ranges& ranges, float grad_clip, int64_t updates = 3) const {
        for (int64_t i = 1; i <= updates; ++i)
            update(backend, on, gradients[static_cast<size_t>(i - 1)], ranges, 3e-3f / static_cast<float>(i),
                   settings_of(grad_clip));
    }
    const TestBuffer& trained() const { return dtype == DType::BF16 ? values : parameters; }
    std::vector<std::byte> all() const { return joined({&parameters, &values, &m, &v}); }

    DType dtype;
    std::vector<TestBuffer> gradients;                        ///< Of all updates.
    TestBuffer parameters, values, m, v, norm, sums, pieces;  ///< `values` is the master where parameters are bf16.
    TestBuffer controls, factors;
};

/// The CPU's result, up to a few roundings of fp32; exactly where nothing was to be changed.
void expect_like_cpu(const OptimizerState& ours, const OptimizerState& cpu, const Ranges& ranges) {
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

TEST(CudaAdamW, TenUpdates) {
    for (const DType dtype : kActivationTypes)
        for (const float grad_clip : {0.0f, 0.5f, 1000.0f}) {
            SCOPED_TRACE(fmt::format("{} grad_clip={}", name_of(dtype), grad_clip));
            const OptimizerState cpu(dtype), ours(dtype);
            run_on_cpu([&](Backend& b, auto on) { cpu.train(b, on, kRanges, grad_clip, kUpdates); });
            run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, kRanges, grad_clip, kUpdates); });
            expect_like_cpu(ours, cpu, kRanges);
            EXPECT_EQ(control(ours.controls, UpdateControl::Updates), kUpdates);
        }
}

TEST(CudaAdamW, ManyRanges) {
    const Ranges ranges = many_ranges();
    for (const DType dtype : kActivationTypes) {
        const OptimizerState cpu(dtype), ours(dtype);
        run_on_cpu([&](Backend& b, auto on) { cpu.train(b, on, ranges, 1); });
        run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, ranges, 1); });
        expect_like_cpu(ours, cpu, ranges);
    }
}

TEST(CudaAdamW, SameBitsAtEverySeed) {
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_seed([&] {
            const OptimizerState ours(dtype);
            run_on_cuda([&](Backend& b, auto on) { ours.train(b, on, kRanges, 0.5f); });
            return joined(
                {&ours.parameters, &ours.values, &ours.m, &ours.v, &ours.norm, &ours.controls, &ours.factors});
        });
}

TEST(CudaAdamW, NonFiniteNormChangesNothing) {
    for (const DType dtype : kActivationTypes)
        for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
            const OptimizerState state(dtype);
            run_on_cpu([&](Backend& b, auto on) { state.train(b, on, kRanges, 0); });
            const std::vector<std::byte> before = state.all();
            Values values = random_buffer(DType::F32, kCount, 1, 1, 9).values();
            values[65000] = bad;
            const TestBuffer gradients(DType::F32, kCount, 1, values);
            run_on_cuda([&](Backend& b, auto on) { state.update(b, on, gradients, kRanges, 1e-3f, settings_of(1)); });
            EXPECT_FALSE(std::isfinite(state.norm.values()[0]));
            EXPECT_EQ(factor(state.factors, Factor::Applies), 0);
            EXPECT_EQ(control(state.controls, UpdateControl::Updates), 3);
            EXPECT_TRUE(state.all() == before);
            // The next one is the fourth.
            const TestBuffer& next = state.gradients[3];
            run_on_cuda([&](Backend& b, auto on) { state.update(b, on, next, kRanges, 3e-3f / 4, settings_of(0)); });
            EXPECT_EQ(control(state.controls, UpdateControl::Updates), 4);
            EXPECT_FALSE(state.all() == before);
        }
}

// ---- what an update begins with ------------------------------------------------------------------------------------

TEST(CudaBeginUpdate, FactorsByHandAndAsOnCpu) {
    for (const UpdateStart& start : update_starts()) {
        SCOPED_TRACE(fmt::format("after {} updates, rate {}, clip {}, decay {}, norm {}", start.updates,
                                 start.learning_rate, start.grad_clip, start.weight_decay, start.norm));
        const TestBuffer norm(DType::F64, 1, 1, Values{start.norm});
        const TestBuffer controls = controls_buffer(start.learning_rate, start.updates),
                         factors(DType::F32, kNumFactors);
        const TestBuffer cpu_controls = converted(DType::F64, controls), cpu_factors(DType::F32, kNumFactors);
        const OptimizerSettings settings = start.settings();
        run_on_cuda([&](Backend& b, auto on) { b.begin_update(on(factors), on(controls), on(norm), settings); });
        run_on_cpu([&](Backend& b, auto on) { b.begin_update(on(cpu_factors), on(cpu_controls), on(norm), settings); });
        expect_factors(factors, start);
        EXPECT_TRUE(controls.bytes() == cpu_controls.bytes());
        EXPECT_EQ(control(controls, UpdateControl::Updates), start.updates + 1);
#ifdef LLMC_CUDA_ON_CPU  // A card has another power function, whose last digit may, rarely, turn a rounding.
        EXPECT_TRUE(factors.bytes() == cpu_factors.bytes());
#endif
    }
}

TEST(CudaBeginUpdate, OnlyFiniteNormsCount) {
    const double infinity = std::numeric_limits<double>::infinity();
    const TestBuffer controls = controls_buffer(1e-3f, 4);
    int64_t updates = 4;
    for (const double size : {0.5, std::nan(""), infinity, 2.0, -infinity, 0.25}) {
        const TestBuffer norm(DType::F64, 1, 1, Values{size}), factors(DType::F32, kNumFactors);
        const OptimizerSettings settings = settings_of(1);
        run_on_cuda([&](Backend& b, auto on) { b.begin_update(on(factors), on(controls), on(norm), settings); });
        updates += std::isfinite(size);
        EXPECT_EQ(factor(factors, Factor::Applies), std::isfinite(size)) << size;
        EXPECT_EQ(control(controls, UpdateControl::Updates), updates) << size;
        EXPECT_EQ(control(controls, UpdateControl::LearningRate), 1e-3f);
        EXPECT_TRUE(factors.intact() && controls.intact());
    }
}

// ---- the gradient norm ------------------------------------------------------------------------------------------

TEST(CudaGradientNorm, SumsOfSquaresOfEveryChunkLength) {
    for (const int64_t chunk : kChunkLengths)
        for (const int64_t chunks : {1, 3, 10}) {
            SCOPED_TRACE(fmt::format("{} chunks of {}", chunks, chunk));
            const TestBuffer gradients = random_buffer(DType::F32, chunks, chunk, 0.01, 1);
            const TestBuffer ours(DType::F64, chunks), cpu(DType::F64, chunks);
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
        const TestBuffer gradients = random_buffer(DType::F32, kMany, chunk, 1, 1), sums(DType::F64, kMany);
        run_on_cuda([&](Backend& b, auto on) { b.square_sums(on(sums), on(gradients), chunk); });
        for (const int64_t i : {0, 9, 20}) {
            const TestBuffer sum(DType::F64, 1);
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
        [&] { return TestBuffer(DType::F64, 1, 1, Values{norm_over_ranks(2, buckets)}).bytes(); });
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
            const TestBuffer x = random_buffer(DType::F32, first + count, 1, 1, 2);
            const TestBuffer ours = random_buffer(DType::F32, first + count, 1, 1, 1),
                             cpu = converted(DType::F32, ours);
            const auto add = [&](const TestBuffer& out) {
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
