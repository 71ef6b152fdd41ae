// The verifier on gradients and the update: plans that were right are damaged, and it must see it and say what it is.
#include "llmc/plan/verify_update.h"

#include "llmc/plan/communicate.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <set>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

struct Checked {
    Model model;
    Plan plan;
    Layout layout;
    std::string fault() const { return find_fault(model, plan, layout); }
};

Checked checked(const Model& model, int ranks, int zero, bool invariant = false) {
    PlanRequest request = request_of_ranks(model, {3, 7}, DType::F32, ranks, zero);
    request.logits_chunk_tokens = 8;
    request.parallel.rank_invariant = invariant;
    request.parallel.micro_batches = 3;
    Plan plan = make_training_plan(model, request, find_policy("layer"));
    Layout layout = make_layout(plan);
    Checked item = {model, std::move(plan), std::move(layout)};
    EXPECT_EQ(item.fault(), "");
    return item;
}

std::vector<Checked> cases() {
    std::vector<Checked> all;
    for (const Model& model : small_models(3)) {
        for (const bool invariant : {false, true}) {
            all.push_back(checked(model, 1, 0, invariant));
            for (int zero = 0; zero <= 3; ++zero) all.push_back(checked(model, 4, zero, invariant));
        }
    }
    return all;
}

std::string where(const Checked& item, size_t step) {
    return fmt::format("{}, {}, {} ranks, ZeRO {}{}, step {} ({})", item.model.config.name,
                       item.model.config.tied ? "tied" : "untied", item.plan.parallel.ranks, zero_of(item.plan.places),
                       item.plan.parallel.rank_invariant ? ", rank-invariant" : "", step,
                       describe_step(item.model, item.plan.steps[step]));
}

int64_t index_of(const Plan& plan, StepKind kind, int bucket) {
    const auto found = std::find_if(plan.steps.begin(), plan.steps.end(),
                                    [&](const Step& step) { return step.kind == kind && step.bucket == bucket; });
    EXPECT_NE(found, plan.steps.end()) << "no such step for bucket " << bucket;
    return found - plan.steps.begin();
}

/// The tied head of a model without learned positions writes the whole embedding, which has no gaps here.
bool is_written_whole(const Model& model, int bucket) { return bucket == 0 && model.config.tied && model.wpe == kNone; }

void erase(Plan& plan, int64_t at) { plan.steps.erase(plan.steps.begin() + at); }

void move_step(Plan& plan, int64_t from, int64_t to) {
    const Step step = plan.steps[static_cast<size_t>(from)];
    erase(plan, from);
    plan.steps.insert(plan.steps.begin() + (to > from ? to - 1 : to), step);
}

testing::AssertionResult says(const std::string& fault, const std::string& words) {
    if (fault.find(words) != std::string::npos) return testing::AssertionSuccess();
    return testing::AssertionFailure() << (fault.empty() ? "nothing" : fault) << "\n  and not: " << words;
}

TEST(FindFaultOfUpdate, SeesEveryWriterThatAddsOrOverwritesAtTheWrongTime) {
    for (const Checked& good : cases()) {
        std::set<std::string> words;
        for (size_t i = 0; i < good.plan.steps.size(); ++i) {
            const Step& step = good.plan.steps[i];
            const bool sums =
                step.kind == StepKind::WaitReduce || (step.kind == StepKind::Compute && step.op == OpKind::LossSum);
            // A lookup alone (LLaMA's embedding) always adds, to what was zeroed or written.
            const bool only_adds = step.op == OpKind::Embedding && good.model.wpe == kNone;
            if (!sums && (!writes_gradients(good.model, step) || only_adds)) continue;
            for (const Adds other : {Adds::Always, Adds::AfterFirst, Adds::Never}) {
                if (other == step.adds) continue;
                Checked bad = good;
                bad.plan.steps[i].adds = other;
                const std::string fault = bad.fault();
                EXPECT_NE(fault, "") << where(good, i);
                if (sums) {
                    EXPECT_TRUE(says(fault, "adds where it has to overwrite"));
                } else if (step.adds == Adds::Always) {
                    EXPECT_TRUE(says(fault, "overwrites the gradients of ")) << where(good, i);
                } else {
                    EXPECT_TRUE(says(fault, "does not begin the gradients of ")) << where(good, i);
                }
            }
        }
    }
}

