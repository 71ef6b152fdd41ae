// Plans whose update is delayed: sound for every filling of the table of places; each bucket once before its first use
// and once in the flush, of the same elements; the same traffic, less time; and the verifier sees what is wrong.
#include "llmc/plan/delay_update.h"

#include "llmc/model/trainable.h"
#include "llmc/plan/communicate.h"
#include "llmc/plan/cost.h"
#include "llmc/plan/formats.h"
#include "llmc/plan/print.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/update.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <functional>
#include <map>
#include <tuple>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {3, 7};
constexpr unsigned kMoments = 1, kMasters = 2, kGradients = 4, kParameters = 8, kBoundaries = 16, kAll = 31;

Places with_host(Places places, unsigned chosen) {
    const auto move = [&](unsigned bit, std::initializer_list<Buffer> buffers) {
        for (const Buffer buffer : buffers) {
            if ((chosen & bit) != 0 && places[buffer].exists) places[buffer].memory = Memory::Host;
        }
    };
    move(kMoments, {Buffer::MomentM, Buffer::MomentV});
    move(kMasters, {Buffer::Masters});
    move(kGradients, {Buffer::Gradients});
    move(kParameters, {Buffer::Parameters, Buffer::Frozen});
    move(kBoundaries, {Buffer::Boundaries});
    return places;
}

PlanRequest request_with(const Model& model, int ranks, int zero, unsigned chosen, int update_ahead,
                         const StateFormats& formats = {}, int64_t micro_batches = 2, bool invariant = false) {
    PlanRequest request = request_of_ranks(model, kShape, DType::BF16, ranks, zero);
    request.places = with_host(with_formats(request.places, formats), chosen);
    request.parallel.micro_batches = micro_batches, request.parallel.rank_invariant = invariant;
    request.update_ahead = update_ahead;
    return request;
}

struct Case {
    const Model& model;
    const PolicyRow& policy;
    PlanRequest request;
};

/// Models, ranks, stages and placements, with policies, formats and depths taken in turn.
void for_every_filling(const std::function<void(const Case&, const std::string& name)>& look) {
    const StateFormats kFormats[] = {{}, {DType::U8, true, DType::F32}, {DType::BF16, false, DType::BF16}};
    std::vector<Model> models = small_models(4);
    models.push_back(with_trainable(small_model(Family::Gpt2, 4), parse_patterns("--freeze", "*,!*ln*", false)));
    models.push_back(with_trainable(small_model(Family::Llama, 4), parse_patterns("--freeze", "layers.0-1.*", false)));
    unsigned turn = 0;
    for (const Model& model : models)
        for (const int ranks : {1, 3})
            for (int zero = 0; zero <= (ranks == 1 ? 0 : kMaxZero); ++zero)
                for (unsigned chosen = 0; chosen <= kAll; ++chosen, ++turn) {
                    const StateFormats& formats = kFormats[turn % std::size(kFormats)];
                    const bool invariant = formats.gradients == DType::F32 && turn % 5 == 0;
                    const Case item = {model, policies()[turn % policies().size()],
                                       request_with(model, ranks, zero, chosen, 1 + static_cast<int>(turn % 3), formats,
                                                    1 + turn % 3, invariant)};
                    look(item, fmt::format("{}, {}, {} ranks, ZeRO {}, {}", model.config.name, item.policy.name, ranks,
                                           zero, item.request.places.describe()));
                }
}

TEST(DelayUpdate, EveryFillingOfTheTableMakesASoundPlan) {
    for_every_filling([](const Case& item, const std::string& name) {
        const Plan plan = make_training_plan(item.model, item.request, item.policy);
        EXPECT_EQ(find_fault(item.model, plan, make_layout(plan)), "") << name;
        EXPECT_TRUE(plan.trains());
        EXPECT_TRUE(plan.delays_update());
    });
}

