// Products by our own kernel in whole models: what is compared before, what is one step with its activation, which bits
// it has, and when it is timed to be the fastest.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/plan/policy.h"
#include "llmc/run/gemm_queries.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/run/tiles_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace llmc {
namespace {

using namespace tiles_cases;

constexpr BatchShape kShape = {2, 70};  ///< The second block of 128 tokens has 12.

Model model_of(Family family) { return make_model(config_of_family(family, 2, kShape.T)); }

TinyTrainer trainer(const Model& model, const std::string& policy = "none", int64_t tile = 0, bool fuses = true) {
    return trainer_of(model, kShape, DType::BF16,
                      {.policy = policy, .tile_tokens = tile, .device = "cuda", .fuses = fuses, .own_gemms = true});
}

/// Ours for whatever it forms.
GemmAlgorithms own(TinyTrainer& trainer) {
    GemmAlgorithms all = trainer.backend().gemm_algorithms();
    all.chosen = trainer.backend().own_gemms(gemm_queries(trainer.model(), trainer.plan()));
    return all;
}

Result run_own(TinyTrainer trainer) {
    trainer.backend().set_gemm_algorithms(own(trainer));
    return run(trainer, 2);
}

int64_t count_fused(const Plan& plan, Fusion fusion) {
    return std::count_if(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
        return step.kind == StepKind::Fused && plan.fusions[static_cast<size_t>(step.fusion)].fusion == fusion;
    });
}

TEST(OwnGemms, AreComparedWithTheLibrarys) {
    EXPECT_TRUE(cuda_backend().own_gemms_agree());
    cuda_on_cpu::set_wrong_wgmma(true);
    EXPECT_FALSE(cuda_backend().own_gemms_agree());
    cuda_on_cpu::set_wrong_wgmma(false);
}

TEST(OwnGemms, TakeActivationsAlongWhereTheyAreOffered) {
    cuda::CudaBackend backend(0);
    cuda::CudaBackend planner{cuda::PlanningOnly()};
    FusionQuery query = {Fusion::MatmulAndActivation, ActivationFunction::Gelu, DType::BF16, 64, 256, 64};
    EXPECT_FALSE(backend.fuses(query).fuses);
    backend.offer_own_gemms(true);
    planner.offer_own_gemms(true);
    for (const ActivationFunction activation : {ActivationFunction::Gelu, ActivationFunction::Swiglu}) {
        query.activation = activation;
        const FusionAnswer answer = backend.fuses(query);
        EXPECT_TRUE(answer.fuses && answer.same_bits && answer.stores_between);
        EXPECT_EQ(answer.workspace_bytes, backend.matmul_workspace(DType::BF16, 64, 256, 64));
        EXPECT_TRUE(planner.fuses(query).fuses);
    }
    const auto fuses = [&](const auto& change) {
        FusionQuery other = query;
        change(other);
        return backend.fuses(other).fuses;
    };
    EXPECT_FALSE(fuses([](FusionQuery& q) { q.activation = ActivationFunction::GeluExact; }));
    EXPECT_FALSE(fuses([](FusionQuery& q) { q.dtype = DType::F32; }));
    EXPECT_FALSE(fuses([](FusionQuery& q) { q.OC = 264; })) << "rows of the gate are no multiple of 16 bytes";
    EXPECT_FALSE(fuses([](FusionQuery& q) { q.IC = 68; }));
    EXPECT_TRUE(fuses([](FusionQuery& q) { q.N = 1; }));
}

TEST(OwnGemms, TakeSwiglusGradientAlongWhereTheyAreOffered) {
    cuda::CudaBackend backend(0);
    cuda::CudaBackend planner{cuda::PlanningOnly()};
    FusionQuery query = {Fusion::InputGradientAndActivation, ActivationFunction::Swiglu, DType::BF16, 64, 256, 64};
    EXPECT_FALSE(backend.fuses(query).fuses);
    backend.offer_own_gemms(true);
    planner.offer_own_gemms(true);
    const FusionAnswer answer = backend.fuses(query);
    EXPECT_TRUE(answer.fuses && answer.same_bits && answer.stores_between);
    EXPECT_EQ(answer.workspace_bytes, backend.matmul_workspace(DType::BF16, 64, 256, 64));
    EXPECT_TRUE(planner.fuses(query).fuses);
    query.activation = ActivationFunction::GeluExact;
    EXPECT_FALSE(backend.fuses(query).fuses);
    query.activation = ActivationFunction::Gelu;
    EXPECT_FALSE(backend.fuses(query).same_bits) << "it may be the library's";
    query.activation = ActivationFunction::Swiglu;
    query.IC = 68;
    EXPECT_FALSE(backend.fuses(query).fuses);
}

