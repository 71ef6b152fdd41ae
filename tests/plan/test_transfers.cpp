// Plans whose state is in host memory: every filling of the table of places makes a plan that the verifier accepts,
// what it moves, how it is pipelined, and that the verifier sees what is wrong.
#include "llmc/io/peft/adapters.h"
#include "llmc/plan/cost.h"
#include "llmc/plan/formats.h"
#include "llmc/plan/search.h"
#include "llmc/plan/simulate.h"
#include "llmc/plan/update.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {3, 7};
constexpr Buffer kMovable[] = {Buffer::MomentM,    Buffer::Masters, Buffer::Gradients,
                               Buffer::Parameters, Buffer::Frozen,  Buffer::Boundaries};

Places with_host(Places places, unsigned chosen) {
    for (unsigned i = 0; i < std::size(kMovable); ++i) {
        if ((chosen >> i & 1) == 0) continue;
        if (places[kMovable[i]].exists) places[kMovable[i]].memory = Memory::Host;
        if (kMovable[i] == Buffer::MomentM) places[Buffer::MomentV].memory = Memory::Host;
    }
    return places;
}
constexpr unsigned kAll = 63;

PlanRequest request_with(const Model& model, int ranks, int zero, unsigned chosen, const StateFormats& formats = {},
                         int64_t micro_batches = 2, bool invariant = false) {
    PlanRequest request = request_of_ranks(model, kShape, DType::BF16, ranks, zero);
    request.places = with_host(with_formats(request.places, formats), chosen);
    request.parallel.micro_batches = micro_batches, request.parallel.rank_invariant = invariant;
    return request;
}

TEST(Transfers, EveryFillingOfTheTableMakesASoundPlan) {
    const StateFormats kFormats[] = {{}, {DType::U8, true, DType::F32}, {DType::BF16, false, DType::BF16}};
    unsigned policy = 0;
    for (const Model& model : small_models(4))
        for (const int ranks : {1, 3})
            for (int zero = 0; zero <= (ranks == 1 ? 0 : kMaxZero); ++zero)
                for (unsigned chosen = 0; chosen <= kAll; ++chosen) {
                    if (ranks > 1 && (chosen + policy) % 3 != 0 && chosen != kAll) {
                        ++policy;
                        continue;
                    }
                    const PolicyRow& row = policies()[policy++ % policies().size()];
                    const StateFormats& formats = kFormats[policy % std::size(kFormats)];
                    const bool invariant = formats.gradients == DType::F32 && policy % 5 == 0;
                    const PlanRequest request =
                        request_with(model, ranks, zero, chosen, formats, 1 + policy % 3, invariant);
                    EXPECT_EQ(request.places.fault(), "");
                    const Plan plan = make_training_plan(model, request, row);
                    EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "")
                        << model.config.name << ", " << row.name << ", " << ranks << " ranks, zero " << zero << ", "
                        << plan.places.describe();
                    const Plan evaluation = make_evaluation_plan(model, request);
                    EXPECT_EQ(find_fault(model, evaluation, make_layout(evaluation)), "");
                    const Plan generation =
                        make_generation_plan(model, {{1, 4}, 1, 0, 0, {}, request.parallel, request.places, {}}, 16);
                    EXPECT_EQ(find_fault(model, generation, make_layout(generation)), "");
                }
}

