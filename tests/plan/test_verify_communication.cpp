// The verifier on plans of several ranks: communication that was right is damaged, and it must see it.
#include "llmc/plan/verify_communication.h"

#include "llmc/plan/simulate.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <functional>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

struct Checked {
    Model model;
    Plan plan;
    Layout layout;
    std::string fault() const { return find_fault(model, plan, layout); }
    std::string words(int64_t step) const { return describe_step(model, plan.steps[static_cast<size_t>(step)]); }
};

Checked checked(Family family, int L, const char* policy, int zero, bool exchanges = true) {
    const Model model = small_model(family, L);
    const PlanRequest request = request_of_ranks(model, {3, 7}, DType::F32, 4, zero, exchanges);
    Plan plan = make_training_plan(model, request, find_policy(policy));
    Layout layout = make_layout(plan);
    Checked item = {model, std::move(plan), std::move(layout)};
    EXPECT_EQ(item.fault(), "");
    return item;
}

/// Every family, stage and a few policies.
std::vector<Checked> cases() {
    std::vector<Checked> all;
    for (const Family family : kFamilies) {
        for (const char* policy : {"none", "layer", "sqrt"}) {
            for (int zero = 0; zero <= 3; ++zero) all.push_back(checked(family, 4, policy, zero, zero % 2 == 1));
        }
    }
    return all;
}

int64_t index_of(const Plan& plan, StepKind kind, int bucket, int64_t from = 0) {
    for (int64_t i = from; i < static_cast<int64_t>(plan.steps.size()); ++i) {
        const Step& step = plan.steps[static_cast<size_t>(i)];
        if (step.kind == kind && step.bucket == bucket) return i;
    }
    ADD_FAILURE() << "no such step for bucket " << bucket;
    return 0;
}

void erase(Plan& plan, int64_t at) { plan.steps.erase(plan.steps.begin() + at); }

/// Takes a step out and puts it in again before the step that was at `to`; the layout stays that of the good plan.
void move_step(Plan& plan, int64_t from, int64_t to) {
    const Step step = plan.steps[static_cast<size_t>(from)];
    erase(plan, from);
    plan.steps.insert(plan.steps.begin() + (to > from ? to - 1 : to), step);
}

/// Damages a copy at every step that `where` accepts; each must be seen.
void expect_seen(const char* what, const std::function<bool(const Step&)>& where,
                 const std::function<void(Plan&, int64_t)>& damage, int at_least) {
    int damaged = 0;
    for (const Checked& good : cases()) {
        for (int64_t i = 0; i < static_cast<int64_t>(good.plan.steps.size()); ++i) {
            if (!where(good.plan.steps[static_cast<size_t>(i)])) continue;
            Checked bad = good;
            damage(bad.plan, i);
            EXPECT_NE(bad.fault(), "") << what << ": " << good.plan.policy << ", ZeRO " << zero_of(good.plan.places)
                                       << ", step " << i << " (" << good.words(i) << ")";
            ++damaged;
        }
    }
    EXPECT_GE(damaged, at_least) << what;
}

bool communicates(const Step& step) { return step.is_communication(); }
/// Communication, and what is done to gradients and parameters bucket by bucket.
bool is_of_a_bucket(const Step& step) { return step.is_of_bucket() && step.bucket >= 0; }

TEST(FindFaultOfRanks, SeesEveryStepThatIsMissing) {
    expect_seen(
        "missing", [](const Step& step) { return step.is_of_bucket(); }, erase, 1000);
}

TEST(FindFaultOfRanks, SeesEveryStepThatComesTwice) {
    const auto repeat = [](Plan& plan, int64_t at) {
        plan.steps.insert(plan.steps.begin() + at, plan.steps[static_cast<size_t>(at)]);
    };
    expect_seen("twice", is_of_a_bucket, repeat, 1000);
}

TEST(FindFaultOfRanks, SeesEveryStepOfAnotherBucket) {
    const auto other_bucket = [](Plan& plan, int64_t at) {
        Step& step = plan.steps[static_cast<size_t>(at)];
        step.bucket = static_cast<int16_t>((step.bucket + 1) % 6);
    };
    expect_seen("another bucket", is_of_a_bucket, other_bucket, 1000);
}