/// What an optimiser step is about, but for where it stands.
using Work = std::tuple<int, int64_t, int64_t, bool>;
std::vector<Work> work_of(const Plan& plan, When when) {
    std::vector<Work> work;
    for (const Step& step : plan.steps) {
        if (step.kind != StepKind::Update || step.when != when) continue;
        work.emplace_back(step.bucket, step.first_element, step.elements, step.own_piece);
    }
    return work;
}

/// By hand, without the verifier: while it is pending, no step of a bucket's comes before its update.
TEST(DelayUpdate, ComesBeforeTheFirstUseAndOnceMoreInTheFlush) {
    for_every_filling([](const Case& item, const std::string& name) {
        PlanRequest at_once = item.request;
        at_once.update_ahead = 0;
        const Plan plan = make_training_plan(item.model, item.request, item.policy);
        const Plan now = make_training_plan(item.model, at_once, item.policy);
        EXPECT_EQ(work_of(plan, When::Pending), work_of(now, When::Last)) << name;
        EXPECT_EQ(work_of(plan, When::Flush), work_of(now, When::Last)) << name;
        EXPECT_TRUE(work_of(plan, When::Last).empty()) << name;
        std::map<int, size_t> last_update;
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            const Step& step = plan.steps[i];
            if (step.kind == StepKind::Update && step.when == When::Pending) last_update[step.bucket] = i;
        }
        for (size_t i = 0; i < plan.steps.size(); ++i) {
            for (const Step& step : parts_of(plan.steps[i])) {
                if (!reads_parameters(step) && !writes_gradients(item.model, step)) continue;
                const auto update = last_update.find(bucket_of(item.model, plan.partition, step));
                if (update == last_update.end()) continue;  // Nothing of it trains.
                EXPECT_LT(update->second, i) << name << ": " << describe_step(item.model, step);
            }
        }
    });
}

TEST(DelayUpdate, TheNormComesAfterTheLastMicroBatchAndNothingElse) {
    const Model model = small_model(Family::Gpt2, 3);
    const Plan plan = make_training_plan(model, request_with(model, 1, 0, kMoments, 1), find_policy("layer"));
    for (const Step& step : plan.steps) {
        if (step.phase != Phase::Update) continue;
        const bool is_norm = step.kind == StepKind::SquareSums || step.kind == StepKind::BeginUpdate;
        EXPECT_EQ(step.when == When::Last, is_norm) << describe_step(model, step);
    }
    const auto runs_in = [&](Turn turn, When when) {
        return std::any_of(plan.steps.begin(), plan.steps.end(),
                           [&](const Step& step) { return step.when == when && runs(step, turn); });
    };
    EXPECT_TRUE(runs_in({.first = true, .last = false, .pending = true}, When::Pending));
    EXPECT_FALSE(runs_in({.first = true, .last = false}, When::Pending)) << "after a flush";
    EXPECT_FALSE(runs_in({.first = false, .last = true, .pending = true}, When::Pending));
    EXPECT_FALSE(runs_in({.first = true, .last = true, .pending = true}, When::Flush));
    EXPECT_TRUE(runs_in(kFlush, When::Flush));
    for (const When when : {When::Always, When::First, When::Last, When::AfterFirst, When::Pending}) {
        EXPECT_FALSE(runs_in(kFlush, when));
    }
}

TEST(DelayUpdate, MovesAndSendsWhatAnUpdateAtOnceDoes) {
    for_every_filling([](const Case& item, const std::string& name) {
        PlanRequest at_once = item.request;
        at_once.update_ahead = 0;
        const Plan plan = make_training_plan(item.model, item.request, item.policy);
        const Plan now = make_training_plan(item.model, at_once, item.policy);
        EXPECT_EQ(host_traffic_per_update(plan).in, host_traffic_per_update(now).in) << name;
        EXPECT_EQ(host_traffic_per_update(plan).out, host_traffic_per_update(now).out) << name;
        EXPECT_EQ(communication_bytes_per_update(plan), communication_bytes_per_update(now)) << name;
    });
}