/// Of 1 rank and 2 micro-batches: parameters come for the forward and the backward (and the repeat), gradients come in
/// the second, and go in both, state moves once.
TEST(Transfers, BytesByHand) {
    const Model model = small_model(Family::Llama, 4);
    const auto traffic = [&](unsigned chosen, const char* policy) {
        return host_traffic_per_update(
            make_training_plan(model, request_with(model, 1, 0, chosen), find_policy(policy)));
    };
    const Plan plain = make_training_plan(model, request_with(model, 1, 0, 0), find_policy("none"));
    const int64_t elements = plain.partition.elements;
    const HostTraffic state = traffic(1 | 2, "none"), gradients = traffic(4, "none");
    EXPECT_EQ(state.in, 12 * elements);
    EXPECT_EQ(state.out, 12 * elements);
    EXPECT_EQ(gradients.in, (4 + 4) * elements) << "for the second micro-batch, and the update";
    EXPECT_EQ(gradients.out, 2 * 4 * elements);
    const int64_t embedding = plain.partition.bucket_elements(0), last = plain.partition.bucket_elements(4);
    const HostTraffic parameters = traffic(8, "none");
    // The last layer's and the head's stay between forward and backward; the embedding is not read backward.
    const int64_t once = embedding + last + plain.partition.bucket_elements(5);
    EXPECT_EQ(parameters.in, 2 * 2 * (2 * (elements - once) + once)) << "two bytes, two micro-batches";
    EXPECT_EQ(parameters.out, 2 * elements);
}

TEST(Transfers, ALayersParametersComeALayerAhead) {
    const Model model = small_model(Family::Gpt2, 5);
    const Plan plan = make_training_plan(model, request_with(model, 1, 0, 8), find_policy("layer"));
    int begun = -1;
    int fetches = 0;
    for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
        const Step& step = plan.steps[static_cast<size_t>(i)];
        if (step.kind == StepKind::Fetch && step.layer == 3) begun = i, ++fetches;
        if (step.kind != StepKind::WaitFetch || step.layer != 3) continue;
        int between = 0;
        for (int k = begun; k < i; ++k) between += plan.steps[static_cast<size_t>(k)].kind == StepKind::Compute ? 1 : 0;
        EXPECT_GE(between, static_cast<int>(model.block.size())) << "a layer's work";
    }
    EXPECT_EQ(fetches, 2) << "for the forward, and for repeat and backward";
}

/// An adapter of the last product writes a layer's input in the place of that product's output, a tensor of its own.
TEST(Transfers, AnInputThatAnAdapterWritesLeavesTheDevice) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        Model model = small_model(family, 6);
        PeftConfig adapters;
        adapters.rank = 3, adapters.target_modules = adaptable_modules(model);
        model = with_adapters(std::move(model), adapters);
        PlanRequest request = request_of(model, kShape, DType::BF16);
        request.places = with_host(for_adapters(DType::BF16), 32);
        const Plan plan = make_training_plan(model, request, find_policy("layer"));
        EXPECT_EQ(find_fault(model, plan, make_layout(plan)), "");
        const std::vector<Lifetime> lives = lifetimes(plan);
        const auto life = [&](const Step& step) { return lives[static_cast<size_t>(storage_of(plan, step.copied()))]; };
        int left = 0, came = 0;
        for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
            const Step& step = plan.steps[static_cast<size_t>(i)];
            const bool leaves = step.kind == StepKind::WaitCopyOut, comes = step.kind == StepKind::Fetch;
            left += leaves ? 1 : 0, came += comes ? 1 : 0;
            EXPECT_TRUE(!leaves || life(step).last == i) << model.config.name << ", layer " << step.layer;
            EXPECT_TRUE(!comes || life(step).first == i) << model.config.name << ", layer " << step.layer;
        }
        EXPECT_EQ(left, 4);
        EXPECT_EQ(came, 4);
    }
}

/// While a slice is updated the next one comes and the one before goes; a bucket has several.
TEST(Transfers, SlicesOfAnUpdateArePipelined) {
    const Model model = small_model(Family::Gpt2, 3);
    const Plan plan = make_training_plan(model, request_with(model, 1, 0, 1 | 2), find_policy("layer"));
    EXPECT_GT(slices_of_bucket(model, plan, 1).size(), 4U);
    int coming = 0, leaving = 0, updates = 0, together = 0, most = 0;
    for (const Step& step : plan.steps) {
        if (step.kind == StepKind::Fetch) ++coming;
        if (step.kind == StepKind::WaitFetch) --coming;
        if (step.kind == StepKind::CopyOut) ++leaving;
        if (step.kind == StepKind::WaitCopyOut) --leaving;
        most = std::max(most, coming + leaving);
        if (step.kind != StepKind::Update) continue;
        ++updates;
        together += coming > 0 && leaving > 0 ? 1 : 0;
    }
    EXPECT_EQ(together, updates - 2) << "all but the first and the last";
    EXPECT_LE(most, 3 * 3) << "three buffers, three slots";
}

