// The optimisers with state in less than fp32 against plain loops: every format of parameters, moments and gradients.
#include "tests/backend/formats_testing.h"

#include <optional>

namespace llmc {
namespace {

Tensor itself(const TestBuffer& buffer) { return buffer.tensor(); }

/// What is kept between updates, of one range, in fp32. Compilers may contract a sum of two products or not; where its
/// terms cancel each other, that is most of what is left, and a sign may turn.
struct PlainState {
    std::vector<float> weights, m, v;
    std::vector<float> doubt_of_weights, doubt_of_m;  ///< By how much that can have changed them.

    explicit PlainState(std::vector<float> at_start)
        : weights(std::move(at_start)), m(weights.size()), v(m), doubt_of_weights(m), doubt_of_m(m) {}
};

/// a x + b y, and the largest error that rounding its products can make.
struct PlainSum {
    float value, doubt;
    PlainSum(float a, float x, float b, float y)
        : value(a * x + b * y), doubt(0x1p-23f * (std::fabs(a * x) + std::fabs(b * y))) {}
};

void round_as(std::vector<float>* values, DType format, const DynamicMap& map, RoundedBuffer buffer,
              const ParameterRange& range, const RoundingDraws& draws) {
    if (format == DType::F32) return;
    if (format == DType::U8) {
        for (size_t first = 0; first < values->size(); first += kStateBlock) {
            const int64_t count = std::min<int64_t>(kStateBlock, static_cast<int64_t>(values->size() - first));
            float largest = 0;
            for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs((*values)[first + i]));
            for (int64_t i = 0; i < count && largest > 0; ++i) {
                float& x = (*values)[first + static_cast<size_t>(i)];
                x = map[map.nearest(x / largest)] * largest;
            }
        }
        return;
    }
    for (size_t i = 0; i < values->size(); ++i) {
        const auto element = static_cast<uint64_t>(range.first) + i;
        const auto counter = rounding_counter(draws, buffer, range.row, element / 8);
        uint16_t eight[8];
        fill_rounding_bits(eight, draws, buffer, range.row, static_cast<int64_t>(element / 8 * 8), 8);
        EXPECT_EQ(counter[0], element / 8);
        (*values)[i] = to_float(round_stochastically((*values)[i], eight[element % 8]));
    }
}

/// One update of a range by the formulas of backend.h, in fp32.
void plain_update(PlainState* state, const ParameterRange& range, const FormatsRun& run, const Values& gradients,
                  int64_t update) {
    const OptimizerSettings& s = run.settings;
    const RoundingDraws draws = {rounding_key(s.seed), static_cast<uint32_t>(update), 0};
    const float rate = 1e-3f, keep = range.decay ? static_cast<float>(1 - double{rate} * s.weight_decay) : 1.0f;
    const auto bias = [&](float beta) { return 1 - std::pow(double{beta}, static_cast<double>(update)); };
    const auto step = static_cast<float>(rate / bias(s.beta1));
    const auto root = static_cast<float>(1 / std::sqrt(bias(s.beta2)));
    for (size_t i = 0; i < state->weights.size(); ++i) {
        const auto g = static_cast<float>(gradients[static_cast<size_t>(range.offset) + i]);
        float &w = state->weights[i], &m = state->m[i], &v = state->v[i];
        if (s.kind == OptimizerKind::Lion) {
            const PlainSum direction(s.beta1, m, 1 - s.beta1, g);
            w = keep * w - (direction.value > 0 ? rate : direction.value < 0 ? -rate : 0.0f);
            if (std::fabs(direction.value) < direction.doubt + state->doubt_of_m[i])
                state->doubt_of_weights[i] += 2 * rate;
        }
        const PlainSum mean =
            s.kind == OptimizerKind::Lion ? PlainSum(s.beta2, m, 1 - s.beta2, g) : PlainSum(s.beta1, m, 1 - s.beta1, g);
        m = mean.value;
        state->doubt_of_m[i] += mean.doubt;
        if (s.kind == OptimizerKind::AdamW) {
            v = s.beta2 * v + (1 - s.beta2) * g * g;
            w = keep * w - step * m / (std::sqrt(v) * root + s.epsilon);
        }
    }
    const Formats& f = run.formats;
    round_as(&state->m, f.moments, signed_map(), RoundedBuffer::MomentM, range, draws);
    round_as(&state->v, f.moments, unsigned_map(), RoundedBuffer::MomentV, range, draws);
    if (!f.master && f.parameters == DType::BF16)
        round_as(&state->weights, DType::BF16, signed_map(), RoundedBuffer::Weights, range, draws);
}

/// A rounding that went the other way, because of a last bit of fp32 before it, is one step of the format.
double step_of(DType format, double value, double largest) {
    if (format == DType::F32) return 4e-7 * std::fabs(value) + 2e-9;  // A step of 1e-3 has ended near zero.
    if (format == DType::BF16) return std::fabs(value) / 100 + 1e-12;
    return largest * 0.9 / 64 * 1.01;
}

/// Nearly all are the plain loop's to a few bits of fp32; some, whose rounding turned, a step away. Both but for what
/// is in doubt.
void expect_like_plain(const Values& ours, const std::vector<float>& plain, const std::vector<float>& doubt,
                       DType format, const char* what) {
    ASSERT_EQ(ours.size(), plain.size());
    double largest = 0;
    for (const float x : plain) largest = std::max(largest, std::fabs(double{x}));
    int64_t turned = 0;
    for (size_t i = 0; i < plain.size(); ++i) {
        const double error = std::fabs(ours[i] - plain[i]);
        ASSERT_LE(error, step_of(format, plain[i], largest) + doubt[i]) << what << ", element " << i;
        turned += error > 2e-6 * std::fabs(plain[i]) + 1e-9;
    }
    EXPECT_LE(turned, static_cast<int64_t>(plain.size()) / 100) << what;
}

TEST(OptimizerFormats, ThreeUpdatesAsPlainLoops) {
    cpu::CpuBackend backend(2);
    for (const Formats& formats : all_formats()) {
        SCOPED_TRACE(formats.words());
        const FormatsRun run(formats), start(formats);
        run.train(backend, itself);
        EXPECT_TRUE(run.intact());
        const Values weights = run.weights().values(), at_start = start.weights().values();
        for (const ParameterRange& range : format_ranges()) {
            const auto first = at_start.begin() + range.offset;
            PlainState plain(std::vector<float>(first, first + range.count));
            for (int64_t update = 1; update <= 3; ++update)
                plain_update(&plain, range, run, run.gradients[static_cast<size_t>(update - 1)].values(), update);
            const DType of_weights = run.weights().dtype();
            expect_like_plain(Values(weights.begin() + range.offset, weights.begin() + range.offset + range.count),
                              plain.weights, plain.doubt_of_weights, of_weights, "weights");
            const Values m = run.m.values(), v = run.v.values();
            Values our_m, our_v;
            for (int64_t i = 0; i < range.count; ++i) {
                const int64_t at = range.offset + range.moments_shift + i;
                const bool in_blocks = formats.moments == DType::U8;
                our_m.push_back(in_blocks ? run.moment(run.m, run.m_scales, signed_map(), at) : m[at]);
                our_v.push_back(in_blocks ? run.moment(run.v, run.v_scales, unsigned_map(), at) : v[at]);
            }
            expect_like_plain(our_m, plain.m, plain.doubt_of_m, formats.moments, "m");
            if (formats.kind == OptimizerKind::AdamW)
                expect_like_plain(our_v, plain.v, std::vector<float>(our_v.size()), formats.moments, "v");
        }
    }
}

TEST(OptimizerFormats, NothingOutsideTheRangesChanges) {
    cpu::CpuBackend backend(2);
    std::vector<bool> inside(kFormatCount, false);
    for (const ParameterRange& range : format_ranges()) std::fill_n(inside.begin() + range.offset, range.count, true);
    for (const Formats& formats : all_formats()) {
        const FormatsRun run(formats), before(formats);
        run.train(backend, itself);
        const Values now = run.parameters.values(), then = before.parameters.values();
        for (size_t i = 0; i < inside.size(); ++i) {
            if (inside[i]) continue;
            ASSERT_EQ(now[i], then[i]) << formats.words() << ", element " << i;
        }
    }
}

TEST(OptimizerFormats, ThreadCountDoesNotMatter) {
    for (const Formats& formats : all_formats())
        expect_same_bits_at_every_thread_count([&](Backend& backend) {
            const FormatsRun run(formats);
            run.train(backend, itself);
            return run.all();
        });
}

/// A row may be cut between its blocks into ranges, which may lie anywhere.
TEST(OptimizerFormats, BitsDoNotDependOnHowRowsAreCut) {
    cpu::CpuBackend backend(2);
    const std::vector<ParameterRange> cut = cut_format_ranges(1536);
    for (const Formats& formats : all_formats()) {
        const FormatsRun whole(formats), in_parts(formats), other_seed(formats, 1338);
        whole.train(backend, itself);
        in_parts.train(backend, itself, cut);
        EXPECT_TRUE(whole.all() == in_parts.all()) << formats.words();
        other_seed.train(backend, itself);
        const bool draws = formats.moments == DType::BF16 || (formats.parameters == DType::BF16 && !formats.master);
        EXPECT_EQ(whole.all() == other_seed.all(), !draws) << formats.words();
    }
}

// Nearest rounding would keep a second moment for ever: 0.999 of a bf16 number is that number.
TEST(OptimizerFormats, RoundedSecondMomentsDecay) {
    cpu::CpuBackend backend(1);
    OptimizerSettings settings;
    settings.beta2 = 0.999f;
    constexpr int64_t kCount = 4096;
    const TestBuffer p = zeros(DType::F32, kCount), m = zeros(DType::BF16, kCount), g = zeros(DType::F32, kCount);
    const TestBuffer v(DType::BF16, kCount, 1, Values(kCount, 1.0));
    const TestBuffer controls = controls_buffer(0, 0), factors(DType::F32, kNumFactors),
                     norm(DType::F64, 1, 1, Values{0.0});
    for (int update = 0; update < 200; ++update) {
        backend.begin_update(factors, controls, norm, settings);
        backend.update({p, Tensor(), m, v, g, Tensor(), Tensor(), controls}, std::vector<ParameterRange>{{0, kCount}},
                       settings, factors);
    }
    double mean = 0;
    for (const double x : v.values()) mean += x / kCount;
    EXPECT_NEAR(mean, std::pow(0.999, 200), 0.003);
}

TEST(OptimizerFormats, NonFiniteNormChangesNothing) {
    cpu::CpuBackend backend(1);
    for (const Formats& formats : all_formats()) {
        const FormatsRun run(formats), before(formats);
        run.norm.set({std::numeric_limits<double>::infinity()});
        run.train(backend, itself);
        EXPECT_TRUE(run.all() == before.all()) << formats.words();
    }
}

// ---- gradients -----------------------------------------------------------------------------------------------------

TestBuffer controls_of_gradients(int64_t updates, int64_t micro_batch) {
    TestBuffer controls = controls_buffer(0, updates);
    controls.tensor().as<double>()[static_cast<size_t>(UpdateControl::MicroBatch)] = static_cast<double>(micro_batch);
    return controls;
}

TEST(AddRounded, IsTheSumRoundedOnce) {
    cpu::CpuBackend backend(2);
    for (const bool adds : {false, true}) {
        const TestBuffer x = random_buffer(DType::F32, kFormatCount, 1, 1, 2);
        TestBuffer out(DType::BF16, kFormatCount);
        out.set(random_buffer(DType::F32, kFormatCount, 1, 1, 1).values());
        const Values before = out.values(), addend = x.values();
        backend.add_rounded(out, adds, x, format_ranges(), 1337, controls_of_gradients(5, 2));
        const Values after = out.values();
        std::vector<bool> inside(kFormatCount, false);
        for (const ParameterRange& range : format_ranges()) {
            std::vector<uint16_t> bits(static_cast<size_t>(range.count) + 8);
            fill_rounding_bits(bits.data(), {rounding_key(1337), 5, 2}, RoundedBuffer::Gradients, range.row,
                               range.first, range.count);
            for (int64_t i = 0; i < range.count; ++i) {
                const int64_t at = range.offset + i;
                inside[at] = true;
                const auto sum = static_cast<float>(adds ? before[at] + addend[at] : addend[at]);
                ASSERT_EQ(after[at], to_float(round_stochastically(sum, bits[i]))) << at;
            }
        }
        for (int64_t i = 0; i < kFormatCount; ++i) {
            if (inside[i]) continue;
            ASSERT_EQ(after[i], before[i]) << i;
        }
        EXPECT_TRUE(out.intact() && x.intact());
    }
}

// A thousand small numbers beside a large one: to nearest, none of them would count.
TEST(AddRounded, SmallSummandsAreNotLost) {
    cpu::CpuBackend backend(1);
    constexpr int64_t kCount = 2048;
    const std::vector<ParameterRange> ranges = {{0, kCount, true, 1, 0}};
    const TestBuffer out(DType::BF16, kCount, 1, Values(kCount, 1.0)), x(DType::F32, kCount, 1, Values(kCount, 5e-4));
    for (int64_t micro_batch = 0; micro_batch < 1000; ++micro_batch)
        backend.add_rounded(out, true, x, ranges, 7, controls_of_gradients(0, micro_batch));
    double mean = 0;
    for (const double value : out.values()) mean += value / kCount;
    EXPECT_NEAR(mean, 1.5, 0.01);
}

TEST(AddRounded, ThreadCountDoesNotMatter) {
    expect_same_bits_at_every_thread_count([&](Backend& backend) {
        const TestBuffer x = random_buffer(DType::F32, kFormatCount, 1, 1, 2), out = zeros(DType::BF16, kFormatCount);
        backend.add_rounded(out, true, x, format_ranges(), 1337, controls_of_gradients(5, 2));
        return out.bytes();
    });
}

TEST(GradientNorm, OfRoundedGradientsIsThatOfTheirValues) {
    cpu::CpuBackend backend(2);
    for (const int64_t chunk : {128, 4224}) {
        TestBuffer rounded(DType::BF16, 5, chunk), wide(DType::F32, 5, chunk);
        rounded.set(random_buffer(DType::F32, 5, chunk, 0.01, 1).values());
        wide.set(rounded.values());
        const TestBuffer of_rounded(DType::F64, 5), of_wide(DType::F64, 5);
        backend.square_sums(of_rounded, rounded, chunk);
        backend.square_sums(of_wide, wide, chunk);
        EXPECT_TRUE(of_rounded.bytes() == of_wide.bytes());
    }
}

}  // namespace
}  // namespace llmc