TEST(FindFaultOfRanks, SeesEveryStepOfABucketThereIsNot) {
    for (const int16_t bucket : {-1, 6}) {
        expect_seen(
            "no bucket", is_of_a_bucket,
            [&](Plan& plan, int64_t at) { plan.steps[static_cast<size_t>(at)].bucket = bucket; }, 1000);
    }
}

TEST(FindFaultOfRanks, SeesOperandsThatAreMissingOrOfAnotherBucket) {
    for (const Slot slot : {Slot::Parameters, Slot::ParameterGradients}) {
        const auto has_it = [&](const Step& step) { return step.operand(slot) >= 0; };
        expect_seen(
            "no operand", has_it,
            [&](Plan& plan, int64_t at) { plan.steps[static_cast<size_t>(at)].operand(slot) = kNone; }, 300);
        const auto exchange = [&](Plan& plan, int64_t at) {
            int32_t& tensor = plan.steps[static_cast<size_t>(at)].operand(slot);
            const int32_t other = tensor;
            for (const Step& step : plan.steps) {
                if (has_it(step) && step.operand(slot) != other) tensor = step.operand(slot);
            }
            ASSERT_NE(tensor, other);
        };
        expect_seen("another operand", has_it, exchange, 300);
    }
}

TEST(FindFaultOfRanks, SeesOperandsWhereThereShouldBeNone) {
    const Checked good = checked(Family::Gpt2, 3, "layer", 3);
    int32_t parameters = kNone, gradients = kNone;
    for (size_t i = 0; i < good.plan.steps.size(); ++i) {
        const Step& step = good.plan.steps[i];
        if (step.kind == StepKind::WaitGather) parameters = step.operand(Slot::Parameters);
        if (step.kind == StepKind::ZeroGradients) gradients = step.operand(Slot::ParameterGradients);
        if (step.kind != StepKind::Compute) continue;
        Checked bad = good;
        if (step.operand(Slot::Parameters) == kNone && parameters != kNone) {
            bad.plan.steps[i].operand(Slot::Parameters) = parameters;
            EXPECT_NE(bad.fault(), "") << good.words(static_cast<int64_t>(i));
        }
        bad = good;
        if (step.operand(Slot::ParameterGradients) == kNone && gradients != kNone) {
            bad.plan.steps[i].operand(Slot::ParameterGradients) = gradients;
            EXPECT_NE(bad.fault(), "") << good.words(static_cast<int64_t>(i));
        }
    }
}

TEST(FindFaultOfRanks, SeesAReadBeforeTheWaitForItsGather) {
    for (int layer = 0; layer < 3; ++layer) {
        Checked bad = checked(Family::Llama, 3, "none", 3);
        const int64_t wait = index_of(bad.plan, StepKind::WaitGather, 1 + layer);
        move_step(bad.plan, wait, wait + 2);
        EXPECT_EQ(bad.fault(), fmt::format("step {} (layer {}, forward of ln1) uses parameters of layer {} before the "
                                           "wait for \"layer {}, gather parameters\"",
                                           wait, layer, layer, layer));
    }
}

TEST(FindFaultOfRanks, SeesSumsSharedBeforeTheyAreComplete) {
    Checked bad = checked(Family::Gpt2, 3, "none", 0);
    const int64_t wait = index_of(bad.plan, StepKind::WaitReduce, 2), share = index_of(bad.plan, StepKind::Share, 2);
    ASSERT_EQ(share, wait + 1);
    move_step(bad.plan, share, wait);
    EXPECT_EQ(bad.fault(), fmt::format("step {} (layer 1, share gradients) comes before the sums are complete", wait));
}

