// Ranks on GPUs: the CUDA backend and NCCL, both on the CPU, a thread per rank. Reductions and gathers run on a stream
// of their own beside the kernels; the executor reports what reads or writes too early.
#include "tests/run/rank_team.h"

namespace llmc {
namespace {

TeamRun tiny_run(DType dtype, int ranks, int zero) {
    TeamRun run;
    run.device = "cuda";
    run.config = preset("llama-nano");
    run.config.L = 2, run.config.C = 64, run.config.NH = 2, run.config.HD = 32, run.config.NKV = 1;
    run.config.V = 97, run.config.F = 88, run.config.maxT = 19;
    run.shape = {1, 19};
    run.dtype = dtype;
    run.steps = 2;
    run.parallel.ranks = ranks, run.zero = zero, run.parallel.micro_batches = 4 / ranks;
    return run;
}

TEST(CudaRanks, StagesTrainAlike) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const TeamResult alone = RankTeam(tiny_run(dtype, 1, 0)).train();
        for (int zero = 0; zero <= 3; ++zero) {
            TeamRun run = tiny_run(dtype, 2, zero);
            run.policy = zero % 2 == 0 ? "layer" : "none";
            const TeamResult team = RankTeam(run).train();
            for (size_t step = 0; step < alone.losses.size(); ++step) {
                EXPECT_NEAR(team.losses[step] / alone.losses[step], 1, dtype == DType::F32 ? 1e-5 : 1e-3)
                    << name_of(dtype) << ", ZeRO " << zero;
            }
        }
    }
}

TEST(CudaRanks, FixedOrderGivesTheBitsOfOneRank) {
    TeamRun one = tiny_run(DType::BF16, 1, 0);
    one.parallel.rank_invariant = true;
    const TeamResult expected = RankTeam(one).train();
    for (const int ranks : {2, 4}) {
        TeamRun run = tiny_run(DType::BF16, ranks, ranks - 1);
        run.parallel.rank_invariant = true;
        const TeamResult team = RankTeam(run).train();
        EXPECT_EQ(team.norms, expected.norms) << ranks << " ranks";
        EXPECT_EQ(team.weights, expected.weights) << ranks << " ranks";
    }
}

}  // namespace
}  // namespace llmc
