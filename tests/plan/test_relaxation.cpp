// The bound of the search: below every plan there is, and near what the search finds for large models.
#include "llmc/plan/relaxation.h"

#include "llmc/plan/simulate.h"
#include "tests/plan/search_cases.h"

#include <gtest/gtest.h>

#include <string>

namespace llmc {
namespace {

using namespace search_cases;

TEST(Relaxation, NoPlanIsFaster) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        for (int64_t L = 1; L <= 4; ++L) {
            const Model model = small_model(family, L);
            const PlanRequest request = request_for(model);
            const OpTimes times = times_for(model, request);
            const BruteForce all(model, request, times);
            int near = 0;
            for (size_t i = 0; i < all.outcomes().size(); i += L == 4 ? 7 : 1) {
                const Outcome& plan = all.outcomes()[i];
                const double bound = relaxed_seconds(model, request, times, plan.bytes);
                ASSERT_LE(bound, plan.seconds * (1 + 1e-9)) << L << " layers, " << plan.bytes << " bytes";
                near += bound > 0.99 * plan.seconds ? 1 : 0;
            }
            EXPECT_GT(near, 0);
        }
    }
}

TEST(Relaxation, IsWhatNothingRepeatedTakesWhereAllFits) {
    const Model model = small_model(Family::Llama, 12);
    const PlanRequest request = request_for(model);
    const OpTimes times = times_for(model, request);
    const Plan none = make_training_plan(model, request, find_policy("none"));
    const double all = plan_seconds(times, none);
    EXPECT_NEAR(relaxed_seconds(model, request, times, int64_t{1} << 40), all, 1e-9 * all);
    EXPECT_GT(relaxed_seconds(model, request, times, simulate(model, none).peak_bytes / 2), 1.02 * all);
    EXPECT_EQ(relaxed_seconds(model, request, times, 1024), std::numeric_limits<double>::infinity());
}

/// Shares of what the layers keep at most: of the whole, from level 0 down to the smallest plan.
TEST(Relaxation, TheSearchIsNearItForLargeModels) {
    for (const char* name : {"gpt2-xl", "llama3-8b", "llama3-70b"}) {
        const Model model = make_model(preset(name));
        PlanRequest request;
        request.shape = {1, 1024};
        request.places = Places(DType::BF16);
        request.logits_chunk_tokens = default_logits_chunk(model, request.shape, "sm_90");
        const OpTimes times = analytic_times(model, request.shape, request.places, find_device_profile("h100"));
        const int64_t none = make_layout(make_training_plan(model, request, find_policy("none"))).arena_bytes;
        const int64_t layer = make_layout(make_training_plan(model, request, find_policy("layer"))).arena_bytes;
        for (const double share : {0.0, 0.25, 0.5, 0.75, 1.0}) {
            const auto budget = layer + static_cast<int64_t>(share * static_cast<double>(none - layer));
            const SearchResult found = search_plan(model, request, times, budget, SearchEffort::Quick);
            ASSERT_TRUE(found.found) << name << " " << share;
            const double ratio = found.seconds / relaxed_seconds(model, request, times, budget);
            std::printf("%s %.2f %.4f\n", name, share, ratio);
            EXPECT_GE(ratio, 1 - 1e-9) << name << " " << share;
            EXPECT_LE(ratio, 1.03) << name << " " << share;
        }
    }
}

}  // namespace
}  // namespace llmc
