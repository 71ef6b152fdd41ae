#include "llmc/plan/layout.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(Lifetimes, RunFromTheFirstUseToTheLast) {
    const Model model = small_model(Family::Llama, 4);
    for (const PolicyRow& policy : policies()) {
        const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32, 100), policy);
        const std::vector<Lifetime> lives = lifetimes(plan);
        size_t seen = 0;
        for (const Storage& storage : storages(plan, make_layout(plan))) {
            EXPECT_EQ(lives[static_cast<size_t>(storage.tensor)].first, storage.first);
            EXPECT_EQ(lives[static_cast<size_t>(storage.tensor)].last, storage.last);
            EXPECT_LE(storage.first, storage.last) << "a tensor that no step uses";
            ++seen;
        }
        for (size_t t = 0; t < plan.tensors.size(); ++t) {
            if (plan.tensors[t].alias < 0) continue;
            EXPECT_LT(lives[t].last, lives[t].first) << "an alias has no lifetime of its own";
            EXPECT_EQ(storage_of(plan, static_cast<int32_t>(t)), storage_of(plan, plan.tensors[t].alias));
            ++seen;
        }
        EXPECT_EQ(seen, plan.tensors.size());
    }
}

/// Checks a layout pair by pair; returns the arena's size that the storages need.
void expect_sound(const Plan& plan, const Layout& layout, const std::string& where) {
    const std::vector<Storage> all = storages(plan, layout);
    int64_t end = 0;
    for (size_t i = 0; i < all.size(); ++i) {
        ASSERT_GE(all[i].begin, 0) << where;
        ASSERT_EQ(all[i].begin % kPlanAlignment, 0) << where;
        ASSERT_EQ((all[i].end - all[i].begin) % kPlanAlignment, 0) << where;
        end = std::max(end, all[i].end);
        for (size_t j = 0; j < i; ++j) {
            ASSERT_FALSE(all[i].together_with(all[j]) && all[i].touches(all[j]))
                << where << ": " << plan.tensors[static_cast<size_t>(all[i].tensor)].name << " and "
                << plan.tensors[static_cast<size_t>(all[j].tensor)].name << " share bytes while both live";
        }
    }
    EXPECT_EQ(layout.arena_bytes, end) << where;
    for (size_t t = 0; t < plan.tensors.size(); ++t) {
        const int32_t alias = plan.tensors[t].alias;
        if (alias < 0) continue;
        ASSERT_EQ(layout.offsets[t], layout.offsets[static_cast<size_t>(alias)]) << where;
        ASSERT_LE(plan.tensors[t].bytes, plan.tensors[static_cast<size_t>(alias)].bytes) << where;
    }
}

TEST(Layout, LiveTensorsNeverShareBytes) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 3, 4, 5, 7, 12, 13}) {
            const Model model = small_model(family, L);
            for (const BatchShape& shape : kShapes) {
                for (const PolicyRow& policy : policies()) {
                    const DType dtype = L % 2 == 0 ? DType::BF16 : DType::F32;
                    const Plan plan = make_training_plan(model, request_of(model, shape, dtype, 300 * (L % 3)), policy);
                    expect_sound(plan, make_layout(plan), label(model, shape, dtype, policy.name));
                }
            }
        }
    }
}

TEST(Layout, MeetsThePeakExactlyOnTheSmallModels) {
    for (const Family family : kFamilies) {
        for (const int L : kDepths) {
            const Model model = small_model(family, L);
            for (const BatchShape& shape : kShapes) {
                for (const DType dtype : kTypes) {
                    for (const PolicyRow& policy : policies()) {
                        const Plan plan = make_training_plan(model, request_of(model, shape, dtype), policy);
                        EXPECT_EQ(make_layout(plan).arena_bytes, simulate(model, plan).peak_bytes)
                            << label(model, shape, dtype, policy.name);
                    }
                }
            }
        }
    }
}

TEST(Layout, MeetsThePeakOfRealModelsButForAStatistic) {
    for (const char* name : {"gpt2", "gpt2-xl", "tinyllama-1.1b", "llama3.2-1b", "llama2-7b", "llama3-8b"}) {
        const Model model = make_model(preset(name));
        for (const BatchShape& shape : {BatchShape{1, 1024}, BatchShape{3, 333}}) {
            for (const PolicyRow& policy : policies()) {
                const Plan plan = make_training_plan(model, request_of(model, shape, DType::BF16), policy);
                const int64_t gaps = make_layout(plan).arena_bytes - simulate(model, plan).peak_bytes;
                EXPECT_GE(gaps, 0);
                EXPECT_LE(gaps, tensor_bytes(shape, 1, 4)) << label(model, shape, DType::BF16, policy.name);
            }
        }
    }
}