TEST(FindFaultOfRanks, SeesAWriteAfterTheReductionBegan) {
    for (int zero = 1; zero <= 3; ++zero) {
        Checked bad = checked(Family::Gpt2, 3, "none", zero);
        const int64_t reduce = index_of(bad.plan, StepKind::Reduce, 2);
        const int64_t wait = index_of(bad.plan, StepKind::WaitReduce, 3);
        ASSERT_EQ(reduce, wait + 1);
        move_step(bad.plan, reduce, wait - 1);
        move_step(bad.plan, wait + 1, wait - 1);  // What went before it still does.
        const std::string expected =
            zero < 2
                ? fmt::format("step {} (layer 1, backward of ln1) writes gradients of layer 1 after they were reduced",
                              wait + 1)
                : fmt::format(
                      "step {} (layer 1, backward of ln1) uses gradients of layer 1 before the wait for "
                      "\"layer 1, reduce gradients\"",
                      wait + 1);
        EXPECT_EQ(bad.fault(), expected);
    }
}

TEST(FindFaultOfRanks, SeesGradientsThatAreZeroedTooLate) {
    for (int zero = 0; zero <= 3; ++zero) {
        Checked bad = checked(Family::Gpt2, 3, "none", zero);
        const int64_t zeroed = index_of(bad.plan, StepKind::ZeroGradients, 2);
        move_step(bad.plan, zeroed, zeroed + 2);
        EXPECT_EQ(bad.fault(), fmt::format("step {} (layer 1, zero gradients) comes after layers.1.fc_proj_weight was "
                                           "written",
                                           zeroed + 1));
    }
}

TEST(FindFaultOfRanks, SeesWaitsInAnotherOrderThanTheirBegins) {
    // The reduction for the last layer begins before layer 0's parameters are asked for, and is waited for after.
    Checked bad = checked(Family::Llama, 3, "none", 3);
    const int64_t reduce_wait = index_of(bad.plan, StepKind::WaitReduce, 3);
    const int64_t gather = index_of(bad.plan, StepKind::Gather, 1, index_of(bad.plan, StepKind::Reduce, 3));
    const int64_t gather_wait = index_of(bad.plan, StepKind::WaitGather, 1, gather);
    ASSERT_LT(reduce_wait, gather_wait);
    move_step(bad.plan, gather_wait, reduce_wait);
    EXPECT_EQ(bad.fault(), fmt::format("step {} (layer 0, wait for parameters) comes before the wait for \"layer 2, "
                                       "reduce gradients\", which began earlier",
                                       reduce_wait));
}

TEST(FindFaultOfRanks, SeesThatSomethingIsNeverWaitedForOrNeverReduced) {
    Checked bad = checked(Family::Gpt2, 3, "none", 0);
    bad.plan = without_update(std::move(bad.plan));
    bad.plan.steps.pop_back();
    EXPECT_EQ(bad.fault(), "the plan ends before the wait for \"embedding, share gradients\"");
    bad.plan.steps.pop_back();
    EXPECT_EQ(bad.fault(), "the plan never shares the gradients of the embedding");
    bad.plan.steps.pop_back();
    EXPECT_EQ(bad.fault(), "the plan ends before the wait for \"embedding, reduce gradients\"");
    const auto reduce = bad.plan.steps.end() - 2;
    ASSERT_EQ(reduce->kind, StepKind::Reduce);
    bad.plan.steps.erase(reduce);  // After it, layer 0's sums are waited for.
    EXPECT_EQ(bad.fault(), "the plan never reduces the gradients of the embedding");
}

TEST(FindFaultOfRanks, SeesWhatRunsInTheWrongMicroBatches) {
    for (const When other : {When::Always, When::First, When::Last}) {
        const auto differs = [&](const Step& step) { return step.when != other; };
        const auto change = [&](Plan& plan, int64_t at) { plan.steps[static_cast<size_t>(at)].when = other; };
        expect_seen("in other micro-batches", differs, change, 700);
    }
}