/// llama2-7b on a card that computes a layer's forward while its state comes and goes: most of it hides, the more the
/// more slices may be under way; never more than all of it.
TEST(DelayUpdate, HidesWhatComesFromHostMemory) {
    const Model model = make_model(preset("llama2-7b"));
    PlanRequest request = request_of(model, {8, 1024}, DType::BF16);
    request.places = with_host(request.places, kMoments | kMasters);
    const OpTimes times = analytic_times(model, request.shape, request.places, find_device_profile("rtx5060ti-16gb"),
                                         request.logits_chunk_tokens);
    const Plan now = make_training_plan(model, request, find_policy("layer"));
    const double at_once = update_seconds(times, now);
    const double without = plan_seconds(times, now, {.first = true, .last = false});
    double before = at_once;
    for (const int ahead : {1, 2, 4, 8}) {
        request.update_ahead = ahead;
        const double delayed = update_seconds(times, make_training_plan(model, request, find_policy("layer")));
        EXPECT_LT(delayed, before) << ahead;
        EXPECT_GT(delayed, without);
        before = delayed;
    }
    EXPECT_GT((at_once - before) / (at_once - without), 0.7) << "of what the update adds, hidden";
}

/// ZeRO 1 and 2 gather what they have updated: beside the layers before, and no longer after the last one.
TEST(DelayUpdate, HidesTheGathersOfUpdatedPieces) {
    const Model model = make_model(preset("gpt2-xl"));
    PlanRequest request = request_of_ranks(model, {8, 1024}, DType::BF16, 4, 1, /*exchanges=*/false);
    OpTimes times =
        analytic_times(model, request.shape, request.places, find_device_profile("a100"), request.logits_chunk_tokens);
    times.link_bandwidth = 25e9;
    const double at_once = update_seconds(times, make_training_plan(model, request, find_policy("layer")));
    request.update_ahead = 1;
    const double delayed = update_seconds(times, make_training_plan(model, request, find_policy("layer")));
    const double gathers = 0.75 * 2 * static_cast<double>(model.parameter_count()) / times.link_bandwidth;
    EXPECT_GT(at_once - delayed, 0.8 * gathers);
}

TEST(DelayUpdate, IsNamedInTheListOfSteps) {
    const Model model = small_model(Family::Llama, 2);
    const Plan plan = make_training_plan(model, request_with(model, 1, 0, kMoments, 1), find_policy("layer"));
    const std::string text = print_steps(model, plan, nullptr);
    EXPECT_NE(text.find("layer 1, update"), std::string::npos);
    EXPECT_NE(text.find("(pending update)"), std::string::npos);
    EXPECT_NE(text.find("(flush)"), std::string::npos);
    EXPECT_NE(summarise_steps(plan).find("delayed: "), std::string::npos);
}

// ---- Faults
// ----------------------------------------------------------------------------------------------------------

/// What the verifier says after a change to a sound plan.
std::string fault_after(unsigned chosen, const std::function<void(std::vector<Step>&)>& change, int ranks = 1,
                        int zero = 0) {
    const Model model = small_model(Family::Llama, 3);
    Plan plan = make_training_plan(model, request_with(model, ranks, zero, chosen, 1), find_policy("layer"));
    const Layout layout = make_layout(plan);
    EXPECT_EQ(find_fault(model, plan, layout), "");
    change(plan.steps);
    return find_fault(model, plan, layout);
}

testing::AssertionResult says(const std::string& fault, const std::string& words) {
    if (fault.find(words) != std::string::npos) return testing::AssertionSuccess();
    return testing::AssertionFailure() << (fault.empty() ? "nothing" : fault) << "\n  and not: " << words;
}

