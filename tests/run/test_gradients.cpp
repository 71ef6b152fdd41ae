// The gate of the project: gradients and losses are bitwise the same under every policy, random keep-sets included, for
// both model families, both types, and any number of threads; and the arena is used to its last byte.
#include "llmc/plan/search.h"
#include "tests/run/family_cases.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace llmc {
namespace {

/// Sizes that divide nothing evenly; enough layers for segments of unequal length.
ModelConfig tiny(Family family, int64_t L) {
    ModelConfig config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    config.family = family, config.features = row_of(family).features;
    config.L = L, config.C = 40, config.NH = 5, config.HD = 8, config.V = 97, config.maxT = 23;
    config.NKV = family == Family::Gpt2 ? 5 : 1;
    config.F = family == Family::Gpt2 ? 160 : 52;
    config.tied = family == Family::Gpt2;
    return config;
}

struct Result {
    double loss = 0;
    std::vector<float> gradients;
};

/// Two micro-batches of an update; the update itself leaves the gradients as they are.
Result run(TinyTrainer& trainer) {
    trainer.state().initialise(7);
    Result result;
    const float scale = 1.0f / static_cast<float>(2 * trainer.plan().shape.N());
    for (uint64_t micro = 0; micro < 2; ++micro) {
        const auto tokens = trainer.random_tokens(2 * micro);
        const auto targets = trainer.random_tokens(2 * micro + 1);
        const Turn turn = {.first = micro == 0, .last = micro == 1};
        result.loss = trainer.micro_batch(tokens.data(), targets.data(), scale, turn);
    }
    result.gradients = trainer.gradients();
    return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class GradientTest : public testing::TestWithParam<FamilyCase> {
  protected:
    void SetUp() override {
        if (GetParam().dtype == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) {
            GTEST_SKIP() << "this processor or build has no bf16";
        }
    }
    ModelConfig config(int64_t L = 5) const { return tiny(GetParam().family, L); }
    DType dtype() const { return GetParam().dtype; }
    static constexpr BatchShape kShape = {3, 23};
};

TEST_P(GradientTest, SameBitsUnderEveryPolicyAndThreadCount) {
    TinyTrainer reference(config(), kShape, dtype(), "none", 1);
    const Result expected = run(reference);
    ASSERT_TRUE(std::isfinite(expected.loss));
    for (const PolicyRow& policy : policies()) {
        for (const int threads : {1, 2, 3}) {
            TinyTrainer trainer(config(), kShape, dtype(), policy.name, threads);
            const Result result = run(trainer);
            EXPECT_EQ(result.loss, expected.loss) << policy.name << ", " << threads << " threads";
            EXPECT_TRUE(same_bits(result.gradients, expected.gradients))
                << policy.name << ", " << threads << " threads";
            EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy.name;
        }
    }
}

TEST_P(GradientTest, SameBitsAtEveryDepth) {
    for (const int64_t L : {1, 2, 3, 7}) {
        TinyTrainer reference(config(L), kShape, dtype(), "none");
        const Result expected = run(reference);
        for (const char* policy : {"layer", "sqrt", "act", "attn", "offload"}) {
            TinyTrainer trainer(config(L), kShape, dtype(), policy);
            EXPECT_TRUE(same_bits(run(trainer).gradients, expected.gradients)) << policy << ", " << L << " layers";
        }
    }
}

TEST_P(GradientTest, SameBitsWithAnyInputsInHostMemory) {
    TinyTrainer reference(config(), kShape, dtype(), "none");
    const Result expected = run(reference);
    const Model model = make_model(config());
    for (unsigned chosen = 0; chosen < 16; ++chosen) {
        KeepSet keep = find_policy(chosen % 3 == 0 ? "attn" : "layer").function(model);
        for (unsigned layer = 0; layer < config().L; ++layer) keep.host.push_back((chosen >> layer & 1) != 0);
        TinyTrainer trainer(config(), kShape, dtype(), &keep, "none");
        EXPECT_TRUE(same_bits(run(trainer).gradients, expected.gradients)) << "layers " << chosen;
    }
}

TEST_P(GradientTest, SameBitsUnderRandomKeepSets) {
    TinyTrainer reference(config(), kShape, dtype(), "none");
    const Result expected = run(reference);
    const Model model = make_model(config());
    for (uint64_t seed = 0; seed < 12; ++seed) {
        KeepSet keep = find_policy("none").function(model);
        uint64_t draw = 0;
        const auto coin = [&] { return philox(seed, RngStream::Test, 1, draw++)[0] % 2 == 0; };
        for (auto& layer : keep.slots) {
            for (size_t slot = 0; slot < layer.size(); ++slot) layer[slot] = coin();
        }
        keep.slots[0][kLayerInput] = true;
        keep.keep_last_layer = coin();
        for (int layer = 1; layer < static_cast<int>(config().L); ++layer) {
            for (int below = 1; below < layer; ++below) {
                if (coin()) keep.walk[static_cast<size_t>(layer)].push_back(below);
            }
        }
        TinyTrainer trainer(config(), kShape, dtype(), &keep, "none");
        EXPECT_TRUE(same_bits(run(trainer).gradients, expected.gradients)) << "keep-set " << seed;
    }
}

TEST_P(GradientTest, SameBitsUnderSearchedPlans) {
    TinyTrainer reference(config(7), kShape, dtype(), "none");
    const Result expected = run(reference);
    const PlanRequest request = plan_request(reference.model(), kShape, dtype(), 0, reference.backend());
    const OpTimes times = analytic_times(reference.model(), kShape, dtype(), {"test", 1e12, 2e12, 1e11, 1e-7, 0.8});
    const int64_t most = reference.memory().layout.arena_bytes;
    int found = 0;
    for (int64_t budget = most / 10; budget < most; budget += most / 40) {
        const SearchResult result = search_plan(reference.model(), request, times, budget);
        if (!result.found) continue;
        ++found;
        TinyTrainer trainer(config(7), kShape, dtype(), &result.keep, "none");
        EXPECT_TRUE(same_bits(run(trainer).gradients, expected.gradients)) << result.summary;
    }
    EXPECT_GE(found, 10);
}

/// Large enough that every operation really is spread over threads.
TEST_P(GradientTest, SameBitsAtSizesThatUseThreads) {
    ModelConfig wide = tiny(GetParam().family, 2);
    wide.C = 256, wide.NH = 8, wide.HD = 32, wide.F = 700, wide.V = 3001, wide.maxT = 200;
    wide.NKV = GetParam().family == Family::Gpt2 ? 8 : 2;
    TinyTrainer reference(wide, {3, 200}, dtype(), "none", 1);
    const Result expected = run(reference);
    for (const int threads : {2, 3, 5}) {
        TinyTrainer trainer(wide, {3, 200}, dtype(), threads == 3 ? "layer" : "attn", threads);
        const Result result = run(trainer);
        EXPECT_EQ(result.loss, expected.loss) << threads << " threads";
        EXPECT_TRUE(same_bits(result.gradients, expected.gradients)) << threads << " threads";
    }
}

/// The policy does not enter the choice of the chunk, and a run repeats itself.
TEST_P(GradientTest, RepeatsItselfAtAnyLogitsChunk) {
    for (const int64_t chunk : {1, 7, 64, 69}) {
        TinyTrainer first(config(), kShape, dtype(), "none", 2, chunk),
            second(config(), kShape, dtype(), "sqrt", 2, chunk);
        EXPECT_EQ(first.plan().logits_chunk_tokens, chunk);
        EXPECT_TRUE(same_bits(run(first).gradients, run(second).gradients)) << "chunks of " << chunk;
    }
}

/// Directional derivative of the loss against a central difference, in fp32.
TEST_P(GradientTest, MatchesFiniteDifferences) {
    if (dtype() == DType::BF16) GTEST_SKIP() << "bf16 is too coarse for differences";
    TinyTrainer trainer(config(2), kShape, dtype(), "layer");
    State& state = trainer.state();
    state.initialise(3);
    const auto tokens = trainer.random_tokens(1), targets = trainer.random_tokens(2);
    const auto count = static_cast<size_t>(state.all(Buffer::Parameters).count());
    std::vector<float> start(count);
    trainer.backend().copy_to_host(start.data(), state.all(Buffer::Parameters));
    trainer.micro_batch(tokens.data(), targets.data(), 1.0f / static_cast<float>(kShape.N()));
    const std::vector<float> gradient = trainer.gradients();
    double norm = 0;
    for (const float g : gradient) norm += static_cast<double>(g) * g;
    norm = std::sqrt(norm);
    const auto loss_at = [&](double distance) {
        std::vector<float> moved(count);
        for (size_t i = 0; i < count; ++i) moved[i] = start[i] + static_cast<float>(distance * gradient[i] / norm);
        trainer.backend().copy_to_device(state.all(Buffer::Parameters), moved.data());
        return trainer.micro_batch(tokens.data(), targets.data(), 0);
    };
    const auto slope = [&](double step) { return (loss_at(step) - loss_at(-step)) / (2 * step); };
    const double extrapolated = (4 * slope(0.01) - slope(0.02)) / 3;  // Without the cubic term.
    EXPECT_NEAR(extrapolated, norm, 0.005 * norm);
}

INSTANTIATE_TEST_SUITE_P(Families, GradientTest, family_cases(), family_case_name);

}  // namespace
}  // namespace llmc