TEST(FindFaultOfRanks, SeesMicroBatchesAddedUpBeforeTheirRanksAre) {
    const Model model = small_model(Family::Gpt2, 3);
    for (int zero = 0; zero <= 3; ++zero) {
        PlanRequest request = request_of_ranks(model, {3, 7}, DType::F32, 4, zero);
        request.parallel.rank_invariant = true, request.parallel.micro_batches = 3;
        const Plan plan = make_training_plan(model, request, find_policy("none"));
        const Layout layout = make_layout(plan);
        ASSERT_EQ(find_fault(model, plan, layout), "");
        const auto fold = std::find_if(plan.steps.begin(), plan.steps.end(),
                                       [](const Step& step) { return step.kind == StepKind::FoldGradients; });
        ASSERT_NE(fold, plan.steps.end());
        for (int64_t earlier = 1; (fold - earlier)->is_communication(); ++earlier) {
            Plan bad = plan;
            move_step(bad, fold - plan.steps.begin(), fold - plan.steps.begin() - earlier);
            EXPECT_TRUE(find_fault(model, bad, layout).ends_with("comes before the sums are complete"))
                << find_fault(model, bad, layout);
        }
    }
}

TEST(FindFaultOfRanks, SeesRoomOfTheWrongSize) {
    for (const StepKind kind : {StepKind::ZeroGradients, StepKind::Reduce, StepKind::Gather}) {
        const Checked good = checked(Family::Gpt2, 3, "none", 3);
        const Slot slot = kind == StepKind::Gather   ? Slot::Parameters
                          : kind == StepKind::Reduce ? Slot::Workspace
                                                     : Slot::ParameterGradients;
        const int64_t at = index_of(good.plan, kind, 2);
        const auto tensor = static_cast<size_t>(good.plan.steps[static_cast<size_t>(at)].operand(slot));
        Checked bad = good;
        bad.plan.tensors[tensor].cols -= 128;
        EXPECT_NE(bad.fault(), "") << good.words(at);
        bad = good;
        bad.plan.tensors[tensor].dtype = DType::BF16;
        EXPECT_NE(bad.fault(), "") << good.words(at);
    }
    Checked bad = checked(Family::Gpt2, 3, "none", 0, /*exchanges=*/true);
    bad.plan.parallel.exchanges = false;
    EXPECT_NE(bad.fault().find("has no room of the right size to receive in"), std::string::npos) << bad.fault();
}

TEST(FindFaultOfRanks, SeesAPlanForAnotherNumberOfRanksOrStage) {
    for (int zero = 0; zero <= 3; ++zero) {
        for (int other = 0; other <= 3; ++other) {
            Checked bad = checked(Family::Gpt2, 3, "none", zero);
            bad.plan.places = places_of_zero(other, 4, DType::F32);
            EXPECT_EQ(bad.fault() == "", zero == other) << zero << " as " << other;
        }
        for (const int ranks : {1, 3, 5}) {
            Checked bad = checked(Family::Gpt2, 3, "none", zero);
            bad.plan.parallel.ranks = ranks;
            EXPECT_NE(bad.fault(), "") << ranks;
        }
    }
    Checked bad = checked(Family::Gpt2, 3, "none", 0);
    std::erase_if(bad.plan.steps, communicates);
    EXPECT_EQ(bad.fault(), "the plan never reduces the gradients of the embedding");
}

TEST(FindFaultOfRanks, SeesEveryTensorOfRanksMadeToOverlapAnother) {
    for (const int zero : {0, 2, 3}) {
        const Checked good = checked(Family::Llama, 2, "layer", zero);
        const std::vector<Storage> all = storages(good.plan, good.layout);
        const auto name = [&](const Storage& s) {
            const PlanTensor& tensor = good.plan.tensors[static_cast<size_t>(s.tensor)];
            return tensor.name + " of layer " + std::to_string(tensor.layer);
        };
        int overlaps = 0;
        for (const Storage& moved : all) {
            if (good.plan.tensors[static_cast<size_t>(moved.tensor)].consumer < Consumer::GatheredParameters) continue;
            for (const Storage& other : all) {
                if (&moved == &other || !moved.together_with(other)) continue;
                Checked bad = good;
                bad.layout.offsets[static_cast<size_t>(moved.tensor)] = other.end - kPlanAlignment;
                bad.layout.arena_bytes += moved.end - moved.begin;
                ASSERT_NE(bad.fault(), "") << "ZeRO " << zero << ": " << name(moved) << " on " << name(other);
                ++overlaps;
            }
        }
        EXPECT_GE(overlaps, 40) << "ZeRO " << zero;
    }
}

}  // namespace
}  // namespace llmc