std::vector<Step>::iterator find_step(std::vector<Step>& steps, StepKind kind, When when, int bucket = -1, int n = 0) {
    const auto found = std::find_if(steps.begin(), steps.end(), [&](const Step& step) {
        return step.kind == kind && step.when == when && (bucket < 0 || step.bucket == bucket) && n-- == 0;
    });
    EXPECT_NE(found, steps.end());
    return found;
}

/// Moves all steps of a bucket's pending update behind `to`.
void postpone(std::vector<Step>& steps, int bucket, const std::function<bool(const Step&)>& to) {
    std::vector<Step> moved;
    for (const Step& step : steps) {
        if (step.when == When::Pending && step.bucket == bucket) moved.push_back(step);
    }
    std::erase_if(steps, [&](const Step& step) { return step.when == When::Pending && step.bucket == bucket; });
    const auto place = std::find_if(steps.begin(), steps.end(), to);
    ASSERT_NE(place, steps.end());
    steps.insert(place + 1, moved.begin(), moved.end());
}

TEST(DelayUpdateFaults, AnUpdateAfterTheFirstUse) {
    const auto after_forward = [](std::vector<Step>& steps) {
        postpone(steps, 2, [](const Step& step) { return step.kind == StepKind::Compute && step.layer == 1; });
    };
    EXPECT_TRUE(says(fault_after(0, after_forward), "wants parameters of bucket 2 before their update"));
    EXPECT_TRUE(says(fault_after(kMoments, after_forward), "before their update"));
    const auto after_fetch = [](std::vector<Step>& steps) {
        postpone(steps, 2, [](const Step& step) {
            return step.kind == StepKind::Fetch && step.buffer == Buffer::Parameters && step.bucket == 2 &&
                   step.phase != Phase::Update;
        });
    };
    EXPECT_TRUE(says(fault_after(kParameters, after_fetch), "before their update"));
    const auto after_gather = [](std::vector<Step>& steps) {
        postpone(steps, 2, [](const Step& step) {
            return step.kind == StepKind::Gather && step.bucket == 2 && step.phase != Phase::Update;
        });
    };
    EXPECT_TRUE(says(fault_after(0, after_gather, 3, 3), "before their update"));
}

TEST(DelayUpdateFaults, WhatIsGatheredOrCopiedBackTooLate) {
    const auto wait_late = [](std::vector<Step>& steps) {  // ZeRO 1: pieces of the others.
        const auto wait = find_step(steps, StepKind::WaitGather, When::Pending, 1);
        std::rotate(wait, wait + 1, wait + 2);
    };
    EXPECT_TRUE(says(fault_after(0, wait_late, 3, 1), "wants parameters of bucket 1 before their update"));
    const auto copy_late = [](std::vector<Step>& steps) {
        const auto is_use = [](const Step& step) {
            return step.kind == StepKind::Fetch && step.buffer == Buffer::Parameters && step.phase != Phase::Update &&
                   step.bucket == 2;
        };
        const auto is_back = [](const Step& step) {
            const bool copies = step.kind == StepKind::CopyOut || step.kind == StepKind::WaitCopyOut;
            return step.when == When::Pending && copies && step.buffer == Buffer::Parameters && step.bucket == 2;
        };
        std::vector<Step> back;
        std::copy_if(steps.begin(), steps.end(), std::back_inserter(back), is_back);
        std::erase_if(steps, is_back);
        steps.insert(std::find_if(steps.begin(), steps.end(), is_use) + 1, back.begin(), back.end());
    };
    EXPECT_NE(fault_after(kParameters, copy_late), "");
}