TEST(Transfers, ASliceIsAtMost64MiBAndLargeOnesAreNoSmaller) {
    const Model small = small_model(Family::Gpt2, 3), large = make_model(preset("llama3-8b"));
    const auto elements = [](const Model& model) { return slice_elements(model, make_partition(model, 1), false); };
    EXPECT_EQ(elements(large), int64_t{1} << 24);
    EXPECT_EQ(elements(small) % 256, 0);
    EXPECT_LT(elements(small), make_partition(small, 1).bucket_elements(1) / 4);
}

TEST(Transfers, BoundariesLeaveUnderEveryPolicyThatBringsThemBack) {
    for (const PolicyRow& policy : policies()) {
        const Model model = small_model(Family::Gpt2, 9);
        const Plan here = make_training_plan(model, request_with(model, 1, 0, 0), policy);
        const Plan away = make_training_plan(model, request_with(model, 1, 0, 32), policy);
        EXPECT_GT(away.host_bytes, 0) << policy.name;
        EXPECT_TRUE(away.places.on_host(Buffer::Boundaries));
        if (!policy.host_memory) {
            EXPECT_LT(simulate(model, away).peak_bytes, simulate(model, here).peak_bytes) << policy.name;
        }
        const int copies = count(away, StepKind::CopyOut);
        EXPECT_EQ(copies, std::string(policy.name) == "sqrt" ? 3 : 7) << policy.name << ": segments, or all but two";
    }
}

TEST(Transfers, SearchesKeepTheirBudgetWithBoundariesInHostMemory) {
    const Model model = small_model(Family::Llama, 8);
    const PlanRequest here = request_with(model, 1, 0, 0), away = request_with(model, 1, 0, 32);
    const OpTimes times = analytic_times(model, kShape, here.places, find_device_profile("h100"));
    const int64_t smallest = search_plan(model, here, times, 1).smallest_bytes;
    const int64_t least = search_plan(model, away, times, 1).smallest_bytes;
    EXPECT_LE(least, smallest);
    for (const double share : {1.0, 1.1, 1.5, 2.5}) {
        const auto budget = static_cast<int64_t>(static_cast<double>(smallest) * share);
        const SearchResult found = search_plan(model, away, times, budget);
        ASSERT_TRUE(found.found) << share;
        EXPECT_LE(make_layout(found.plan).arena_bytes, budget);
        EXPECT_EQ(find_fault(model, found.plan, make_layout(found.plan)), "");
    }
}

// ---- Faults
// ----------------------------------------------------------------------------------------------------------

/// What the verifier says after a change to a sound plan.
std::string fault_after(unsigned chosen, const std::function<void(std::vector<Step>&)>& change, int ranks = 1,
                        int zero = 0) {
    const Model model = small_model(Family::Gpt2, 3);
    Plan plan = make_training_plan(model, request_with(model, ranks, zero, chosen), find_policy("layer"));
    const Layout layout = make_layout(plan);
    EXPECT_EQ(find_fault(model, plan, layout), "");
    change(plan.steps);
    return find_fault(model, plan, layout);
}

/// The n-th step of a kind about a buffer in host memory.
std::vector<Step>::iterator nth(std::vector<Step>& steps, StepKind kind, Buffer buffer, int n = 0) {
    return std::find_if(steps.begin(), steps.end(), [&](const Step& step) {
        return step.kind == kind && step.is_copy_of_state() && step.buffer == buffer && n-- == 0;
    });
}

bool says(const std::string& fault, const std::string& words) { return fault.find(words) != std::string::npos; }

