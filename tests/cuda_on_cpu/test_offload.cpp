// Whole trainings on the executor with state in pinned host memory: copies that run beside the kernels are waited for
// before what they bring is read, recordings repeat them, and the bits are those of a run on the device alone.
#include "tests/long_tests.h"
#include "tests/run/offload_cases.h"

#include <tuple>

namespace llmc {
namespace {

TEST(CudaOffload, SameBitsOfOneRank) {
    for (const auto& [family, dtype] : {std::pair(Family::Gpt2, DType::BF16), std::pair(Family::Llama, DType::F32)}) {
        TeamRun plain = offload_run(family, dtype);
        plain.device = "cuda", plain.steps = 3;  // The third is replayed.
        const TeamResult expected = RankTeam(plain).train();
        for (const auto& [offload, policy] : {std::pair("all", "layer"), std::pair("moments,masters", "none"),
                                              std::pair("gradients,boundaries", "sqrt")}) {
            TeamRun run = plain;
            run.offload = offload, run.policy = policy, run.begins_another = true;
            expect_same_training(RankTeam(run).train(), expected, words(run));
            if (family == Family::Llama && !long_tests()) break;
        }
    }
}

TEST(CudaOffload, SameBitsWithADelayedUpdate) {
    for (const auto& [family, dtype] : {std::pair(Family::Gpt2, DType::F32), std::pair(Family::Llama, DType::BF16)}) {
        TeamRun plain = offload_run(family, dtype);
        plain.config.L = 3;
        plain.device = "cuda", plain.steps = 4;  // Every turn is replayed: with a pending update, too.
        const TeamResult expected = RankTeam(plain).train();
        for (const auto& [offload, policy, flush_every] :
             {std::tuple("all", "layer", 2), std::tuple("moments,masters", "none", 0)}) {
            TeamRun run = plain;
            run.offload = offload, run.policy = policy, run.update_ahead = 2, run.flush_every = flush_every;
            run.begins_another = true;
            expect_same_training(RankTeam(run).train(), expected, words(run));
            if (family == Family::Llama && !long_tests()) break;
        }
    }
    TeamRun run = offload_run(Family::Gpt2, DType::BF16);
    run.config.L = 3;
    run.device = "cuda", run.parallel.ranks = 2, run.zero = 1;
    const TeamResult expected = RankTeam(run).train();
    run.offload = "all", run.update_ahead = 1;
    expect_same_training(RankTeam(run).train(), expected, words(run));
}

TEST(CudaOffload, SameBitsInOtherFormatsWithFrozenRowsAndRanks) {
    TeamRun plain = offload_run(Family::Gpt2, DType::BF16);
    plain.config.L = 3;
    plain.device = "cuda", plain.freeze = "layers.0.*", plain.formats = {DType::U8, true, DType::BF16};
    plain.parallel.ranks = 2;
    for (const int zero : {1, 3}) {
        plain.zero = zero;
        const TeamResult expected = RankTeam(plain).train();
        TeamRun run = plain;
        run.offload = "all", run.policy = "layer";
        expect_same_training(RankTeam(run).train(), expected, words(run));
    }
}

}  // namespace
}  // namespace llmc