TEST(Layout, StaysWithinTwoPercentOfThePeakWithWorkspaces) {
    for (const char* name : {"gpt2-nano", "gpt2-mini", "llama-mini", "gpt2", "tinyllama-1.1b"}) {
        ModelConfig config = preset(name);
        config.maxT = 2048;
        const Model model = make_model(config);
        for (const int64_t workspace : {100'000, 3'000'000, 30'000'000}) {
            for (const BatchShape& shape : {BatchShape{4, 64}, BatchShape{1, 333}, BatchShape{3, 1024}}) {
                for (const PolicyRow& policy : policies()) {
                    const Plan plan =
                        make_training_plan(model, request_of(model, shape, DType::F32, workspace), policy);
                    const auto peak = static_cast<double>(simulate(model, plan).peak_bytes);
                    EXPECT_LE(static_cast<double>(make_layout(plan).arena_bytes), 1.02 * peak)
                        << label(model, shape, DType::F32, policy.name) << ", workspaces of " << workspace;
                }
            }
        }
    }
}

TEST(Layout, OfRanksIsSoundAndStaysWithinTwoPercentOfThePeak) {
    int at_the_peak = 0, plans = 0;
    const auto check = [&](const Model& model, const PlanRequest& request, const PolicyRow& policy) {
        const Plan plan = make_training_plan(model, request, policy);
        const Layout layout = make_layout(plan);
        const std::string where = label(model, request.shape, request.dtype(), policy.name) + ", ZeRO " +
                                  std::to_string(zero_of(request.places));
        expect_sound(plan, layout, where);
        const int64_t peak = simulate(model, plan).peak_bytes;
        EXPECT_LE(static_cast<double>(layout.arena_bytes), 1.02 * static_cast<double>(peak)) << where;
        at_the_peak += layout.arena_bytes == peak;
        ++plans;
    };
    for (const PolicyRow& policy : policies()) {
        for (int zero = 0; zero <= 3; ++zero) {
            for (const bool exchanges : {false, true}) {
                for (const Family family : kFamilies) {
                    const Model model = small_model(family, 7);
                    for (const BatchShape& shape : {BatchShape{1, 1}, BatchShape{2, 64}, BatchShape{4, 257}}) {
                        check(model, request_of_ranks(model, shape, DType::F32, 4, zero, exchanges), policy);
                    }
                }
                for (const char* name : {"gpt2", "tinyllama-1.1b"}) {
                    const Model model = make_model(preset(name));
                    for (const BatchShape& shape : {BatchShape{1, 1024}, BatchShape{8, 512}}) {
                        check(model, request_of_ranks(model, shape, DType::BF16, 8, zero, exchanges), policy);
                    }
                }
            }
        }
    }
    EXPECT_GE(at_the_peak, plans * 9 / 10);
}

TEST(Layout, TheSamePlanGivesTheSameLayout) {
    const Model model = small_model(Family::Llama, 7);
    const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::BF16, 77), find_policy("sqrt"));
    EXPECT_EQ(make_layout(plan).offsets, make_layout(plan).offsets);
}

TEST(ArenaWithin, SaysWhatTheLayoutFinds) {
    for (const int ranks : {1, 4}) {
        const Model model = small_model(Family::Llama, 7);
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(
                model, request_of_ranks(model, {2, 64}, DType::F32, ranks, ranks > 1 ? 3 : 0), policy);
            const int64_t arena = make_layout(plan).arena_bytes;
            const int64_t bound = arena_within(plan, arena).bound_bytes;
            EXPECT_LE(bound, arena) << policy.name;
            for (const int64_t bytes :
                 {arena - 1, arena, arena + 1, 2 * arena, bound - 1, bound, (bound + arena) / 2}) {
                EXPECT_EQ(arena_within(plan, bytes).fits, arena <= bytes) << policy.name << ", " << bytes;
            }
        }
    }
}

}  // namespace
}  // namespace llmc
