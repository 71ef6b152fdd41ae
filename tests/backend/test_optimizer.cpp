// Sums between ranks, the gradient norm and the optimisers against plain loops in double.
#include "tests/backend/norm_testing.h"
#include "tests/backend/optimizer_testing.h"

namespace llmc {
namespace {

constexpr int64_t kChunks = 547, kCount = kChunks * 128;  // More than one block; gaps between ranges are padding.
const std::vector<ParameterRange> kRanges = {{0, 1, true}, {64, 1000, false}, {2000, 67990, true}, {69995, 5, false}};

OptimizerSettings settings_of(float grad_clip) {
    OptimizerSettings settings;
    settings.weight_decay = 0.1f;
    settings.grad_clip = grad_clip;
    return settings;
}

float learning_rate_of(int64_t update) { return 3e-3f / static_cast<float>(update); }

/// torch.optim.AdamW, step by step. `update` counts from 1.
template <typename Real>
void plain_update(Values& p, Values& m, Values& v, const Values& gradients, const OptimizerSettings& s, int64_t update,
                  double norm) {
    const Real b1 = static_cast<Real>(s.beta1), b2 = static_cast<Real>(s.beta2);
    const Real scale = static_cast<Real>(s.grad_clip > 0 && norm > s.grad_clip ? s.grad_clip / norm : 1);
    const Real bias1 = static_cast<Real>(1 - std::pow(double{s.beta1}, static_cast<double>(update)));
    const Real bias2 = static_cast<Real>(1 - std::pow(double{s.beta2}, static_cast<double>(update)));
    const Real rate = static_cast<Real>(learning_rate_of(update));
    for (const ParameterRange& range : kRanges)
        for (int64_t i = range.offset; i < range.offset + range.count; ++i) {
            const Real g = static_cast<Real>(gradients[i]) * scale;
            Real value = static_cast<Real>(p[i]);
            if (range.decay) value *= 1 - rate * static_cast<Real>(s.weight_decay);
            const Real mean = b1 * static_cast<Real>(m[i]) + (1 - b1) * g;
            const Real square = b2 * static_cast<Real>(v[i]) + (1 - b2) * g * g;
            value -= rate / bias1 * mean / (std::sqrt(square) / std::sqrt(bias2) + static_cast<Real>(s.epsilon));
            p[i] = value;
            m[i] = mean;
            v[i] = square;
        }
}

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
    }

    void make_norm(Backend& backend, const TestBuffer& gradients) const {
        norm_of(
            backend, [](const TestBuffer& buffer) { return buffer.tensor(); }, norm, gradients, sums, pieces);
    }

    /// The count of updates is the device's own.
    void apply(Backend& backend, const TestBuffer& gradients, float learning_rate, float grad_clip) const {
        make_norm(backend, gradients);
        controls.tensor().as<double>()[static_cast<size_t>(UpdateControl::LearningRate)] = learning_rate;
        backend.begin_update(factors, controls, norm, settings_of(grad_clip));
        backend.update({parameters, dtype == DType::BF16 ? values.tensor() : Tensor(), m, v, gradients}, kRanges,
                       settings_of(grad_clip), factors);
        EXPECT_TRUE(sums.intact() && gradients.intact() && controls.intact() && factors.intact());
    }

    Values run(Backend& backend, int64_t update, float grad_clip) const {
        const TestBuffer gradients = random_buffer(DType::F32, kCount, 1, 0.01, 100 + static_cast<uint32_t>(update));
        const Values before = gradients.values();
        apply(backend, gradients, learning_rate_of(update), grad_clip);
        EXPECT_TRUE(gradients.values() == before);
        EXPECT_EQ(control(controls, UpdateControl::Updates), update);
        return before;
    }

    std::vector<std::byte> all() const { return joined({&parameters, &values, &m, &v}); }

    DType dtype;
    TestBuffer parameters, values, m, v, norm, sums, pieces;  ///< `values` is the master where parameters are bf16.
    TestBuffer controls, factors;
};

TEST(AdamW, TenUpdates) {
    cpu::CpuBackend backend(2);
    for (const DType dtype : kActivationTypes)
        for (const float grad_clip : {0.0f, 0.5f, 1000.0f}) {
            SCOPED_TRACE(fmt::format("{} grad_clip={}", name_of(dtype), grad_clip));
            const OptimizerState state(dtype);
            const TestBuffer& trained = dtype == DType::BF16 ? state.values : state.parameters;
            Values plain = trained.values(), plain_m(kCount, 0.0), plain_v(kCount, 0.0);
            Values exact = plain, exact_m = plain_m, exact_v = plain_v;
            for (int64_t update = 1; update <= 10; ++update) {
                const Values gradients = state.run(backend, update, grad_clip);
                const double norm = std::sqrt(dot(gradients, gradients));
                EXPECT_NEAR(state.norm.values()[0], norm, 1e-12 * norm);
                plain_update<float>(plain, plain_m, plain_v, gradients, settings_of(grad_clip), update, norm);
                plain_update<double>(exact, exact_m, exact_v, gradients, settings_of(grad_clip), update, norm);
            }
            expect_as_good_as_plain(trained, plain, exact);
            expect_as_good_as_plain(state.m, plain_m, exact_m);
            expect_as_good_as_plain(state.v, plain_v, exact_v);
            if (dtype == DType::BF16) {  // Inside the ranges, the rounded master.
                const Values master = state.values.values(), rounded = state.parameters.values();
                for (int64_t i = 2000; i < 69990; ++i)
                    ASSERT_EQ(rounded[i], to_float(to_bf16(static_cast<float>(master[i])))) << i;
                EXPECT_TRUE(state.parameters.intact());
            }
        }
}

