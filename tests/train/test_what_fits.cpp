// What fits: as many sequences and tokens as trying one after the other finds, the fastest batch no slower than others,
// and every way out of too little memory one that fits.
#include "llmc/train/what_fits.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/advice_text.h"
#include "llmc/plan/search.h"
#include "llmc/train/largest.h"
#include "llmc/train/placement.h"
#include "llmc/train/remedy.h"
#include "llmc/train/setup.h"
#include "llmc/train/what_fits_settings.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>

#include <set>

namespace llmc {
namespace {

TEST(LargestSize, IsWhatTryingAllFinds) {
    for (const int64_t unit : {1, 64}) {
        for (const int64_t cap : {1, 63, 64, 65, 1000, 5000}) {
            for (int64_t most = 0; most <= cap; most += most < 70 ? 1 : 97) {
                for (const int64_t guess : {0, 1, 50, 64, 700, 5000, 1000000}) {
                    int64_t expected = 0;
                    for (int64_t size = unit; size < cap + unit; size += unit) {
                        if (std::min(size, cap) <= most) expected = std::min(size, cap);
                    }
                    int tries = 0;
                    const auto fits = [&](int64_t size) { return ++tries, size <= most; };
                    ASSERT_EQ(largest_size(unit, cap, fits, guess), expected)
                        << unit << " " << cap << " " << most << " " << guess;
                    ASSERT_LE(tries, 40);
                }
            }
        }
    }
}

struct Case {
    Options options = parse({"plan", "--layers=3", "--channels=32", "--heads=2", "--seq-len=32", "--vocab-size=97",
                             "--device=cpu", "--device-profile=rtx3060", "--dtype=fp32", "--max-seq-len=512"});
    Model model = model_to_train(options, resolve_model(options, 0, 0));
    std::unique_ptr<Backend> backend = make_planning_backend("cpu", 1);
};

TEST(WhatFits, IsWhatTryingAllFinds) {
    Case c;
    for (const int64_t limit : {700'000, 2'000'000, 5'000'000}) {
        const WhatFits what_fits(c.options, c.model, *c.backend, limit);
        for (const char* policy : {"none", "layer", "sqrt", "offload", "auto"}) {
            int64_t batch = 0, length = 0;
            while (what_fits.measure(policy, {batch + 1, 32}).fits) ++batch;
            while (length < 512 && what_fits.measure(policy, {1, length + 64}).fits) length += 64;
            EXPECT_EQ(what_fits.batch(policy, 32), batch) << policy << " in " << limit;
            EXPECT_EQ(what_fits.sequence(policy), length) << policy << " in " << limit;
        }
    }
}

/// On a CPU, whose device is the host: with and without a bound on what is kept there.
TEST(WhatFits, HostMemoryCountsAsInTraining) {
    for (const char* budget : {"--host-memory-budget=900KiB", "--host-memory-budget=4MiB"}) {
        Options options = parse({"plan", "--layers=3", "--channels=32", "--heads=2", "--seq-len=32", "--vocab-size=97",
                                 "--device=cpu", "--dtype=fp32", "--offload=all", "--memory-budget=4MiB", budget});
        const Model model = model_to_train(options, resolve_model(options, 0, 0));
        const std::unique_ptr<Backend> backend = make_planning_backend("cpu", 1);
        const WhatFits what_fits(options, model, *backend, memory_limit(options, backend->info()));
        for (const char* level : {"layer", "sqrt", "auto"}) {
            options.recompute = level;
            EXPECT_EQ(what_fits.batch(level, 32), largest_batch(options, model, *backend)) << level << ", " << budget;
        }
    }
}

TEST(WhatFits, TheFastestIsNoSlowerThanTheOthers) {
    Case c;
    const WhatFits what_fits(c.options, c.model, *c.backend, 5'000'000);
    std::vector<int64_t> batches;
    double fixed = 0;
    for (const char* policy : {"none", "layer", "sqrt", "act", "attn"}) {
        const WhatFitsRow row = what_fits.row(policy, 32);
        ASSERT_GT(row.fastest.size, 0);
        EXPECT_GE(row.fastest.plan.tokens_per_second, row.batch.plan.tokens_per_second);
        EXPECT_TRUE(row.fastest.plan.fits);
        fixed = std::max(fixed, row.fastest.plan.tokens_per_second);
        batches.push_back(row.fastest.size);
    }
    EXPECT_GE(what_fits.row("auto", 32, batches).fastest.plan.tokens_per_second, fixed * (1 - 1e-9));
}

TEST(WhatFits, FindsAPlacementWhereNothingElseFits) {
    Case c;
    const PlanRequest request = request_for(c.options, c.model, {1, 32}, *c.backend);
    const int64_t state = state_bytes(c.model, request.places, 32, request.parallel, /*training=*/true).total();
    const auto possible = [&](const Options& options, int64_t limit) {
        PlacedFits placed(options, c.model, *c.backend, limit);
        return with_what_fits(&placed);
    };
    EXPECT_EQ(possible(c.options, 20'000'000)->offload, "none");
    const std::optional<Options> placed = possible(c.options, state);
    ASSERT_TRUE(placed);
    EXPECT_NE(placed->offload, "none");
    EXPECT_TRUE(WhatFits(*placed, c.model, *c.backend, state).fits("layer", {1, placed->seq_len}));
    EXPECT_FALSE(possible(c.options, 1000));
    Options fixed = c.options;
    fixed.given["offload"] = true;
    EXPECT_FALSE(possible(fixed, state)) << "the user's word counts";
}

/// Of a way to train by itself, and of a run that was asked for so: the same candidates, none slower than a row.
TEST(FastestSetting, IsTheSameOfAWayAndOfItsOptions) {
    Case c;
    for (const int64_t limit : {700'000, 2'000'000, 5'000'000}) {
        const WayFit way = fit_of(WayToTrain::Lora, c.options, c.model.config, *c.backend, limit);
        Options adapters = c.options;
        adapters.lora = 16;
        const Model model = model_to_train(adapters, c.model.config);
        const auto fastest = [&](const Options& options) {
            PlacedFits placed(options, model, *c.backend, limit);
            return fastest_setting(&placed, options.seq_len);
        };
        const std::optional<Setting> found = fastest(adapters);
        ASSERT_EQ(way.fits, found.has_value()) << limit;
        if (!found) continue;
        EXPECT_EQ(way.setting.level, found->level);
        EXPECT_EQ(way.setting.offload, found->offload);
        EXPECT_EQ(way.setting.batch_size, found->batch_size);
        Options placed = adapters;
        for (const std::string& offload : placements_to_try(adapters, *c.backend)) {
            placed.offload = offload;
            const WhatFits what_fits(placed, model, *c.backend, limit);
            for (const char* level : {"none", "layer", "sqrt", "act", "attn"}) {
                const double speed = what_fits.row(level, 32).fastest.plan.tokens_per_second;
                if (what_fits.batch(level, 32) == 0) continue;
                EXPECT_LE(speed, found->fit.tokens_per_second * (1 + 1e-9)) << level << " with " << offload;
            }
        }
        // What was named is kept to.
        adapters.offload = "moments", adapters.given["offload"] = true;
        const std::optional<Setting> named = fastest(adapters);
        EXPECT_TRUE(!named || named->offload == "moments");
    }
}

/// Every way out, taken in the options, fits both memories.
TEST(WaysOut, AllFit) {
    Case c;
    std::set<std::string> kinds;
    for (const char* level : {"none", "sqrt", "auto"}) {
        for (const int64_t budget : {250'000, 600'000, 900'000, 1'500'000}) {
            c.options.recompute = level, c.options.batch_size = 6;
            c.options.memory_budget = size_option(budget);
            const BatchShape shape = {6, 32};
            if (is_fitting(c.options, c.model, shape, *c.backend)) continue;
            for (const WayOut& way : ways_out(c.options, c.model, shape, *c.backend)) {
                Words words = {"plan",
                               "--layers=3",
                               "--channels=32",
                               "--heads=2",
                               "--vocab-size=97",
                               "--device=cpu",
                               "--device-profile=rtx3060",
                               "--max-seq-len=512"};
                std::map<std::string, std::string> values = {{"--batch-size", "6"},
                                                             {"--seq-len", "32"},
                                                             {"--dtype", "fp32"},
                                                             {"--recompute", level},
                                                             {"--memory-budget", size_option(budget)}};
                for (const std::string& option : way.options) {
                    const size_t at = option.find('=');
                    values[option.substr(0, at)] = option.substr(at + 1);
                    kinds.insert(option.substr(0, at));
                }
                for (const auto& [name, value] : values) words.push_back(name + "=" + value);
                const Options taken = parse(words);
                EXPECT_TRUE(seconds_if_fitting(taken, c.model, {taken.batch_size, taken.seq_len}, *c.backend))
                    << level << " in " << budget << ": " << way.words;
            }
        }
    }
    for (const char* kind : {"--memory-budget", "--batch-size", "--seq-len", "--offload"}) {
        EXPECT_EQ(kinds.count(kind), 1u) << kind;
    }
}

TEST(WaysOut, ABatchOfOneIsNotLoweredAndTheFloorIsNamed) {
    Case c;
    c.options.memory_budget = "300000B", c.options.batch_size = 1;
    for (const WayOut& way : ways_out(c.options, c.model, {1, 32}, *c.backend)) {
        EXPECT_EQ(way.words.find("--batch-size"), std::string::npos) << way.words;
    }
    EXPECT_NE(floor_words(c.options, c.model, {1, 32}, *c.backend).find("alone take"), std::string::npos);
    c.options.memory_budget = "20MiB";
    EXPECT_EQ(floor_words(c.options, c.model, {1, 32}, *c.backend), "");
}

}  // namespace
}  // namespace llmc
