// Blocks and tiles of tokens: the same bits with and without tiles, whatever the policy, in the memory predicted.
#include "llmc/model/trainable.h"
#include "llmc/plan/search.h"
#include "llmc/plan/tiles.h"
#include "tests/plan/plan_cases.h"
#include "tests/run/family_cases.h"
#include "tests/run/tiles_cases.h"

#include <algorithm>
#include <cmath>

namespace llmc {
namespace {

using namespace tiles_cases;

/// Three sequences; blocks of 128 tokens begin inside of them, and the last has 44.
constexpr BatchShape kShape = {3, 100};

class TilesTest : public testing::TestWithParam<FamilyCase> {
  protected:
    void SetUp() override {
        if (dtype() == DType::BF16 && !make_backend("cpu", 1)->info().supports_bf16) {
            GTEST_SKIP() << "this processor or build has no bf16";
        }
    }
    DType dtype() const { return GetParam().dtype; }
    Model model(int64_t L = 3) const { return make_model(config_of_family(GetParam().family, L, kShape.T)); }
};

TEST_P(TilesTest, SameBitsUnderEveryPolicyTileAndThreadCount) {
    TinyTrainer reference = trainer_of(model(), kShape, dtype(), {});
    ASSERT_EQ(reference.plan().tile_tokens, 0);
    const Result expected = run(reference);
    ASSERT_TRUE(std::isfinite(expected.loss));
    for (const PolicyRow& policy : policies()) {
        for (const int64_t tile : {0, 128, 256}) {
            TinyTrainer trainer = trainer_of(
                model(), kShape, dtype(), {.policy = policy.name, .tile_tokens = tile, .threads = tile == 0 ? 2 : 3});
            EXPECT_EQ(trainer.plan().tile_tokens, tile);
            EXPECT_EQ(is_in_place(trainer.plan()), tile > 0);
            EXPECT_TRUE(run(trainer) == expected) << policy.name << ", tiles of " << tile;
        }
    }
}

/// Random keep-sets keep what no policy does: a statistic without its output, one of two halves.
TEST_P(TilesTest, SameBitsUnderRandomKeepSets) {
    TinyTrainer reference = trainer_of(model(), kShape, dtype(), {});
    const Result expected = run(reference, 1);
    plan_cases::Dice dice(5);
    for (int i = 0; i < 10; ++i) {
        const auto make_plan = [&](const Model& of, const PlanRequest& request) {
            return make_training_plan(of, request, plan_cases::random_keep_set(of, dice), "random");
        };
        TinyTrainer trainer = trainer_of(model(), kShape, dtype(), {.tile_tokens = 128, .threads = 2}, make_plan);
        EXPECT_TRUE(run(trainer, 1) == expected) << "keep-set " << i;
    }
}

TEST_P(TilesTest, SameBitsUnderSearchedPlans) {
    TinyTrainer reference = trainer_of(model(5), kShape, dtype(), {});
    const Result expected = run(reference, 1);
    const OpTimes times = analytic_times(model(5), kShape, dtype(), {"test", 1e12, 2e12, 1e11, 1e-7, 0.8}, {0, 128});
    const int64_t most = reference.memory().layout.arena_bytes;
    int found = 0;
    for (int64_t budget = most / 10; budget < most; budget += most / 10) {
        SearchResult result;
        const auto make_plan = [&](const Model& of, const PlanRequest& request) {
            result = search_plan(of, request, times, budget);
            return result.found ? result.plan : make_training_plan(of, request, find_policy("none"));
        };
        TinyTrainer trainer = trainer_of(model(5), kShape, dtype(), {.tile_tokens = 128}, make_plan);
        if (!result.found) continue;
        ++found;
        EXPECT_LE(trainer.memory().layout.arena_bytes, budget);
        EXPECT_TRUE(run(trainer, 1) == expected) << result.summary;
    }
    EXPECT_GE(found, 5);
}

/// What a block adds up is part of the sum: other blocks are another rounding, and no other mathematics.
TEST_P(TilesTest, BlocksDecideTheLastBitsAndNoMore) {
    if (dtype() == DType::BF16) GTEST_SKIP() << "bf16 rounds more than the order of sums does";
    TinyTrainer whole = trainer_of(model(), kShape, dtype(), {.block_tokens = 512});
    TinyTrainer blocks = trainer_of(model(), kShape, dtype(), {.block_tokens = 128});
    EXPECT_EQ(whole.plan().block_tokens, kShape.N());
    const Result a = run(whole), b = run(blocks);
    EXPECT_EQ(a.loss, b.loss) << "no row of a forward depends on its neighbours";
    EXPECT_FALSE(a.gradients == b.gradients);
    float largest = 0, apart = 0;
    for (size_t i = 0; i < a.gradients.size(); ++i) {
        largest = std::max(largest, std::fabs(a.gradients[i]));
        apart = std::max(apart, std::fabs(a.gradients[i] - b.gradients[i]));
    }
    EXPECT_LT(apart, 1e-6f * std::max(1.0f, largest));
}

INSTANTIATE_TEST_SUITE_P(Families, TilesTest, family_cases(), family_case_name);

void expect_same_bits_in_tiles(const Model& model, const BatchShape& shape, DType dtype, Way way = {}) {
    TinyTrainer reference = trainer_of(model, shape, dtype, way);
    const Result expected = run(reference);
    way.tile_tokens = 128;
    for (const PolicyRow& policy : policies()) {
        way.policy = policy.name;
        for (way.threads = 1; way.threads <= 3; ++way.threads) {
            TinyTrainer trainer = trainer_of(model, shape, dtype, way);
            EXPECT_TRUE(is_in_place(trainer.plan()));
            EXPECT_TRUE(run(trainer) == expected) << policy.name << ", " << way.threads << " threads";
        }
    }
}

TEST(Tiles, SameBitsWithDropout) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        expect_same_bits_in_tiles(with_dropout(make_model(config_of_family(family, 3, kShape.T)), 0.2), kShape,
                                  DType::F32);
    }
}

