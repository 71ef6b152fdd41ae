// The gradient norm and AdamW against plain loops in double.
#include "tests/backend/backend_testing.h"

namespace llmc {
namespace {

constexpr int64_t kCount = 70003;  // More than one block; gaps between ranges are padding.
const std::vector<ParameterRange> kRanges = {{0, 1, true}, {64, 1000, false}, {2000, 67990, true}, {69995, 5, false}};

AdamWSettings settings_of(int64_t update, float grad_clip) {
    AdamWSettings settings;
    settings.learning_rate = 3e-3f / static_cast<float>(update);
    settings.weight_decay = 0.1f;
    settings.grad_clip = grad_clip;
    settings.update = update;
    return settings;
}

/// torch.optim.AdamW, step by step.
template <typename Real>
void plain_update(Values& p, Values& m, Values& v, const Values& gradients, const AdamWSettings& s, double norm) {
    const Real b1 = static_cast<Real>(s.beta1), b2 = static_cast<Real>(s.beta2);
    const Real scale = static_cast<Real>(s.grad_clip > 0 && norm > s.grad_clip ? s.grad_clip / norm : 1);
    const Real bias1 = static_cast<Real>(1 - std::pow(double{s.beta1}, static_cast<double>(s.update)));
    const Real bias2 = static_cast<Real>(1 - std::pow(double{s.beta2}, static_cast<double>(s.update)));
    const Real rate = static_cast<Real>(s.learning_rate);
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
struct State {
    explicit State(DType dtype_)
        : dtype(dtype_),
          parameters(dtype_, kCount),
          values(random_buffer(DType::F32, kCount, 1, 0.1, 1)),
          m(DType::F32, kCount, 1, Values(kCount, 0.0)),
          v(DType::F32, kCount, 1, Values(kCount, 0.0)),
          norm(DType::F64, 1) {
        parameters.set(values.values());
    }

    Values run(Backend& backend, int64_t update, float grad_clip) const {
        const Buffer gradients = random_buffer(DType::F32, kCount, 1, 0.01, 100 + static_cast<uint32_t>(update));
        const Buffer workspace = workspace_buffer(backend.global_norm_workspace(kCount));
        backend.global_norm(norm, gradients, workspace);
        const bool mixed = dtype == DType::BF16;
        backend.adamw(parameters, mixed ? values.tensor() : Tensor(), m, v, gradients, kRanges,
                      settings_of(update, grad_clip), norm);
        EXPECT_TRUE(workspace.intact() && gradients.intact());
        return gradients.values();
    }

    DType dtype;
    Buffer parameters, values, m, v, norm;  ///< `values` is the master where parameters are bf16.
};

TEST(AdamW, TenUpdates) {
    cpu::CpuBackend backend(2);
    for (const DType dtype : kActivationTypes)
        for (const float grad_clip : {0.0f, 0.5f, 1000.0f}) {
            SCOPED_TRACE(fmt::format("{} grad_clip={}", name_of(dtype), grad_clip));
            const State state(dtype);
            const Buffer& trained = dtype == DType::BF16 ? state.values : state.parameters;
            Values plain = trained.values(), plain_m(kCount, 0.0), plain_v(kCount, 0.0);
            Values exact = plain, exact_m = plain_m, exact_v = plain_v;
            for (int64_t update = 1; update <= 10; ++update) {
                const Values gradients = state.run(backend, update, grad_clip);
                const double norm = std::sqrt(dot(gradients, gradients));
                EXPECT_NEAR(state.norm.values()[0], norm, 1e-12 * norm);
                plain_update<float>(plain, plain_m, plain_v, gradients, settings_of(update, grad_clip), norm);
                plain_update<double>(exact, exact_m, exact_v, gradients, settings_of(update, grad_clip), norm);
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
        const State state(dtype), before(dtype);
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
            const State state(dtype);
            state.run(backend, 1, 0);
            const auto before = joined({&state.parameters, &state.values, &state.m, &state.v});
            Values values = random_buffer(DType::F32, kCount, 1, 1, 9).values();
            values[65000] = bad;
            const Buffer gradients(DType::F32, kCount, 1, values);
            const Buffer workspace = workspace_buffer(backend.global_norm_workspace(kCount));
            backend.global_norm(state.norm, gradients, workspace);
            EXPECT_FALSE(std::isfinite(state.norm.values()[0]));
            backend.adamw(state.parameters, dtype == DType::BF16 ? state.values.tensor() : Tensor(), state.m, state.v,
                          gradients, kRanges, settings_of(2, 1.0f), state.norm);
            EXPECT_TRUE(joined({&state.parameters, &state.values, &state.m, &state.v}) == before);
        }
}

// The squares of these neither fit in fp32 nor vanish.
TEST(AdamW, NormOfExtremeGradients) {
    cpu::CpuBackend backend(1);
    for (const double size : {1e30, 1e-30}) {
        const Buffer gradients(DType::F32, 4, 1, Values(4, size)), norm(DType::F64, 1);
        const Buffer workspace = workspace_buffer(backend.global_norm_workspace(4));
        backend.global_norm(norm, gradients, workspace);
        EXPECT_NEAR(norm.values()[0] / size, 2, 1e-6);
    }
}

TEST(AdamW, ThreadCountDoesNotMatter) {
    for (const DType dtype : kActivationTypes)
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            const State state(dtype);
            for (int64_t update = 1; update <= 3; ++update) state.run(backend, update, 0.5f);
            return joined({&state.parameters, &state.values, &state.m, &state.v, &state.norm});
        });
}

}  // namespace
}  // namespace llmc
