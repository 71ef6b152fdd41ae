// Algorithms of matrix products in whole models, on a library whose algorithms have other bits each and whose times a
// test decides: what is timed, recorded, and gives the same bits again.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/plan/policy.h"
#include "llmc/run/gemm_queries.h"
#include "tests/cuda/cuda_testing.h"
#include "tests/run/tiles_cases.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace tiles_cases;

class CudaGemmAlgorithms : public testing::Test {
  protected:
    ~CudaGemmAlgorithms() override { cuda_on_cpu::set_algorithm_times({}); }

    TinyTrainer trainer(const std::string& policy = "none", int64_t tile_tokens = 0) const {
        return trainer_of(model_, kShape, DType::BF16,
                          {.policy = policy, .tile_tokens = tile_tokens, .device = "cuda"});
    }
    /// Of the plan, where the library's algorithms seem to take so long.
    GemmAlgorithms timed(const std::vector<double>& milliseconds) const {
        TinyTrainer one = trainer();
        cuda_on_cpu::set_algorithm_times(milliseconds);
        GemmAlgorithms found = one.backend().time_gemms(gemm_queries(model_, one.plan()), {});
        cuda_on_cpu::set_algorithm_times({});
        return found;
    }
    static Result run_with(TinyTrainer trainer, const GemmAlgorithms& algorithms) {
        trainer.backend().set_gemm_algorithms(algorithms);
        return run(trainer, 2);
    }

    static constexpr BatchShape kShape = {2, 70};
    Model model_ = make_model(config_of_family(Family::Gpt2, 2, kShape.T));
};

TEST_F(CudaGemmAlgorithms, ARecordGivesTheSameBitsAgain) {
    TinyTrainer usual = trainer();
    const Result first = run(usual, 2);
    const GemmAlgorithms third = timed({10000, 10000, 1000, 10000});
    TinyTrainer trained = trainer();
    trained.backend().set_gemm_algorithms(third);
    const Result expected = run(trained, 2);
    EXPECT_FALSE(expected == first) << "the choice has no effect";
    EXPECT_NEAR(expected.loss, first.loss, 1e-3);
    const GemmAlgorithms record = trained.backend().gemm_algorithms();
    EXPECT_EQ(record.library, "cuBLASLt 13.0.0");
    EXPECT_EQ(record.device, "CUDA on the CPU, sm_90");
    EXPECT_GE(record.chosen.size(), third.chosen.size());
    EXPECT_TRUE(run_with(trainer(), record) == expected);
    EXPECT_TRUE(run_with(trainer(), usual.backend().gemm_algorithms()) == first);
    for (const PolicyRow& policy : policies()) {
        EXPECT_TRUE(run_with(trainer(policy.name, 128), record) == expected) << policy.name << ", in tiles";
    }
}

/// All that a training forms is in the plan, so that nothing is left to the library while it runs.
TEST_F(CudaGemmAlgorithms, EveryProductOfThePlanIsTimed) {
    const GemmAlgorithms second = timed({10000, 1000, 10000, 10000});
    TinyTrainer trained = trainer();
    trained.backend().set_gemm_algorithms(second);
    const uint64_t before = cuda_on_cpu::counts().algorithm_searches;
    run(trained, 1);
    EXPECT_EQ(cuda_on_cpu::counts().algorithm_searches, before);
}

TEST_F(CudaGemmAlgorithms, WhatIsKnownIsNotTimed) {
    TinyTrainer one = trainer();
    const std::vector<GemmQuery> queries = gemm_queries(model_, one.plan());
    const GemmAlgorithms second = timed({10000, 1000, 10000, 10000});
    cuda_on_cpu::set_algorithm_times({10000, 10000, 10000, 1000});
    const uint64_t before = cuda_on_cpu::counts().algorithm_searches;
    EXPECT_EQ(one.backend().time_gemms(queries, second.chosen), second);
    EXPECT_EQ(cuda_on_cpu::counts().algorithm_searches, before);
}

TEST_F(CudaGemmAlgorithms, OthersAreRefused) {
    const auto refusal = [this](const GemmAlgorithms& algorithms) {
        try {
            trainer().backend().set_gemm_algorithms(algorithms);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("taken");
    };
    GemmAlgorithms algorithms = timed({});
    EXPECT_EQ(refusal(algorithms), "taken");
    algorithms.chosen.front().words[0] ^= 1;
    EXPECT_NE(refusal(algorithms).find("CUDA: cuBLASLt 13.0.0 refuses the algorithm for "), std::string::npos);
    algorithms.chosen.front().words.pop_back();
    EXPECT_NE(refusal(algorithms).find("refuses"), std::string::npos);
    algorithms = timed({});
    algorithms.library = "cuBLASLt 12.9.0";
    EXPECT_EQ(refusal(algorithms),
              "CUDA: the algorithms of cuBLASLt 12.9.0 on CUDA on the CPU, sm_90 are not those of cuBLASLt 13.0.0 on "
              "CUDA on the CPU, sm_90");
}

}  // namespace
}  // namespace llmc
