// The table of places: the fillings that have names, row by row, and every contradiction there can be.
#include "llmc/base/error.h"
#include "llmc/plan/formats.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>

namespace llmc {
namespace {

constexpr Buffer kBuffers[] = {Buffer::Parameters, Buffer::Masters, Buffer::Gradients, Buffer::MomentM,
                               Buffer::MomentV,    Buffer::Frozen,  Buffer::Boundaries};

/// A filling in letters, in the order of the rows: whole, in pieces, or - for what does not exist.
std::string spread_of(const Places& places) {
    std::string letters;
    for (const Buffer buffer : kBuffers) {
        letters += !places[buffer].exists ? '-' : places.in_pieces(buffer) ? 'P' : 'W';
    }
    return letters;
}

void expect_formats(const Places& places, DType parameters) {
    for (const Buffer buffer : kBuffers) {
        const bool of_parameters = buffer == Buffer::Parameters || buffer == Buffer::Boundaries;
        const DType other = buffer == Buffer::Frozen ? DType::U8 : DType::F32;
        EXPECT_EQ(places.format(buffer), of_parameters ? parameters : other) << name_of(buffer);
        EXPECT_EQ(places[buffer].memory, Memory::Device) << name_of(buffer);
        EXPECT_EQ(places[buffer].exists, buffer != Buffer::Masters || parameters == DType::BF16) << name_of(buffer);
    }
    EXPECT_EQ(places.base(), plain_format(parameters));
    EXPECT_EQ(places.optimizer(), OptimizerKind::AdamW);
    EXPECT_EQ(places.fault(), "");
}

TEST(Places, HaveAnotherNameForEveryRow) {
    std::set<std::string_view> names;
    for (const Buffer buffer : kBuffers) names.insert(name_of(buffer));
    EXPECT_EQ(names.size(), static_cast<size_t>(kNumBuffers));
}

TEST(Places, AreWholeAndOnTheDeviceUnlessSaidOtherwise) {
    EXPECT_EQ(spread_of(Places()), "W-WWWWW");
    EXPECT_EQ(spread_of(Places(DType::BF16)), "WWWWWWW");
    expect_formats(Places(), DType::F32);
    expect_formats(Places(DType::BF16), DType::BF16);
    EXPECT_EQ(Places().describe(), "");
}

TEST(PlacesOfZero, CutOneMoreBufferPerStage) {
    struct Filling {
        const char* fp32;
        const char* bf16;
        const char* words;
        bool updates_pieces, gathers_after_update, shares_sums;
    };
    const Filling expected[] = {
        {"W-WWWWW", "WWWWWWW", "", false, false, true},
        {"W-WPPWW", "WPWPPWW", "optimiser state in pieces", true, true, false},
        {"W-PPPWW", "WPPPPWW", "optimiser state and gradients in pieces", true, true, false},
        {"P-PPPPW", "PPPPPPW", "optimiser state, gradients and parameters in pieces", true, false, false},
    };
    for (int stage = 0; stage <= kMaxZero; ++stage) {
        const Filling& filling = expected[stage];
        for (const DType dtype : {DType::F32, DType::BF16}) {
            for (const int ranks : {2, 3, 8}) {
                const Places places = places_of_zero(stage, ranks, dtype);
                EXPECT_EQ(spread_of(places), dtype == DType::F32 ? filling.fp32 : filling.bf16);
                EXPECT_EQ(places.describe(), filling.words);
                EXPECT_EQ(places.updates_pieces(), filling.updates_pieces);
                EXPECT_EQ(places.gathers_after_update(), filling.gathers_after_update);
                EXPECT_EQ(places.shares_sums(), filling.shares_sums);
                expect_formats(places, dtype);
                EXPECT_EQ(places, places_of_zero(stage, 2, dtype)) << "depends on the number of ranks";
            }
        }
    }
}

TEST(PlacesOfZero, OneRankHasNobodyToShareWith) {
    for (int stage = 0; stage <= kMaxZero; ++stage) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            EXPECT_EQ(places_of_zero(stage, 1, dtype), Places(dtype));
        }
    }
    EXPECT_EQ(places_of_zero(0, 8, DType::BF16), Places(DType::BF16));
}

TEST(PlacesOfZeroDeathTest, ThereAreFourStages) {
    EXPECT_DEATH(places_of_zero(-1, 2, DType::F32), "check failed");
    EXPECT_DEATH(places_of_zero(4, 2, DType::F32), "check failed");
}

