// Whole trainings on the executor with state in less than fp32: the same bits at every ZeRO stage and policy, near what
// the CPU trains.
#include "tests/run/formats_cases.h"

namespace llmc {
namespace {

TEST(CudaFormats, SameBitsAtEveryStageAndNearTheCpu) {
    for (const StateFormats& formats :
         {StateFormats{DType::U8, true, DType::BF16}, StateFormats{DType::BF16, false, DType::BF16}}) {
        TeamRun first = formats_run(Family::Llama, DType::BF16, formats);
        first.steps = 2, first.parallel.ranks = 2;
        const TeamResult cpu = RankTeam(first).train();
        first.device = "cuda";
        const TeamResult expected = RankTeam(first).train();
        for (size_t step = 0; step < cpu.losses.size(); ++step)
            EXPECT_NEAR(expected.losses[step] / cpu.losses[step], 1, 1e-2) << describe(formats);
        for (const int zero : {1, 3}) {
            TeamRun run = first;
            run.zero = zero, run.policy = zero == 3 ? "layer" : "none";
            expect_same_training(RankTeam(run).train(), expected, fmt::format("{}, ZeRO {}", describe(formats), zero));
        }
    }
}

// Recorded calls must not keep the update's or the micro-batch's number.
TEST(CudaFormats, OneRank) {
    const StateFormats formats = {DType::BF16, false, DType::BF16};
    TeamRun run = formats_run(Family::Gpt2, DType::BF16, formats);
    run.steps = 4;
    const TeamResult cpu = RankTeam(run).train();
    run.device = "cuda";
    const TeamResult ours = RankTeam(run).train();
    for (size_t step = 0; step < cpu.losses.size(); ++step)
        EXPECT_NEAR(ours.losses[step] / cpu.losses[step], 1, 1e-2) << "step " << step;
}

}  // namespace
}  // namespace llmc