TEST(DelayUpdateFaults, AMissingFlush) {
    const auto no_flush = [](std::vector<Step>& steps) {
        std::erase_if(steps, [](const Step& step) { return step.when == When::Flush; });
    };
    EXPECT_TRUE(says(fault_after(0, no_flush), "never flushes the update of some bucket"));
    EXPECT_TRUE(says(fault_after(kMoments | kMasters, no_flush), "never flushes the update of some bucket"));
    const auto one_less = [](std::vector<Step>& steps) {
        steps.erase(find_step(steps, StepKind::Update, When::Flush, 2));
    };
    EXPECT_TRUE(says(fault_after(0, one_less), "never flushes the update of some bucket"));
    const auto no_pending = [](std::vector<Step>& steps) {
        std::erase_if(steps, [](const Step& step) { return step.when == When::Pending; });
    };
    EXPECT_NE(fault_after(0, no_pending), "");
    const auto as_before = [](std::vector<Step>& steps) {  // At once, too: twice.
        for (Step& step : steps) step.when = step.when == When::Flush ? When::Last : step.when;
    };
    EXPECT_TRUE(says(fault_after(0, as_before), "runs in the wrong micro-batches"));
}

TEST(DelayUpdateFaults, GradientsOverwrittenBeforeTheyAreApplied) {
    const auto zero_first = [](std::vector<Step>& steps) {
        const auto zero = std::find_if(steps.begin(), steps.end(), [](const Step& step) {
            return step.kind == StepKind::ZeroGradients && step.bucket == 0;
        });
        std::rotate(steps.begin(), zero, zero + 1);
    };
    for (const unsigned chosen : {0u, kMoments, kAll}) {
        EXPECT_TRUE(says(fault_after(chosen, zero_first), "overwrites gradients of bucket 0 that are not applied yet"));
    }
    const auto norm_first = [](std::vector<Step>& steps) {  // Which makes other factors of it.
        const Step update = *find_step(steps, StepKind::Update, When::Pending, 4);
        steps.erase(find_step(steps, StepKind::Update, When::Pending, 4));
        const auto norm = find_step(steps, StepKind::BeginUpdate, When::Last);
        steps.insert(norm, update);
    };
    EXPECT_NE(fault_after(0, norm_first), "");
}

TEST(DelayUpdateFaults, ASlotThatIsReusedTooEarly) {
    const auto no_wait = [](std::vector<Step>& steps) {
        const auto wait = find_step(steps, StepKind::WaitCopyOut, When::Pending, 1);
        const Step late = *wait;
        steps.erase(wait);
        const auto fetch = std::find_if(steps.begin(), steps.end(), [&](const Step& step) {
            return step.kind == StepKind::Fetch && step.when == When::Pending && step.copied() == late.copied() &&
                   step.first_element > late.first_element;
        });
        ASSERT_NE(fetch, steps.end());
        steps.insert(fetch + 1, late);
    };
    EXPECT_TRUE(says(fault_after(kMoments, no_wait), "being copied"));
    const auto early_fetch = [](std::vector<Step>& steps) {  // Into the slot that is updated.
        const auto update = find_step(steps, StepKind::Update, When::Pending, 1, 2);
        const int32_t slot = update->operand(Slot::MomentM);
        auto fetch = std::find_if(update, steps.end(), [&](const Step& step) {
            return step.kind == StepKind::Fetch && step.when == When::Pending && step.copied() == slot;
        });
        ASSERT_NE(fetch, steps.end());
        std::rotate(update, fetch, fetch + 1);
    };
    EXPECT_NE(fault_after(kMoments, early_fetch), "");
}

TEST(DelayUpdateFaults, OtherStepsThatUseWhatMayNotBeThere) {
    const auto borrow = [](std::vector<Step>& steps) {
        const int32_t slot = find_step(steps, StepKind::Update, When::Pending, 1)->operand(Slot::MomentM);
        const auto backward = std::find_if(steps.begin(), steps.end(), [](const Step& step) {
            return step.kind == StepKind::Compute && step.layer == 0 && step.pass != Pass::Forward;
        });
        backward->operand(Slot::Workspace) = slot;
    };
    EXPECT_TRUE(says(fault_after(kMoments, borrow), "of an update that may not be pending"));
}

}  // namespace
}  // namespace llmc
