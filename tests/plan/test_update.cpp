// The update at the end of a plan: which steps, in which order, about how many elements.
#include "llmc/plan/update.h"

#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {3, 7};

std::vector<std::string> words_of_update(const Model& model, const Plan& plan) {
    std::vector<std::string> words;
    for (const Step& step : plan.steps) {
        if (step.phase == Phase::Update) words.push_back(describe_step(model, step));
    }
    return words;
}

std::vector<std::string> words_of_update(int ranks, int zero) {
    const Model model = small_model(Family::Llama, 2);
    const PlanRequest request = request_of_ranks(model, kShape, DType::F32, ranks, zero);
    return words_of_update(model, make_training_plan(model, request, find_policy("layer")));
}

TEST(WithUpdate, OfOneRank) {
    EXPECT_EQ(words_of_update(1, 0), (std::vector<std::string>{
                                         "embedding, sums of squares",
                                         "layer 0, sums of squares",
                                         "layer 1, sums of squares",
                                         "head, sums of squares",
                                         "norm of the gradients",
                                         "embedding, update",
                                         "layer 0, update",
                                         "layer 1, update",
                                         "head, update",
                                     }));
}

TEST(WithUpdate, OfRanksThatUpdateEverythingOrOnlyTheirPieces) {
    // Stage 0 and stage 3 gather nothing: parameters are updated everywhere, or gathered where they are read.
    for (const int zero : {0, 3}) {
        EXPECT_EQ(words_of_update(4, zero), (std::vector<std::string>{
                                                "embedding, sums of squares",
                                                "layer 0, sums of squares",
                                                "layer 1, sums of squares",
                                                "head, sums of squares",
                                                "gather sums of squares",
                                                "norm of the gradients",
                                                "embedding, update",
                                                "layer 0, update",
                                                "layer 1, update",
                                                "head, update",
                                            }))
            << "ZeRO " << zero;
    }
}

TEST(WithUpdate, OfStagesOneAndTwoGathersEachBucketBesideTheNextOnesUpdate) {
    for (const int zero : {1, 2}) {
        EXPECT_EQ(words_of_update(4, zero), (std::vector<std::string>{
                                                "embedding, sums of squares",
                                                "layer 0, sums of squares",
                                                "layer 1, sums of squares",
                                                "head, sums of squares",
                                                "gather sums of squares",
                                                "norm of the gradients",
                                                "embedding, update",
                                                "embedding, gather parameters",
                                                "layer 0, update",
                                                "layer 0, gather parameters",
                                                "layer 1, update",
                                                "layer 1, gather parameters",
                                                "head, update",
                                                "head, gather parameters",
                                                "embedding, wait for parameters",
                                                "layer 0, wait for parameters",
                                                "layer 1, wait for parameters",
                                                "head, wait for parameters",
                                            }))
            << "ZeRO " << zero;
    }
}

TEST(WithUpdate, EndsEveryTrainingPlanAndRunsOnceAfterTheLastMicroBatch) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        for (const PolicyRow& policy : policies()) {
            for (const int ranks : {1, 4}) {
                for (int zero = 0; zero <= (ranks > 1 ? 3 : 0); ++zero) {
                    const PlanRequest request = request_of_ranks(model, kShape, DType::BF16, ranks, zero);
                    const Plan plan = make_training_plan(model, request, policy);
                    EXPECT_TRUE(plan.trains());
                    const auto begin = std::find_if(plan.steps.begin(), plan.steps.end(),
                                                    [](const Step& step) { return step.phase == Phase::Update; });
                    for (auto step = plan.steps.begin(); step != plan.steps.end(); ++step) {
                        EXPECT_EQ(step->phase == Phase::Update, step >= begin);
                        if (step >= begin) {
                            EXPECT_EQ(step->when, When::Last);
                            for (const int32_t operand : step->operands) EXPECT_EQ(operand, kNone);
                        }
                        const bool of_update = step->kind == StepKind::SquareSums ||
                                               step->kind == StepKind::GatherSums ||
                                               step->kind == StepKind::BeginUpdate || step->kind == StepKind::Update;
                        EXPECT_TRUE(!of_update || step >= begin);
                    }
                    EXPECT_EQ(words_of_update(model, plan).size(), static_cast<size_t>(plan.steps.end() - begin));
                    // It needs no memory of the plan: its layout is that of the plan without it.
                    EXPECT_EQ(make_layout(plan).arena_bytes, make_layout(without_update(plan)).arena_bytes);
                }
            }
        }
    }
}

