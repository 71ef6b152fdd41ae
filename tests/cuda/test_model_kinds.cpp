// Every feature that a config.json can say, on the CUDA backend: loss and gradients of transformers in fp32, the CPU's
// loss in bf16, the same bits with and without recomputation.
#include "tests/cuda/cuda_testing.h"
#include "tests/run/model_kind.h"

namespace llmc {
namespace {

class CudaModelKind : public testing::TestWithParam<std::string> {
  protected:
    const ModelKind kind_{GetParam()};
};

TEST_P(CudaModelKind, Fp32IsAsGoodAsTransformers) {
    KindTrainer trainer(kind_, DType::F32, "layer", 1, "cuda");
    EXPECT_NEAR(trainer.run(), kind_.loss(), 1e-6 * kind_.loss());
    kind_.expect_gradients(trainer, /*each=*/4);  // Of some 64 numbers, added in another order than any on a CPU.
}

TEST_P(CudaModelKind, SameBitsWithRecomputationInTheMemoryPredicted) {
    for (const DType dtype : kActivationTypes) {
        KindTrainer reference(kind_, dtype, "none", 1, "cuda");
        const double loss = reference.run();
        const std::vector<float> gradients = reference.gradients();
        EXPECT_NEAR(loss, kind_.loss(), (dtype == DType::BF16 ? 0.05 : 1e-5) * kind_.loss());
        const char* policy = dtype == DType::BF16 ? "act" : "attn";
        KindTrainer trainer(kind_, dtype, policy, 1, "cuda");
        EXPECT_EQ(trainer.run(), loss) << policy;
        EXPECT_EQ(trainer.gradients(), gradients) << policy;
        EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes()) << policy;
        EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes) << policy;
    }
}

INSTANTIATE_TEST_SUITE_P(Kinds, CudaModelKind, testing::ValuesIn(kModelKinds),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace llmc