TEST(AdamW, PaddingIsUntouched) {
    cpu::CpuBackend backend(2);
    for (const DType dtype : kActivationTypes) {
        const OptimizerState state(dtype), before(dtype);
        state.run(backend, 1, 1.0f);
        std::vector<bool> inside(kCount, false);
        for (const ParameterRange& range : kRanges) std::fill_n(inside.begin() + range.offset, range.count, true);
        const Values now = state.parameters.values(), then = before.parameters.values();
        const Values master = state.values.values(), master_then = before.values.values(), m = state.m.values();
        for (int64_t i = 0; i < kCount; ++i) {
            if (inside[i]) {
                ASSERT_NE(m[i], 0) << i;
                continue;
            }
            ASSERT_EQ(now[i], then[i]) << i;
            ASSERT_EQ(master[i], master_then[i]) << i;
            ASSERT_EQ(m[i], 0) << i;
        }
    }
}

TEST(AdamW, NonFiniteNormChangesNothing) {
    cpu::CpuBackend backend(2);
    for (const DType dtype : kActivationTypes)
        for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
            const OptimizerState state(dtype), never_failed(dtype);
            state.run(backend, 1, 0);
            const auto before = state.all();
            Values values = random_buffer(DType::F32, kCount, 1, 1, 9).values();
            values[65000] = bad;
            state.apply(backend, TestBuffer(DType::F32, kCount, 1, values), 1e-3f, 1.0f);
            EXPECT_FALSE(std::isfinite(state.norm.values()[0]));
            EXPECT_EQ(factor(state.factors, Factor::Applies), 0);
            EXPECT_TRUE(state.all() == before);
            // The next one goes on as if nothing had been.
            state.run(backend, 2, 0.5f);
            never_failed.run(backend, 1, 0);
            never_failed.run(backend, 2, 0.5f);
            EXPECT_TRUE(state.all() == never_failed.all());
        }
}

TEST(AdamW, ThreadCountDoesNotMatter) {
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            const OptimizerState state(dtype);
            for (int64_t update = 1; update <= 3; ++update) state.run(backend, update, 0.5f);
            return joined(
                {&state.parameters, &state.values, &state.m, &state.v, &state.norm, &state.controls, &state.factors});
        });
}

// ---- what an update begins with ------------------------------------------------------------------------------------

TEST(BeginUpdate, FactorsByHand) {
    cpu::CpuBackend backend(2);
    for (const UpdateStart& start : update_starts()) {
        SCOPED_TRACE(fmt::format("after {} updates, rate {}, clip {}, decay {}, norm {}", start.updates,
                                 start.learning_rate, start.grad_clip, start.weight_decay, start.norm));
        const TestBuffer controls = controls_buffer(start.learning_rate, start.updates);
        const TestBuffer norm(DType::F64, 1, 1, Values{start.norm}), factors(DType::F32, kNumFactors);
        backend.begin_update(factors, controls, norm, start.settings());
        expect_factors(factors, start);
        EXPECT_EQ(control(controls, UpdateControl::Updates), start.updates + 1);
        EXPECT_EQ(control(controls, UpdateControl::LearningRate), start.learning_rate);
        EXPECT_EQ(norm.values()[0], start.norm);
        EXPECT_TRUE(controls.intact() && norm.intact());
    }
}

TEST(BeginUpdate, OnlyFiniteNormsCount) {
    cpu::CpuBackend backend(1);
    const double infinity = std::numeric_limits<double>::infinity();
    const TestBuffer controls = controls_buffer(1e-3f, 4), norm(DType::F64, 1), factors(DType::F32, kNumFactors);
    int64_t updates = 4;
    for (const double size : {0.5, std::nan(""), infinity, 2.0, -infinity, 0.25}) {
        norm.set({size});
        backend.begin_update(factors, controls, norm, UpdateStart{.grad_clip = 1}.settings());
        updates += std::isfinite(size);
        EXPECT_EQ(factor(factors, Factor::Applies), std::isfinite(size)) << size;
        EXPECT_EQ(control(controls, UpdateControl::Updates), updates) << size;
        EXPECT_EQ(control(controls, UpdateControl::LearningRate), 1e-3f);
    }
}

// ---- the gradient norm ------------------------------------------------------------------------------------------

Tensor itself(const TestBuffer& buffer) { return buffer.tensor(); }