/// With heads of 64 the projection comes out rotated, whatever block of tokens it is of; turning back is another's.
TEST(OwnGemms, TakeRopeAlongWhereHeadsAreOf64) {
    ModelConfig config = config_of_family(Family::Llama, 2, kShape.T);
    config.HD = 64;
    const Model model = make_model(config);
    int turned = 0;
    const auto turns_of = [&](const std::function<Result()>& train) {
        turned = 0;
        cuda_on_cpu::set_block_chooser([&](const cuda_on_cpu::Grid& grid) {
            turned += grid.kernel.find("rope_kernel") != std::string::npos ? 1 : 0;
            std::vector<uint64_t> all(grid.x * grid.y * grid.z);
            std::iota(all.begin(), all.end(), uint64_t{0});
            return all;
        });
        Result result = train();
        cuda_on_cpu::set_block_chooser({});
        return result;
    };
    TinyTrainer usual = trainer_of(model, kShape, DType::BF16, {.device = "cuda"});
    turns_of([&] { return run(usual, 2); });
    const int of_library = turned;
    const Result expected = turns_of([&] { return run_own(trainer(model)); });
    EXPECT_GT(turned, 0);
    EXPECT_LT(turned, of_library);
    EXPECT_EQ(turned * 2, of_library) << "forward and backward turn as many rows";
    for (const char* const policy : {"layer", "sqrt"})
        EXPECT_TRUE(run_own(trainer(model, policy, 128)) == expected) << policy;
}

class OwnGemmModels : public testing::TestWithParam<Family> {
  protected:
    Model model_ = model_of(GetParam());
};

TEST_P(OwnGemmModels, HaveTheSameBitsUnderEveryPolicyAndInTiles) {
    EXPECT_EQ(count_fused(trainer(model_).plan(), Fusion::MatmulAndActivation), 2);
    EXPECT_EQ(count_fused(trainer(model_).plan(), Fusion::InputGradientAndActivation), 2);
    const Result expected = run_own(trainer(model_));
    cuda_on_cpu::set_wrong_wgmma(true);
    EXPECT_FALSE(run_own(trainer(model_)) == expected) << "it is not ours that runs";
    cuda_on_cpu::set_wrong_wgmma(false);
    const Result separate = run_own(trainer(model_, "none", 0, /*fuses=*/false));
    EXPECT_EQ(separate.loss, expected.loss);
    EXPECT_EQ(separate == expected, GetParam() == Family::Llama) << "the sums of a bias's gradient";
    int64_t tile = 0;  // Every other policy has tiles.
    for (const PolicyRow& policy : policies()) {
        tile = 128 - tile;
        EXPECT_TRUE(run_own(trainer(model_, policy.name, tile)) == expected) << policy.name << ", tiles of " << tile;
    }
}

/// A step that may be of our own kernel has the bits of separate ones where the library forms the product.
TEST_P(OwnGemmModels, LeaveTheLibrarysBitsWhereItIsTheLibrarys) {
    TinyTrainer offered = trainer(model_);
    TinyTrainer usual = trainer_of(model_, kShape, DType::BF16, {.device = "cuda"});
    EXPECT_EQ(count_fused(usual.plan(), Fusion::MatmulAndActivation), 0);
    EXPECT_TRUE(run(offered, 2) == run(usual, 2));
}

TEST_P(OwnGemmModels, AreRecordedAndGiveTheSameBitsAgain) {
    TinyTrainer first = trainer(model_, "act");
    const GemmAlgorithms chosen = own(first);
    // Forward and both gradients of four matmuls, of either block, and the head; the library has a bias's gradient.
    const size_t with_bias = GetParam() == Family::Gpt2 ? 2 * 4 : 0;
    EXPECT_EQ(chosen.chosen.size(), 3u * (2u * 4u + 1u) - with_bias);
    first.backend().set_gemm_algorithms(chosen);
    const Result expected = run(first, 2);
    const GemmAlgorithms record = first.backend().gemm_algorithms();
    EXPECT_EQ(std::count_if(record.chosen.begin(), record.chosen.end(), [](const auto& each) { return each.is_own(); }),
              static_cast<int64_t>(chosen.chosen.size()));
    TinyTrainer again = trainer(model_);
    again.backend().set_gemm_algorithms(record);
    EXPECT_TRUE(run(again, 2) == expected);
}