TEST(FindFaultOfUpdate, SeesEveryBucketThatIsNotZeroed) {
    for (const Checked& good : cases()) {
        for (int bucket = 0; bucket <= good.plan.partition.last_bucket(); ++bucket) {
            if (is_written_whole(good.model, bucket)) continue;
            const int64_t at = index_of(good.plan, StepKind::ZeroGradients, bucket);
            Checked bad = good;
            erase(bad.plan, at);
            const bool lookup = bucket == 0 && !good.model.config.tied && good.model.wpe == kNone;
            const char* expected = "comes before the bucket's gradients are complete";  // Gaps.
            if (bucket == 0 && good.model.wpe != kNone) expected = "leaves a part of wpe that nobody zeroes";
            if (lookup) expected = "adds to gradients that nobody has written";
            EXPECT_TRUE(says(bad.fault(), expected)) << where(good, static_cast<size_t>(at));
        }
    }
}

TEST(FindFaultOfUpdate, SeesZeroingThatComesTooLate) {
    for (const Checked& good : cases()) {
        for (int bucket = 0; bucket <= good.plan.partition.last_bucket(); ++bucket) {
            if (is_written_whole(good.model, bucket)) continue;
            const int64_t at = index_of(good.plan, StepKind::ZeroGradients, bucket);
            Checked bad = good;
            move_step(bad.plan, at, at + 2);
            EXPECT_NE(bad.fault(), "") << where(good, static_cast<size_t>(at));
        }
    }
}

TEST(FindFaultOfUpdate, SeesEveryStepOfTheUpdateThatIsMissingOrTwiceOrTooEarly) {
    for (const Checked& good : cases()) {
        const auto begin = std::find_if(good.plan.steps.begin(), good.plan.steps.end(),
                                        [](const Step& step) { return step.phase == Phase::Update; });
        for (auto step = begin; step != good.plan.steps.end(); ++step) {
            const int64_t at = step - good.plan.steps.begin();
            Checked bad = good;
            erase(bad.plan, at);
            EXPECT_NE(bad.fault(), "") << "missing: " << where(good, static_cast<size_t>(at));
            bad = good;
            bad.plan.steps.insert(bad.plan.steps.begin() + at, *step);
            if (step->kind != StepKind::GatherSums) {  // Twice, that is as good as once.
                EXPECT_NE(bad.fault(), "") << "twice: " << where(good, static_cast<size_t>(at));
            }
            bad = good;
            move_step(bad.plan, at, begin - good.plan.steps.begin() - 1);
            EXPECT_NE(bad.fault(), "") << "too early: " << where(good, static_cast<size_t>(at));
            bad = good;
            bad.plan.steps[static_cast<size_t>(at)].phase = Phase::Backward;
            EXPECT_NE(bad.fault(), "") << "no part of it: " << where(good, static_cast<size_t>(at));
        }
        Checked bad = good;
        bad.plan = without_update(std::move(bad.plan));
        EXPECT_EQ(bad.fault(), "the plan never updates some bucket");
    }
}

TEST(FindFaultOfUpdate, SaysWhatIsWrongWithTheUpdate) {
    for (const int zero : {0, 1, 2, 3}) {
        const Checked good = checked(small_model(Family::Gpt2, 3), 4, zero);
        for (int bucket = 0; bucket <= good.plan.partition.last_bucket(); ++bucket) {
            Checked bad = good;
            const int64_t update = index_of(bad.plan, StepKind::Update, bucket);
            erase(bad.plan, update);
            EXPECT_TRUE(says(bad.fault(), zero == 1 || zero == 2 ? "comes before the update of its bucket"
                                                                 : "the plan never updates some bucket"));
            bad = good;
            move_step(bad.plan, update, index_of(bad.plan, StepKind::BeginUpdate, kNone));
            EXPECT_TRUE(says(bad.fault(), "update) comes before the norm"));
            bad = good;
            move_step(bad.plan, index_of(bad.plan, StepKind::SquareSums, bucket),
                      index_of(bad.plan, StepKind::GatherSums, kNone) + 1);
            EXPECT_TRUE(says(bad.fault(), "gather sums of squares) comes before all sums of squares are there"));
        }
        Checked bad = good;
        erase(bad.plan, index_of(bad.plan, StepKind::GatherSums, kNone));
        EXPECT_TRUE(says(bad.fault(), "norm of the gradients) comes before all sums of squares are there"));
        bad = good;
        erase(bad.plan, index_of(bad.plan, StepKind::BeginUpdate, kNone));
        EXPECT_TRUE(says(bad.fault(), "embedding, update) comes before the norm"));
    }
}