TEST(GradientNorm, SumsOfSquaresOfEveryChunkLength) {
    cpu::CpuBackend backend(2);
    for (const int64_t chunk : kChunkLengths)
        for (const int64_t chunks : {1, 3, 10}) {
            SCOPED_TRACE(fmt::format("{} chunks of {}", chunks, chunk));
            const TestBuffer gradients = random_buffer(DType::F32, chunks, chunk, 0.01, 1), sums(DType::F64, chunks);
            backend.square_sums(sums, gradients, chunk);
            const Values x = gradients.values(), ours = sums.values();
            for (int64_t i = 0; i < chunks; ++i) {
                const Values row(x.begin() + i * chunk, x.begin() + (i + 1) * chunk);
                EXPECT_NEAR(ours[i], dot(row, row), 1e-12 * ours[i]);
            }
            EXPECT_TRUE(sums.intact() && gradients.intact());
        }
}

// Bits, not digits: alone, at another address and with another number of threads.
TEST(GradientNorm, ASumDependsOnItsChunkAlone) {
    cpu::CpuBackend backend(3);
    for (const int64_t chunk : kChunkLengths) {
        const int64_t chunks = 1 + (1 << 20) / chunk;
        const TestBuffer gradients = random_buffer(DType::F32, chunks, chunk, 1, 1), sums(DType::F64, chunks);
        backend.square_sums(sums, gradients, chunk);
        cpu::CpuBackend another(1);
        for (const int64_t i : {int64_t{0}, chunks / 2, chunks - 1}) {
            const TestBuffer moved(DType::F32, chunk + 1), sum(DType::F64, 1);
            float* const row = moved.tensor().as<float>() + 1;
            std::copy_n(gradients.tensor().as<float>() + i * chunk, chunk, row);
            another.square_sums(sum, Tensor(DType::F32, row, chunk), chunk);
            EXPECT_EQ(sum.values()[0], sums.values()[i]) << "chunk " << i << " of " << chunks << ", length " << chunk;
        }
    }
}

TEST(GradientNorm, SameBitsForEveryNumberOfRanks) {
    cpu::CpuBackend backend(2);
    const std::vector<NormBucket> buckets = norm_buckets();
    const NormOverRanks one(1, buckets);
    one.run(backend, itself);
    EXPECT_NEAR(one.norm(), plain_norm(buckets), 1e-12 * one.norm());
    for (const int64_t ranks : {2, 3, 5, 8}) {
        const NormOverRanks many(ranks, buckets);
        many.run(backend, itself);
        EXPECT_EQ(many.norm(), one.norm()) << ranks << " ranks";
        EXPECT_TRUE(many.intact());
    }
}

TEST(GradientNorm, ThreadCountDoesNotMatter) {
    const std::vector<NormBucket> buckets = norm_buckets();
    expect_same_bits_at_every_thread_count([&](Backend& backend) {
        const NormOverRanks norm(2, buckets);
        norm.run(backend, itself);
        const TestBuffer result(DType::F64, 1, 1, Values{norm.norm()});
        return result.bytes();
    });
}

// Wherever it stands, also in a block of another thread.
TEST(GradientNorm, NonFiniteValuesShow) {
    cpu::CpuBackend backend(2);
    const std::vector<NormBucket> good = norm_buckets();
    for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")})
        for (size_t bucket = 0; bucket < good.size(); ++bucket)
            for (const bool last : {false, true}) {
                std::vector<NormBucket> buckets = good;
                (last ? buckets[bucket].gradients.back() : buckets[bucket].gradients.front()) = bad;
                const NormOverRanks norm(3, buckets);
                norm.run(backend, itself);
                EXPECT_EQ(std::isnan(bad), std::isnan(norm.norm()));
                EXPECT_FALSE(std::isfinite(norm.norm())) << "bucket " << bucket;
            }
}

// The squares of these neither fit in fp32 nor vanish.
TEST(GradientNorm, ExtremeGradients) {
    cpu::CpuBackend backend(1);
    for (const double size : {1e30, 1e-30}) {
        const NormOverRanks norm(1, {{128, Values(256, size)}});
        norm.run(backend, itself);
        EXPECT_NEAR(norm.norm() / size, 16, 1e-6);
    }
}

TEST(Add, AddsInSinglePrecision) {
    for (const int threads : {1, 2}) {
        cpu::CpuBackend backend(threads);
        for (const int64_t count : {1, 7, 1000, 300001}) {
            const TestBuffer out = random_buffer(DType::F32, count, 1, 1, 1),
                             x = random_buffer(DType::F32, count, 1, 1, 2);
            const Values before = out.values(), addend = x.values();
            backend.add(out, x);
            for (int64_t i = 0; i < count; ++i)
                ASSERT_EQ(out.tensor().as<float>()[i], static_cast<float>(before[i]) + static_cast<float>(addend[i]));
            EXPECT_TRUE(out.intact() && x.intact());
            EXPECT_TRUE(x.values() == addend);
        }
    }
}

}  // namespace
}  // namespace llmc