TEST(Places, UpdateBytesByHand) {
    // Weight, m and v are read and written, the gradient is read: 7 numbers of 4 bytes. bf16 does so with the master
    // weight, and writes the rounded one.
    for (int stage = 0; stage <= kMaxZero; ++stage) {
        EXPECT_EQ(places_of_zero(stage, 4, DType::F32).update_bytes(), 28);
        EXPECT_EQ(places_of_zero(stage, 4, DType::BF16).update_bytes(), 30);
    }
    Places one_moment(DType::BF16);  // As of an optimiser with one moment.
    one_moment[Buffer::MomentV].exists = false;
    EXPECT_EQ(one_moment.update_bytes(), 22);
    // Both ways: a weight of 2 bytes, two codes and two scales for 256 of them; and a gradient of 2.
    const Places smallest = with_formats(Places(DType::BF16), {DType::U8, false, DType::BF16});
    EXPECT_DOUBLE_EQ(smallest.update_bytes(), 2 * (2 + 2 * (1 + 4.0 / 256)) + 2);
    EXPECT_EQ(with_formats(Places(DType::BF16), {DType::BF16, true, DType::F32}).update_bytes(), 2 * (4 + 4) + 4 + 2);
}

TEST(Places, FormatsAreAFillingOfTheTable) {
    for (const DType dtype : {DType::F32, DType::BF16})
        for (const DType moments : {DType::F32, DType::BF16, DType::U8})
            for (const bool masters : {true, false})
                for (const DType gradients : {DType::F32, DType::BF16})
                    for (int stage = 0; stage <= kMaxZero; ++stage) {
                        const StateFormats formats = {moments, masters, gradients};
                        const Places places = with_formats(places_of_zero(stage, 4, dtype), formats);
                        EXPECT_EQ(places.fault(), "");
                        EXPECT_EQ(places.format(Buffer::MomentM), moments);
                        EXPECT_EQ(places.format(Buffer::MomentV), moments);
                        EXPECT_EQ(places[Buffer::Masters].exists, masters && dtype == DType::BF16);
                        EXPECT_EQ(places.row_multiple(), moments == DType::U8 ? 256 : 1);
                        EXPECT_EQ(places.gathers_gradients_apart(), stage >= 2 || gradients == DType::BF16);
                        const bool rounds_weights = dtype == DType::BF16 && !masters;
                        EXPECT_EQ(places.rounds(),
                                  rounds_weights || moments == DType::BF16 || gradients == DType::BF16);
                        StateFormats expected = formats;
                        if (dtype == DType::F32) expected.masters = true;  // There is nothing to do without.
                        EXPECT_EQ(formats_of(places), expected);
                        EXPECT_EQ(with_formats(places, StateFormats()).format(Buffer::MomentM), DType::F32);
                    }
    EXPECT_EQ(describe(StateFormats()), "");
    EXPECT_EQ(describe(StateFormats{DType::U8, false, DType::BF16}), "moments 8bit, masters none, gradients bf16");
    for (const DType format : {DType::F32, DType::BF16, DType::U8})
        EXPECT_EQ(format_named(format_name(format), "--moments"), format);
    EXPECT_THROW(format_named("uint8", "--moments"), Error);
}

/// What fault() says of a filling after a change.
std::string fault_after(Places places, const std::function<void(Places&)>& change) {
    EXPECT_EQ(places.fault(), "");
    change(places);
    return places.fault();
}

TEST(PlacesFault, ARankUpdatesOnlyWhatItHasTheGradientOf) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
        const auto cut = [&](int stage, Buffer buffer) {
            return fault_after(places_of_zero(stage, 4, dtype), [&](Places& p) { p[buffer].spread = Spread::Pieces; });
        };
        EXPECT_EQ(cut(0, Buffer::Parameters),
                  "parameters in pieces need gradients in pieces: a rank could not update what it has no gradient of");
        EXPECT_EQ(cut(1, Buffer::Parameters), cut(0, Buffer::Parameters));
        EXPECT_EQ(
            cut(0, Buffer::Gradients),
            "gradients in pieces need first moments in pieces: a rank could not update what it has no gradient of");
        EXPECT_EQ(cut(1, Buffer::Gradients), "");
        EXPECT_EQ(cut(2, Buffer::Parameters), "") << "that is stage 3";
    }
}

