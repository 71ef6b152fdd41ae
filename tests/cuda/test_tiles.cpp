// Blocks and tiles of tokens on the CUDA backend: the same bits with and without tiles, whatever the policy.
#include "tests/cuda/cuda_testing.h"
#include "tests/run/family_cases.h"
#include "tests/run/tiles_cases.h"

#include <string>

namespace llmc {
namespace {

using namespace tiles_cases;

class CudaTiles : public testing::TestWithParam<FamilyCase> {};

/// Two sequences; the second block of 128 tokens has 12. An executor on the CPU is slow: bf16 has all policies, fp32
/// two of them.
TEST_P(CudaTiles, SameBitsUnderEveryPolicy) {
    const BatchShape shape = {2, 70};
    const DType dtype = GetParam().dtype;
    const Model model = make_model(config_of_family(GetParam().family, 2, shape.T));
    TinyTrainer reference = trainer_of(model, shape, dtype, {.device = "cuda"});
    const Result expected = run(reference, 1);
    for (const PolicyRow& policy : policies()) {
        const std::string name = policy.name;
        if (dtype == DType::F32 && name != "layer" && name != "none") continue;
        TinyTrainer trainer = trainer_of(model, shape, dtype, {.policy = name, .tile_tokens = 128, .device = "cuda"});
        EXPECT_EQ(trainer.plan().tile_tokens, 128);
        EXPECT_TRUE(is_in_place(trainer.plan()));
        EXPECT_TRUE(run(trainer, 1) == expected) << name;
    }
}

/// Heads of 64 channels; packed documents, windows, and more heads than there are at a time in place.
TEST(CudaTilesOnHopper, SameBits) {
    BatchShape shape = {2, 140};
    for (const bool packed : {false, true}) {
        shape.packed = packed;
        ModelConfig config = config_of_family(Family::Llama, 2, shape.T);
        config.NH = 4, config.NKV = 2, config.HD = 64;
        config.window = 50, config.window_layers = {true, false};
        TinyTrainer reference = trainer_of(make_model(config), shape, DType::BF16, {.device = "cuda", .hopper = true});
        const Result expected = run(reference, 1);
        TinyTrainer trainer = trainer_of(make_model(config), shape, DType::BF16,
                                         {.policy = "layer", .tile_tokens = 128, .device = "cuda", .hopper = true});
        EXPECT_TRUE(is_in_place(trainer.plan()));
        EXPECT_TRUE(run(trainer, 1) == expected) << (packed ? "packed" : "whole");
    }
}

TEST(CudaTileWorkspaces, DoNotGrowWithTheSquareOfTheLength) { expect_linear_workspaces("cuda"); }

INSTANTIATE_TEST_SUITE_P(Families, CudaTiles, family_cases(), family_case_name);

}  // namespace
}  // namespace llmc