TEST(TransferFaults, AreSeen) {
    const auto erase = [](StepKind kind, Buffer buffer, int n = 0) {
        return [=](std::vector<Step>& steps) { steps.erase(nth(steps, kind, buffer, n)); };
    };
    EXPECT_TRUE(says(fault_after(1, erase(StepKind::WaitFetch, Buffer::MomentM, 2)), "before its fetch is over"));
    EXPECT_NE(fault_after(1, erase(StepKind::Fetch, Buffer::MomentM, 3)), "");
    EXPECT_NE(fault_after(1, erase(StepKind::CopyOut, Buffer::MomentV, 1)), "");
    EXPECT_NE(fault_after(1, erase(StepKind::WaitCopyOut, Buffer::MomentV, 1)), "");
    EXPECT_NE(fault_after(8, erase(StepKind::WaitFetch, Buffer::Parameters, 1)), "");
    EXPECT_NE(fault_after(8, erase(StepKind::Fetch, Buffer::Parameters, 1)), "");
    EXPECT_NE(fault_after(4, erase(StepKind::Fetch, Buffer::Gradients, 1)), "");
    EXPECT_NE(fault_after(4, erase(StepKind::WaitFetch, Buffer::Gradients, 1)), "");
    EXPECT_NE(fault_after(4, erase(StepKind::CopyOut, Buffer::Gradients, 1)), "");
    const auto swap_slices = [](std::vector<Step>& steps) {
        std::swap(nth(steps, StepKind::Fetch, Buffer::MomentM, 1)->first_element,
                  nth(steps, StepKind::Fetch, Buffer::MomentM, 2)->first_element);
    };
    EXPECT_TRUE(says(fault_after(1, swap_slices), "has other first moments"));
    const auto other_buffer = [](std::vector<Step>& steps) {
        nth(steps, StepKind::Fetch, Buffer::MomentM, 1)->buffer = Buffer::MomentV;
    };
    EXPECT_NE(fault_after(1, other_buffer), "");
    const auto on_the_device = [](std::vector<Step>& steps) {
        nth(steps, StepKind::Fetch, Buffer::MomentM, 1)->buffer = Buffer::Masters;
    };
    EXPECT_TRUE(says(fault_after(1, on_the_device), "not in host memory"));
    const auto beyond = [](std::vector<Step>& steps) {
        nth(steps, StepKind::Fetch, Buffer::MomentM, 1)->first_element = int64_t{1} << 40;
    };
    EXPECT_TRUE(says(fault_after(1, beyond), "not there"));
    const auto always = [](std::vector<Step>& steps) {
        nth(steps, StepKind::Fetch, Buffer::Gradients)->when = When::Always;
    };
    EXPECT_TRUE(says(fault_after(4, always), "wrong micro-batches"));
    const auto sums_after = [](std::vector<Step>& steps) {  // The norm wants what has left already.
        const auto sums = std::find_if(steps.begin(), steps.end(),
                                       [](const Step& step) { return step.kind == StepKind::SquareSums; });
        std::rotate(sums, sums + 1, sums + 3);
    };
    EXPECT_NE(fault_after(4, sums_after), "");
}

TEST(TransferFaults, OfPiecesOfRanksAreSeen) {
    const auto without_gather = [](std::vector<Step>& steps) {
        steps.erase(
            std::find_if(steps.begin(), steps.end(), [](const Step& step) { return step.kind == StepKind::Gather; }));
    };
    EXPECT_NE(fault_after(8, without_gather, 2, 3), "");
    const auto without_piece = [](std::vector<Step>& steps) {
        const auto fetch = nth(steps, StepKind::Fetch, Buffer::Parameters);
        steps.erase(nth(steps, StepKind::WaitFetch, Buffer::Parameters));
        steps.erase(fetch);
    };
    EXPECT_TRUE(says(fault_after(8, without_piece, 2, 3), "has not come from host memory"));
}

}  // namespace
}  // namespace llmc
