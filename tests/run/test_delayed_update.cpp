// Whole trainings whose updates are delayed into the next forward: the same bits as with each at once, for every
// mixture of what is where, how it is cut among ranks, what is computed again, formats and frozen rows; wherever the
// pending update is flushed; in the memory that was planned (RankTeam checks it).
#include "tests/run/offload_cases.h"

#include <array>
#include <cmath>
#include <cstring>

namespace llmc {
namespace {

constexpr Family kFamilies[] = {Family::Gpt2, Family::Llama};
const char* const kPolicies[] = {"none", "layer", "sqrt", "act", "attn", "offload"};
constexpr std::array<int, 3> kAheads = {1, 2, 5};

TEST(DelayedUpdate, SameBitsOfOneRankWhateverIsWhere) {
    std::vector<std::string> offloads = kOffloads;
    offloads.emplace_back("none");
    int mixtures = 0;
    for (const Family family : kFamilies)
        for (const DType dtype : {DType::F32, DType::BF16}) {
            TeamRun run = offload_run(family, dtype);
            run.steps = 3;
            const TeamResult expected = RankTeam(run).train();
            for (size_t i = 0; i < offloads.size(); ++i)
                for (size_t p = i % 3; p < std::size(kPolicies); p += 3) {
                    run.offload = offloads[i], run.policy = kPolicies[p];
                    run.update_ahead = kAheads[(i + p) % kAheads.size()];
                    run.parallel.micro_batches = 2;
                    expect_same_training(RankTeam(run).train(), expected, words(run));
                    ++mixtures;
                }
        }
    EXPECT_GE(mixtures, 60);
}

TEST(DelayedUpdate, SameBitsAtEveryStageOfZero) {
    int mixtures = 0;
    for (const Family family : kFamilies)
        for (int zero = 0; zero <= kMaxZero; ++zero) {
            TeamRun run = offload_run(family, zero % 2 == 0 ? DType::BF16 : DType::F32);
            run.parallel.ranks = 2, run.zero = zero, run.steps = 3;
            const TeamResult expected = RankTeam(run).train();
            for (const char* offload : {"none", "moments", "moments,masters", "parameters", "gradients", "all"}) {
                run.offload = offload;
                run.policy = kPolicies[static_cast<size_t>(mixtures) % std::size(kPolicies)];
                run.update_ahead = kAheads[static_cast<size_t>(mixtures) % kAheads.size()];
                expect_same_training(RankTeam(run).train(), expected, words(run));
                ++mixtures;
            }
        }
    EXPECT_GE(mixtures, 48);
}

TEST(DelayedUpdate, SameBitsWhereverItIsFlushed) {
    TeamRun run = offload_run(Family::Llama, DType::BF16);
    run.steps = 5;
    const TeamResult expected = RankTeam(run).train();
    run.update_ahead = 2;
    for (const char* offload : {"moments,masters", "all"})
        for (const int flush_every : {1, 2, 3}) {
            run.offload = offload, run.flush_every = flush_every;
            expect_same_training(RankTeam(run).train(), expected, words(run));
        }
}

TEST(DelayedUpdate, SameBitsOfASingleMicroBatch) {
    for (const Family family : kFamilies) {
        TeamRun run = offload_run(family, DType::BF16);
        run.parallel.micro_batches = 1, run.steps = 3;
        const TeamResult expected = RankTeam(run).train();
        run.update_ahead = 3;
        for (const char* offload : {"none", "moments", "gradients", "all"}) {
            run.offload = offload;
            expect_same_training(RankTeam(run).train(), expected, words(run));
        }
    }
}

TEST(DelayedUpdate, SameBitsWhereSumsHoldForAnyNumberOfRanks) {
    TeamRun plain = offload_run(Family::Gpt2, DType::BF16);
    plain.parallel.rank_invariant = true, plain.parallel.micro_batches = 4;
    const TeamResult expected = RankTeam(plain).train();
    for (const int ranks : {1, 2})
        for (const int zero : {0, 1, 2, 3})
            for (const char* offload : {"moments", "all"}) {
                TeamRun run = plain;
                run.parallel.ranks = ranks, run.parallel.micro_batches = 4 / ranks;
                run.zero = zero, run.offload = offload, run.policy = "layer", run.update_ahead = 2;
                if (ranks == 1 && zero > 0) continue;
                expect_same_training(RankTeam(run).train(), expected, words(run));
            }
}

TEST(DelayedUpdate, SameBitsInOtherFormats) {
    for (const auto& [dtype, formats] : all_state_formats()) {
        const Family family = formats.gradients == DType::F32 ? Family::Gpt2 : Family::Llama;
        TeamRun plain = formats_run(family, dtype, formats);
        plain.steps = 2;
        for (const int ranks : {1, 2}) {
            plain.parallel.ranks = ranks, plain.zero = ranks == 1 ? 0 : 2;
            const TeamResult expected = RankTeam(plain).train();
            for (const char* offload : {"moments", "all"}) {
                TeamRun run = plain;
                run.offload = offload, run.update_ahead = 2;
                expect_same_training(RankTeam(run).train(), expected, words(run) + ", " + words(dtype, formats));
            }
        }
    }
}

TEST(DelayedUpdate, SameBitsWithFrozenRows) {
    for (const char* freeze : {"layers.0-1.*", "*,!layers.2.*", "*,!*ln*", "wte"})
        for (const Family family : kFamilies)
            for (const int ranks : {1, 2}) {
                TeamRun run = offload_run(family, DType::BF16);
                run.freeze = freeze;
                run.parallel.ranks = ranks, run.zero = ranks == 1 ? 0 : 3;
                const TeamResult expected = RankTeam(run).train();
                run.update_ahead = 2;
                for (const char* offload : {"none", "moments", "all"}) {
                    run.offload = offload;
                    expect_same_training(RankTeam(run).train(), expected, words(run));
                }
            }
}

/// What is skipped changes nothing, later either: the factors of the update say so, wherever it runs.
TEST(DelayedUpdate, AnUpdateThatIsSkippedIsSkippedLater) {
    TeamRun run = offload_run(Family::Gpt2, DType::F32);
    run.learning_rate = 1e30f;  // The next gradients are not finite.
    run.steps = 4;
    const TeamResult expected = RankTeam(run).train();
    ASSERT_FALSE(std::isfinite(expected.norms.back()));
    run.offload = "moments", run.update_ahead = 2;
    const TeamResult delayed = RankTeam(run).train();
    EXPECT_EQ(std::isfinite(delayed.norms.back()), std::isfinite(expected.norms.back()));
    EXPECT_EQ(std::memcmp(delayed.weights.data(), expected.weights.data(), sizeof(float) * expected.weights.size()), 0);
}

}  // namespace
}  // namespace llmc
