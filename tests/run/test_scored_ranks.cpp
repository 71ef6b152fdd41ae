// One loss however an update is cut: at any micro-batch size, number of micro-batches and of ranks, where sequences
// have very different numbers of targets that count, and some none at all; and the same bits in every place.
#include "tests/run/rank_team.h"

#include <algorithm>

namespace llmc {
namespace {

constexpr int64_t kT = 16, kSequences = 12;  ///< Of an update.

/// Sequence after sequence: everything counts, or little, or nothing; documents begin anywhere.
class UnevenSequences final : public Sequences {
  public:
    explicit UnevenSequences(bool packed) : Sequences(kT), packed_(packed) {}
    int64_t per_epoch() const override { return 1000; }
    bool packed() const override { return packed_; }
    bool partly_scored() const override { return true; }
    int64_t scored(int64_t sequence) const override {
        int64_t count = 0;
        for (int64_t slot = 0; slot < kT; ++slot) count += counts(sequence, slot) ? 1 : 0;
        return count;
    }
    void read(int64_t sequence, const SequenceSlots& out) const override {
        int32_t start = 0;
        for (int64_t slot = 0; slot < kT; ++slot) {
            const auto at = static_cast<size_t>(slot);
            out.tokens[at] = draw(sequence, slot, 97);
            out.targets[at] = counts(sequence, slot) ? draw(sequence, slot + kT, 97) : -1;
            if (draw(sequence, slot + 2 * kT, 5) == 0) start = static_cast<int32_t>(slot);
            if (packed_) out.documents[at] = start;
            out.numbers[at] = static_cast<int32_t>(sequence * kT) + start;
        }
    }
    std::string describe() const override { return ""; }

  private:
    static int32_t draw(int64_t sequence, int64_t item, uint64_t limit) {
        return static_cast<int32_t>(
            philox(11, RngStream::Test, static_cast<uint32_t>(sequence), static_cast<uint64_t>(item))[0] % limit);
    }
    static bool counts(int64_t sequence, int64_t slot) {
        const int64_t kind = sequence % 5;
        if (kind == 2 || kind == 3) return false;
        return kind == 0 || draw(sequence, slot + 3 * kT, 8) == 0;
    }
    bool packed_;
};

TeamRun uneven_run(Family family, bool packed, int ranks, int64_t B, int zero = 0) {
    TeamRun run;
    run.config = preset(family == Family::Gpt2 ? "gpt2-nano" : "llama-nano");
    run.config.family = family, run.config.features = row_of(family).features;
    run.config.L = 2, run.config.C = 32, run.config.NH = 2, run.config.HD = 16, run.config.V = 97;
    run.config.NKV = family == Family::Gpt2 ? 2 : 1;
    run.config.F = family == Family::Gpt2 ? 128 : 88;
    run.config.maxT = kT;
    run.shape = {B, kT};
    run.parallel.ranks = ranks, run.zero = zero, run.parallel.micro_batches = kSequences / (ranks * B);
    run.sequences = std::make_shared<UnevenSequences>(packed);
    return run;
}

class ScoredRanksTest : public testing::TestWithParam<Family> {};

/// Adapters at a rate at which masks matter. Gradients that are nothing but rounding (a norm of heads makes some) move
/// no weight as far as AdamW would with its usual epsilon.
TeamRun with_dropout(TeamRun run) {
    run.dropout = 0.2;
    run.lora = 2, run.lora_dropout = 0.3, run.learning_rate = 3e-2f, run.adam_epsilon = 1e-5f;
    return run;
}

/// Masks are drawn by what no cut changes: another one of a few elements would be seen.
TEST_P(ScoredRanksTest, OneLossHoweverTheUpdateIsCutWithDropout) {
    for (const bool packed : {true, false}) {
        const TeamResult whole = RankTeam(with_dropout(uneven_run(GetParam(), packed, 1, kSequences))).train();
        for (const auto& [ranks, B] : {std::pair(1, 2), std::pair(2, 3), std::pair(4, 1)}) {
            const TeamResult cut = RankTeam(with_dropout(uneven_run(GetParam(), packed, ranks, B))).train();
            for (size_t step = 0; step < whole.losses.size(); ++step) {
                EXPECT_NEAR(cut.losses[step] / whole.losses[step], 1, 1e-6) << ranks << " ranks, B = " << B;
                EXPECT_NEAR(cut.norms[step] / whole.norms[step], 1, 1e-5) << ranks << " ranks, B = " << B;
            }
        }
    }
}

TEST_P(ScoredRanksTest, OneLossHoweverTheUpdateIsCut) {
    for (const bool packed : {true, false}) {
        const TeamResult whole = RankTeam(uneven_run(GetParam(), packed, 1, kSequences)).train();
        for (const int ranks : {1, 2, 3, 4}) {
            for (const int64_t B : {1, 2, 3, 4, 6}) {
                if (kSequences % (ranks * B) != 0) continue;
                const TeamResult cut = RankTeam(uneven_run(GetParam(), packed, ranks, B)).train();
                for (size_t step = 0; step < whole.losses.size(); ++step) {
                    EXPECT_NEAR(cut.losses[step] / whole.losses[step], 1, 1e-6) << ranks << " ranks, B = " << B;
                    EXPECT_NEAR(cut.norms[step] / whole.norms[step], 1, 1e-5) << ranks << " ranks, B = " << B;
                }
            }
        }
    }
}

TEST_P(ScoredRanksTest, StagesPoliciesAndPlacesGiveTheSameBits) {
    const TeamResult expected = RankTeam(uneven_run(GetParam(), true, 3, 4)).train();
    for (int zero = 0; zero <= 3; ++zero) {
        for (const PolicyRow& policy : policies()) {
            TeamRun run = uneven_run(GetParam(), true, 3, 4, zero);
            run.policy = policy.name;
            const TeamResult team = RankTeam(run).train();
            EXPECT_EQ(team.losses, expected.losses) << "ZeRO " << zero << ", " << policy.name;
            EXPECT_EQ(team.weights, expected.weights) << "ZeRO " << zero << ", " << policy.name;
        }
    }
    const TeamResult alone = RankTeam(uneven_run(GetParam(), true, 1, 2)).train();
    for (const char* offload : {"moments", "gradients", "parameters", "boundaries", "all"}) {
        TeamRun run = uneven_run(GetParam(), true, 1, 2);
        run.offload = offload;
        const TeamResult away = RankTeam(run).train();
        EXPECT_EQ(away.losses, alone.losses) << offload;
        EXPECT_EQ(away.weights, alone.weights) << offload;
    }
}

/// The order of sums that holds for any number of ranks.
TEST_P(ScoredRanksTest, FixedOrderGivesTheBitsOfOneRank) {
    TeamRun one = uneven_run(GetParam(), true, 1, 3);
    one.parallel.rank_invariant = true;
    const TeamResult expected = RankTeam(one).train();
    for (const int ranks : {2, 4}) {
        TeamRun run = uneven_run(GetParam(), true, ranks, 3, ranks == 4 ? 3 : 0);
        run.parallel.rank_invariant = true;
        const TeamResult team = RankTeam(run).train();
        EXPECT_EQ(team.norms, expected.norms) << ranks;
        EXPECT_EQ(team.weights, expected.weights) << ranks;
    }
}

INSTANTIATE_TEST_SUITE_P(Families, ScoredRanksTest, testing::Values(Family::Gpt2, Family::Llama, Family::Qwen3),
                         [](const auto& info) { return std::string(row_of(info.param).key); });

}  // namespace
}  // namespace llmc