TEST(Tiles, SameBitsWithNormalisedHeads) {
    expect_same_bits_in_tiles(make_model(config_of_family(Family::Qwen3, 3, kShape.T)), kShape, DType::F32);
}

/// The projection of queries, keys and values in parts, whose output attention reads in the product's place; the last
/// product of a layer, whose output is the next one's input.
Model with_adapters(Model model, float dropout) {
    LoraSpec spec;
    spec.rank = 4, spec.dropout = dropout;
    spec.targets = {{"qkv_weight", "q", 0, 64, 2},
                    {"qkv_weight", "v", 96, 32, 2},
                    {"att_proj_weight", "o", 0, 64, 1},
                    {"gate_up_weight", "up", 88, 88, 1},
                    {"fc_proj_weight", "down", 0, 64, 1}};
    return with_lora(std::move(model), spec);
}

TEST(Tiles, SameBitsWithAdapters) {
    for (const float dropout : {0.0f, 0.25f}) {
        const Model base = make_model(config_of_family(Family::Llama, 3, kShape.T));
        expect_same_bits_in_tiles(with_adapters(base, dropout), kShape, DType::F32);
    }
}

TEST(Tiles, SameBitsWithAdaptersOnFourBits) {
    const Model model = with_adapters(make_model(config_of_family(Family::Llama, 3, kShape.T)), 0);
    for (const WeightFormat base : {WeightFormat::Nf4, WeightFormat::Nf4Double}) {
        expect_same_bits_in_tiles(model, kShape, DType::F32, {.base = base});
    }
}

/// Of half of the layers, whose queries see 30 tokens.
TEST(Tiles, SameBitsWithWindows) {
    ModelConfig config = config_of_family(Family::Llama, 4, kShape.T);
    config.window = 30, config.window_layers = {true, false, true, false};
    expect_same_bits_in_tiles(make_model(config), kShape, DType::F32);
}

/// More heads than attention's backward has at a time in the place of its input, of keys or of queries alone.
TEST(Tiles, SameBitsWithManyHeads) {
    for (const int64_t NKV : {2, 8}) {
        ModelConfig config = config_of_family(Family::Llama, 2, kShape.T);
        config.NH = 8, config.NKV = NKV, config.HD = 8;
        ASSERT_LT((AttentionShape{3, 100, 8, NKV, 8}.kv_heads_in_place()), NKV);
        expect_same_bits_in_tiles(make_model(config), kShape, DType::F32);
    }
}

/// The upper layer, and parts of layers: in the lowest nobody asks for the gradient of queries, keys and values.
TEST(Tiles, SameBitsWhereSomeTrain) {
    for (const char* frozen : {"*,!layers.2.*", "*,!layers.*.gate_up_weight", "*,!layers.*.att_proj_weight"}) {
        const Model model = make_model(config_of_family(Family::Llama, 3, kShape.T));
        expect_same_bits_in_tiles(with_trainable(model, parse_patterns("--freeze", frozen, false)), kShape, DType::F32);
    }
}

TEST(Tiles, SameBitsWithPackedDocuments) {
    BatchShape shape = kShape;
    shape.packed = true;
    expect_same_bits_in_tiles(make_model(config_of_family(Family::Llama, 3, kShape.T)), shape, DType::F32);
    expect_same_bits_in_tiles(make_model(config_of_family(Family::Qwen3, 3, kShape.T)), shape, DType::F32);
}

TEST(Tiles, NoWorkspaceGrowsWithTheSquareOfTheLength) { expect_linear_workspaces("cpu"); }

TEST(Tiles, SameBitsWithoutFusion) {
    expect_same_bits_in_tiles(make_model(config_of_family(Family::Gpt2, 3, kShape.T)), kShape, DType::F32,
                              {.fuses = false});
}

}  // namespace
}  // namespace llmc
