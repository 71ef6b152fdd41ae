// Whole trainings on the executor with state in pinned host memory: copies that run beside the kernels are waited for
// before what they bring is read, recordings repeat them, and the bits are those of a run on the device alone.
#include "tests/run/offload_cases.h"

namespace llmc {
namespace {

TEST(CudaOffload, SameBitsOfOneRank) {
    for (const auto& [family, dtype] : {std::pair(Family::Gpt2, DType::BF16), std::pair(Family::Llama, DType::F32)}) {
        TeamRun plain = offload_run(family, dtype);
        plain.device = "cuda", plain.steps = 3;  // The third is replayed.
        const TeamResult expected = RankTeam(plain).train();
        for (const auto& [offload, policy] : {std::pair("moments,masters", "none"),
                                              std::pair("gradients,boundaries", "sqrt"), std::pair("all", "layer")}) {
            TeamRun run = plain;
            run.offload = offload, run.policy = policy;
            expect_same_training(RankTeam(run).train(), expected, words(run));
        }
    }
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