INSTANTIATE_TEST_SUITE_P(Families, OwnGemmModels, testing::Values(Family::Gpt2, Family::Llama),
                         [](const auto& param) { return param.param == Family::Gpt2 ? "Gpt2" : "Llama"; });

TEST(OwnGemms, AreTakenWhereTheyAreTimedToBeFaster) {
    const Model model = model_of(Family::Gpt2);
    TinyTrainer one = trainer(model);
    const std::vector<GemmQuery> queries = gemm_queries(model, one.plan());
    const auto timed = [&](const std::vector<double>& library, const std::vector<GemmAlgorithm>& known = {}) {
        cuda_on_cpu::set_algorithm_times(library);
        GemmAlgorithms found = one.backend().time_gemms(queries, known);
        cuda_on_cpu::set_algorithm_times({});
        return found;
    };
    const std::vector<double> slow(4, 100000.0);
    const GemmAlgorithms ours = timed(slow);
    std::vector<GemmAlgorithm> taken;
    for (const GemmAlgorithm& each : ours.chosen)
        if (each.is_own()) taken.push_back(each);
    EXPECT_EQ(taken, own(one).chosen);
    for (const GemmAlgorithm& each : timed({}).chosen) EXPECT_FALSE(each.is_own()) << "the executor is slow";
    EXPECT_EQ(timed({}, ours.chosen), ours) << "what is known is not timed";
    one.backend().offer_own_gemms(false);
    for (const GemmAlgorithm& each : timed(slow, ours.chosen).chosen) EXPECT_FALSE(each.is_own()) << "not offered";
}

/// Ours where the library is slow, and only there; of all queries' one product.
void expect_choice(const std::vector<GemmQuery>& queries) {
    cuda::CudaBackend backend(0);
    backend.offer_own_gemms(true);
    for (const double milliseconds : {100000.0, 0.0}) {
        cuda_on_cpu::set_algorithm_times(std::vector<double>(4, milliseconds));
        const std::vector<GemmAlgorithm> found = backend.time_gemms(queries, {}).chosen;
        cuda_on_cpu::set_algorithm_times({});
        ASSERT_EQ(found.size(), 1u);
        EXPECT_EQ(found.front().is_own(), milliseconds > 0);
    }
}

/// What a product takes along is timed with it, and what is found holds for the product alone.
TEST(OwnGemms, AreTimedWithSwiglusGradient) {
    cuda::CudaBackend backend(0);
    GemmQuery query = {GemmKind::InputGradientAndSwiglu, DType::BF16, 64, 64, 128};
    query.workspace_bytes = backend.matmul_workspace(DType::BF16, 64, 64, 128);
    std::vector<GemmQuery> queries = {query, query};
    queries.back().kind = GemmKind::InputGradient;
    expect_choice(queries);
}

TEST(OwnGemms, AreTimedWithRope) {
    cuda::CudaBackend backend(0);
    GemmQuery query = {GemmKind::ForwardAndRope, DType::BF16, 70, 4 * 64, 64};
    query.workspace_bytes = backend.matmul_workspace(DType::BF16, 70, 4 * 64, 64);
    query.head_size = 64, query.rotated_columns = 3 * 64;
    std::vector<GemmQuery> queries = {query, query};
    queries.back().kind = GemmKind::Forward;
    expect_choice(queries);
    queries.front().head_size = 32;
    expect_choice(queries);
}

TEST(OwnGemms, AreRefusedWhereTheyCannotBe) {
    const Model model = model_of(Family::Gpt2);
    TinyTrainer one = trainer(model);
    GemmAlgorithms algorithms = own(one);
    const auto refusal = [&] {
        try {
            one.backend().set_gemm_algorithms(algorithms);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("taken");
    };
    EXPECT_EQ(refusal(), "taken");
    algorithms.chosen.front().words = {kOwnGemm + 1};
    EXPECT_NE(refusal().find("CUDA: cuBLASLt 13.0.0 refuses the algorithm for "), std::string::npos);
    algorithms.chosen.front().words = {kOwnGemm};
    algorithms.chosen.front().key.shape.transpose_b = true;
    EXPECT_NE(refusal().find("CUDA: our own kernel refuses the algorithm for "), std::string::npos);
    algorithms = own(one);
    one.backend().offer_own_gemms(false);
    EXPECT_EQ(refusal(), "CUDA: our own matrix products cannot be formed here");
}

}  // namespace
}  // namespace llmc
