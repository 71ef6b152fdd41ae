// Whole trainings with state in host memory: the same bits as with everything on the device, for every mixture of what
// is where, how it is cut among ranks and what is computed again, in the memory that was planned (RankTeam checks it).
#include "llmc/plan/cost.h"
#include "tests/run/offload_cases.h"

namespace llmc {
namespace {

constexpr Family kFamilies[] = {Family::Gpt2, Family::Llama};
const char* const kPolicies[] = {"none", "layer", "sqrt", "act", "attn", "offload"};

TEST(Offload, SameBitsOfOneRankUnderEveryPolicy) {
    int mixtures = 0;
    for (const Family family : kFamilies)
        for (const DType dtype : {DType::F32, DType::BF16}) {
            const TeamResult expected = RankTeam(offload_run(family, dtype)).train();
            for (size_t i = 0; i < kOffloads.size(); ++i)
                for (size_t p = 0; p < std::size(kPolicies); ++p) {
                    const bool always = kOffloads[i] == "all";
                    if (!always && (i + p) % 3 != 0) continue;
                    TeamRun run = offload_run(family, dtype);
                    run.offload = kOffloads[i], run.policy = kPolicies[p];
                    expect_same_training(RankTeam(run).train(), expected, words(run));
                    ++mixtures;
                }
        }
    EXPECT_GE(mixtures, 60);
}

TEST(Offload, SameBitsAtEveryStageOfZero) {
    for (const Family family : kFamilies)
        for (const DType dtype : {DType::F32, DType::BF16}) {
            TeamRun plain = offload_run(family, dtype);
            plain.parallel.ranks = 2;
            TeamResult expected;
            for (int zero = 0; zero <= kMaxZero; ++zero)
                for (size_t i = 0; i < kOffloads.size(); ++i) {
                    plain.zero = zero;  // Which decides in which order micro-batches and ranks are added up.
                    if (i == 0) expected = RankTeam(plain).train();
                    const bool always = kOffloads[i] == "all";
                    if (!always && (i + static_cast<size_t>(zero) + (dtype == DType::F32 ? 0 : 1)) % 2 != 0) continue;
                    TeamRun run = plain;
                    run.offload = kOffloads[i];
                    run.policy = kPolicies[(i + static_cast<size_t>(zero)) % std::size(kPolicies)];
                    expect_same_training(RankTeam(run).train(), expected, words(run));
                }
        }
}

TEST(Offload, SameBitsWhereSumsHoldForAnyNumberOfRanks) {
    TeamRun plain = offload_run(Family::Gpt2, DType::BF16);
    plain.parallel.rank_invariant = true, plain.parallel.micro_batches = 4;
    const TeamResult expected = RankTeam(plain).train();
    for (const int ranks : {1, 2})
        for (const int zero : {0, 1, 2, 3})
            for (const char* offload : {"gradients", "all"}) {
                TeamRun run = plain;
                run.parallel.ranks = ranks, run.parallel.micro_batches = 4 / ranks;
                run.zero = zero, run.offload = offload, run.policy = "sqrt";
                if (ranks == 1 && zero > 0) continue;
                expect_same_training(RankTeam(run).train(), expected, words(run));
            }
}

TEST(Offload, SameBitsInOtherFormats) {
    for (const auto& [dtype, formats] : all_state_formats()) {
        const Family family = formats.gradients == DType::F32 ? Family::Gpt2 : Family::Llama;
        TeamRun plain = formats_run(family, dtype, formats);
        plain.steps = 2;
        for (const int ranks : {1, 2}) {
            plain.parallel.ranks = ranks;
            for (const int zero : {0, 1, 3}) {
                if ((ranks == 1) != (zero == 0)) continue;
                plain.zero = zero;
                const TeamResult expected = RankTeam(plain).train();
                for (const char* offload : {"moments,gradients", "all"}) {
                    TeamRun run = plain;
                    run.offload = offload;
                    expect_same_training(RankTeam(run).train(), expected, words(run) + ", " + words(dtype, formats));
                }
            }
        }
    }
}

TEST(Offload, SameBitsWithFrozenRows) {
    for (const char* freeze : {"layers.0-1.*", "*,!layers.2.*", "*,!*ln*", "wte", "*_bias"})
        for (const Family family : kFamilies) {
            TeamRun plain = offload_run(family, DType::BF16);
            plain.freeze = freeze;
            for (const int ranks : {1, 2}) {
                plain.parallel.ranks = ranks;
                if (family == Family::Llama && std::string(freeze) == "*_bias") continue;
                for (const int zero : {0, 2, 3}) {
                    if ((ranks == 1) != (zero == 0)) continue;
                    plain.zero = zero;
                    const TeamResult expected = RankTeam(plain).train();
                    for (const char* offload : {"parameters", "all"}) {
                        TeamRun run = plain;
                        run.offload = offload, run.policy = zero == 2 ? "sqrt" : "layer";
                        expect_same_training(RankTeam(run).train(), expected, words(run));
                    }
                }
            }
        }
}

// ---- Bytes
// -----------------------------------------------------------------------------------------------------------

PlannedMemory planned(const ModelConfig& config, const std::string& offload, const std::string& policy = "layer") {
    static const auto backend = make_backend("cpu", 1);
    const Places places = with_offload(Places(DType::BF16), offload);
    return plan_memory(make_model(config), {1, 16}, places, find_policy(policy), 0, *backend);
}

TEST(OffloadBytes, WhatIsInHostMemoryIsNotOnTheDeviceAndTheSameThere) {
    const ModelConfig config = preset("gpt2");
    const PlannedMemory here = planned(config, "none"), away = planned(config, "all");
    EXPECT_EQ(here.host_bytes(), 0);
    EXPECT_EQ(away.host_state.parameters, here.state.parameters);
    EXPECT_EQ(away.host_state.gradients, here.state.gradients);
    EXPECT_EQ(away.host_state.moments(), here.state.moments());
    EXPECT_EQ(away.host_state.master, here.state.master);
    EXPECT_EQ(away.state.total(), here.state.scalars + here.state.rope_table);
    EXPECT_EQ(away.plan.host_bytes, (config.L - 2) * 16 * config.C * 2) << "boundaries";
    int64_t rows = 0;
    for (const MemoryRow& row : away.host_rows()) rows += row.bytes;
    EXPECT_EQ(rows, away.host_bytes());
    // 16 bytes a parameter become two buckets of weights and gradients, and slots.
    EXPECT_LT(away.total_bytes(), here.total_bytes() / 2);
}

/// Item for item what an update moves: 12 bytes a parameter each way with moments and masters, all elements once.
TEST(OffloadBytes, MovedPerUpdate) {
    const ModelConfig config = preset("gpt2");
    const PlannedMemory memory = planned(config, "moments,masters");
    const HostTraffic traffic = host_traffic_per_update(memory.plan);
    EXPECT_EQ(traffic.in, 12 * memory.plan.partition.elements);
    EXPECT_EQ(traffic.out, 12 * memory.plan.partition.elements);
}

/// Slots of the update have room that only micro-batches need: the arena is no larger than either.
TEST(OffloadBytes, SlotsOverlayWhatMicroBatchesNeed) {
    ModelConfig config = preset("gpt2");
    const auto backend = make_backend("cpu", 1);
    const auto arena = [&](const char* offload) {
        const Places places = with_offload(Places(DType::BF16), offload);
        return plan_memory(make_model(config), {8, 256}, places, find_policy("none"), 0, *backend).layout.arena_bytes;
    };
    EXPECT_EQ(arena("moments,masters"), arena("none"));
}

}  // namespace
}  // namespace llmc