TEST(FindFaultOfUpdate, SeesSumsOfSquaresOfGradientsThatAreNotComplete) {
    for (const Checked& good : cases()) {
        Checked bad = good;
        const auto embedding = std::find_if(bad.plan.steps.begin(), bad.plan.steps.end(), [](const Step& step) {
            return step.op == OpKind::Embedding && step.pass == Pass::Backward;
        });
        // The embedding's before its backward; the head's, which is complete, before what others still write.
        const int64_t before = embedding - bad.plan.steps.begin();
        move_step(bad.plan, index_of(bad.plan, StepKind::SquareSums, 0), before);
        const bool complete = good.model.config.tied && good.model.wpe == kNone;  // As far as rows go.
        EXPECT_TRUE(says(bad.fault(), complete ? "comes after the update has begun"
                                               : "comes before the bucket's gradients are complete"));
        bad = good;
        move_step(bad.plan, index_of(bad.plan, StepKind::SquareSums, bad.plan.partition.last_bucket()), before);
        EXPECT_TRUE(says(bad.fault(), "comes after the update has begun"));
    }
}

TEST(FindFaultOfUpdate, SeesEveryMissingGatherOfStagesOneAndTwo) {
    for (const int zero : {1, 2}) {
        const Checked good = checked(small_model(Family::Llama, 3), 4, zero);
        const int64_t begin = index_of(good.plan, StepKind::BeginUpdate, kNone);
        for (int bucket = 0; bucket <= good.plan.partition.last_bucket(); ++bucket) {
            Checked bad = good;
            const int64_t gather = index_of(bad.plan, StepKind::Gather, bucket);
            ASSERT_GT(gather, begin);
            erase(bad.plan, gather);
            EXPECT_TRUE(says(bad.fault(), "wait for parameters) waits for what has not begun"));
            erase(bad.plan, index_of(bad.plan, StepKind::WaitGather, bucket));
            EXPECT_EQ(bad.fault(), "the plan never gathers some updated bucket");
            bad = good;
            move_step(bad.plan, gather, gather - 1);
            EXPECT_TRUE(says(bad.fault(), "gather parameters) comes before the update of its bucket"));
        }
    }
    for (const int zero : {0, 3}) {
        Checked bad = checked(small_model(Family::Llama, 3), 4, zero);
        bad.plan.steps.push_back(checked(small_model(Family::Llama, 3), 4, 1).plan.steps.back());
        bad.plan.steps.back().kind = StepKind::Gather;
        EXPECT_TRUE(says(bad.fault(), "gathers what is whole, or kept nowhere"));
    }
}

TEST(FindFaultOfUpdate, SeesMicroBatchesThatAreNotFoldedOrTooEarly) {
    for (const int ranks : {1, 4}) {
        for (int zero = 0; zero <= (ranks > 1 ? 3 : 0); ++zero) {
            const Checked good = checked(small_model(Family::Gpt2, 3), ranks, zero, /*invariant=*/true);
            Checked bad = good;
            const int64_t fold = index_of(bad.plan, StepKind::FoldGradients, kNone);
            erase(bad.plan, fold);
            EXPECT_EQ(bad.fault(), "the plan does not add up its micro-batches in the order it promises");
            bad = good;
            bad.plan.steps.insert(bad.plan.steps.begin() + fold, good.plan.steps[static_cast<size_t>(fold)]);
            EXPECT_TRUE(says(bad.fault(), "comes twice"));
            bad = good;
            const auto embedding = std::find_if(bad.plan.steps.begin(), bad.plan.steps.end(), [](const Step& step) {
                return step.op == OpKind::Embedding && step.pass == Pass::Backward;
            });
            move_step(bad.plan, fold, embedding - bad.plan.steps.begin());
            EXPECT_TRUE(says(bad.fault(), ranks == 1 ? "comes before the micro-batch is complete"
                                                     : "comes before the sums are complete"));
            Checked plain = checked(small_model(Family::Gpt2, 3), ranks, zero);
            const size_t update = without_update(plain.plan).steps.size();
            plain.plan.steps.insert(plain.plan.steps.begin() + static_cast<int64_t>(update),
                                    good.plan.steps[static_cast<size_t>(fold)]);
            EXPECT_EQ(plain.fault(), "the plan does not add up its micro-batches in the order it promises");
        }
    }
}

}  // namespace
}  // namespace llmc