TEST(PlacesFault, WhatIsUpdatedTogetherIsCutTogether) {
    const auto other = [](Places places, Buffer buffer) {
        Place& place = places[buffer];
        place.spread = place.spread == Spread::Whole ? Spread::Pieces : Spread::Whole;
        return places.fault();
    };
    const std::string of_v = "first moments and second moments are updated together: both whole, or both in pieces";
    const std::string of_masters =
        "first moments and master weights are updated together: both whole, or both in pieces";
    for (const int stage : {0, 1, 2, 3}) {
        const Places fp32 = places_of_zero(stage, 4, DType::F32), bf16 = places_of_zero(stage, 4, DType::BF16);
        for (const Places& places : {fp32, bf16}) EXPECT_EQ(other(places, Buffer::MomentV), of_v);
        EXPECT_EQ(other(bf16, Buffer::Masters), of_masters);
        EXPECT_EQ(other(fp32, Buffer::Masters), "") << "there are none";
        EXPECT_NE(other(bf16, Buffer::MomentM), "");
    }
}

TEST(PlacesFault, BoundariesAreARanksOwnAndEverythingMayBeOnTheHost) {
    EXPECT_EQ(fault_after(Places(), [](Places& p) { p[Buffer::Boundaries].spread = Spread::Pieces; }),
              "layer boundaries are each rank's own, and have no pieces");
    for (int stage = 0; stage <= kMaxZero; ++stage) {
        for (const Buffer buffer : kBuffers) {
            EXPECT_EQ(
                fault_after(places_of_zero(stage, 4, DType::BF16), [&](Places& p) { p[buffer].memory = Memory::Host; }),
                "");
        }
        Places places = places_of_zero(stage, 4, DType::F32);
        places[Buffer::Boundaries].memory = Memory::Host;
        const std::string before = places_of_zero(stage, 4, DType::F32).describe();
        EXPECT_EQ(places.describe(), (before.empty() ? "" : before + "; ") + "layer boundaries on the host");
    }
}

TEST(PlacesFault, OnlyRoundedParametersHaveMasters) {
    EXPECT_EQ(fault_after(Places(), [](Places& p) { p[Buffer::Masters].exists = true; }),
              "fp32 parameters have no master weights: they are the weights");
    EXPECT_EQ(fault_after(Places(DType::BF16), [](Places& p) { p[Buffer::Masters].exists = false; }), "");
}

TEST(PlacesFault, EverythingButMastersExists) {
    for (const Buffer buffer : {Buffer::Parameters, Buffer::Gradients, Buffer::MomentM, Buffer::Boundaries}) {
        EXPECT_EQ(fault_after(Places(), [&](Places& p) { p[buffer].exists = false; }),
                  "there are always " + std::string(name_of(buffer)));
    }
    EXPECT_EQ(fault_after(Places(), [](Places& p) { p[Buffer::MomentV].exists = false; }),
              "second moments are not those of the optimiser");
}

TEST(PlacesFault, FormatsThereAreNot) {
    const auto kept_in = [](Buffer buffer, DType format) {
        return fault_after(Places(DType::BF16), [&](Places& p) {
            p[buffer].format = format;
            if (buffer == Buffer::MomentM) p[Buffer::MomentV].format = format;
        });
    };
    EXPECT_EQ(kept_in(Buffer::Masters, DType::BF16), "master weights are kept in fp32");
    EXPECT_EQ(kept_in(Buffer::Gradients, DType::U8), "gradients are kept in fp32 or bf16");
    EXPECT_EQ(kept_in(Buffer::MomentM, DType::F16), "first moments are kept in fp32, bf16 or 8-bit blocks");
    EXPECT_EQ(kept_in(Buffer::MomentV, DType::BF16), "first and second moments are kept in one format");
    EXPECT_EQ(kept_in(Buffer::MomentM, DType::U8), "");
    EXPECT_EQ(kept_in(Buffer::Frozen, DType::BF16), "frozen parameters are kept as bytes");
    EXPECT_EQ(kept_in(Buffer::Parameters, DType::F16), "parameters are kept as activations are, or in fp32");
    EXPECT_EQ(fault_after(for_adapters(DType::BF16), [](Places&) {}), "");
}

}  // namespace
}  // namespace llmc