TEST(WithUpdate, IsAboutThePiecesOfARankOrAllElements) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        for (const int ranks : {1, 2, 3, 4}) {
            for (int zero = 0; zero <= 3; ++zero) {
                const PlanRequest request = request_of_ranks(model, kShape, DType::F32, ranks, zero);
                const Plan plan = make_training_plan(model, request, find_policy("none"));
                const bool pieces = ranks > 1 && zero > 0;
                int64_t squared = 0, updated = 0;
                for (const Step& step : plan.steps) {
                    if (step.phase != Phase::Update) continue;
                    const bool of_one = step.bucket >= 0;
                    EXPECT_EQ(step.layer, of_one ? plan.partition.layer_of(step.bucket) : -1);
                    if (step.kind == StepKind::SquareSums) {
                        EXPECT_EQ(step.elements, plan.partition.bucket(step.bucket).piece);
                        squared += step.elements;
                    } else if (step.kind == StepKind::Update) {
                        const int64_t whole = plan.partition.bucket_elements(step.bucket);
                        EXPECT_EQ(step.elements, pieces ? plan.partition.bucket(step.bucket).piece : whole);
                        updated += step.elements;
                    } else {
                        EXPECT_EQ(step.elements, 0) << describe_step(model, step);
                    }
                }
                EXPECT_EQ(squared, plan.partition.shard_elements);
                EXPECT_EQ(updated, pieces ? plan.partition.shard_elements : plan.partition.elements);
            }
        }
    }
}

TEST(WithUpdate, EvaluationAndGenerationHaveNone) {
    const Model model = small_model(Family::Gpt2, 2);
    for (int zero = 0; zero <= 3; ++zero) {
        const PlanRequest request = request_of_ranks(model, {1, 5}, DType::F32, 4, zero);
        EXPECT_TRUE(words_of_update(model, make_evaluation_plan(model, request)).empty());
        EXPECT_TRUE(words_of_update(model, make_generation_plan(model, request, 40)).empty());
    }
}

TEST(FoldGradients, IsThereForSeveralMicroBatchesWhoseSumsDoNotDependOnRanks) {
    const Model model = small_model(Family::Gpt2, 2);
    for (const int ranks : {1, 2, 4}) {
        for (int zero = 0; zero <= 3; ++zero) {
            for (const bool invariant : {false, true}) {
                for (const int64_t micro_batches : {1, 2, 8}) {
                    PlanRequest request = request_of_ranks(model, kShape, DType::F32, ranks, zero);
                    request.parallel.rank_invariant = invariant;
                    request.parallel.micro_batches = micro_batches;
                    const Plan plan = make_training_plan(model, request, find_policy("layer"));
                    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
                    const bool folds = invariant && micro_batches > 1;
                    EXPECT_EQ(count(plan, StepKind::FoldGradients), folds ? 1 : 0);
                    if (!folds) continue;
                    // After all that the micro-batch writes and reduces, every time, and before the update.
                    const Step last = without_update(plan).steps.back();
                    EXPECT_EQ(last.kind, StepKind::FoldGradients);
                    EXPECT_EQ(last.when, When::Always);
                    EXPECT_EQ(last.bucket, kNone);
                }
            }
        }
    }
}

}  // namespace
}  // namespace llmc
