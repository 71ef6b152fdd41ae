// The verifier itself: plans and layouts that were right are damaged, and it must see it.
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
};

Checked checked(Plan plan, const Model& model) {
    Layout layout = make_layout(plan);
    return {model, std::move(plan), std::move(layout)};
}

/// One case per family and policy, with workspaces.
std::vector<Checked> cases(int L) {
    std::vector<Checked> all;
    for (const Family family : kFamilies) {
        const Model model = small_model(family, L);
        const PlanRequest request = request_of(model, {3, 7}, DType::F32, 300);
        for (const PolicyRow& policy : policies())
            all.push_back(checked(make_training_plan(model, request, policy), model));
        all.push_back(checked(make_evaluation_plan(model, request), model));
        PlanRequest one = request_of(model, {1, 5}, DType::F32, 300);
        all.push_back(checked(make_generation_plan(model, one, 40), model));
    }
    for (const Checked& item : all) EXPECT_EQ(item.fault(), "") << item.plan.policy;
    return all;
}

TEST(FindFault, SeesEveryDroppedForwardStep) {
    for (const Checked& good : cases(4)) {
        for (size_t i = 0; i < good.plan.steps.size(); ++i) {
            if (good.plan.steps[i].pass != Pass::Forward) continue;
            Checked bad = good;
            bad.plan.steps.erase(bad.plan.steps.begin() + static_cast<int64_t>(i));
            EXPECT_NE(bad.fault(), "") << good.plan.policy << " without "
                                       << describe_step(good.model, good.plan.steps[i]);
        }
    }
}

TEST(FindFault, SeesEveryDroppedGradientThatIsRead) {
    for (const Checked& good : cases(3)) {
        for (size_t i = 0; i < good.plan.steps.size(); ++i) {
            const Step& step = good.plan.steps[i];
            if (step.pass == Pass::Forward || step.operand(Slot::DIn) < 0 || step.accumulate) continue;
            Checked bad = good;
            bad.plan.steps.erase(bad.plan.steps.begin() + static_cast<int64_t>(i));
            EXPECT_NE(bad.fault(), "") << good.plan.policy << " without " << describe_step(good.model, step);
        }
    }
}

bool reads_what_the_other_writes(const Step& reader, const Step& writer) {
    for (int r = 0; r < kNumSlots; ++r) {
        if (!access(reader, static_cast<Slot>(r)).reads) continue;
        for (int w = 0; w < kNumSlots; ++w) {
            const Access use = access(writer, static_cast<Slot>(w));
            const bool first_write = use.writes && !use.reads;
            if (first_write && reader.operands[static_cast<size_t>(r)] == writer.operands[static_cast<size_t>(w)])
                return true;
        }
    }
    return false;
}

TEST(FindFault, SeesSwappedSteps) {
    for (const Checked& good : cases(4)) {
        int swapped = 0;
        for (size_t i = 0; i + 1 < good.plan.steps.size(); ++i) {
            if (!reads_what_the_other_writes(good.plan.steps[i + 1], good.plan.steps[i])) continue;
            Checked bad = good;
            std::swap(bad.plan.steps[i], bad.plan.steps[i + 1]);
            EXPECT_NE(bad.fault(), "") << good.plan.policy << ", steps " << i << " and " << i + 1;
            ++swapped;
        }
        EXPECT_GE(swapped, 20) << good.plan.policy;
    }
}

TEST(FindFault, SeesEveryPairOfLiveTensorsMadeToOverlap) {
    for (const Checked& good : cases(2)) {
        const std::vector<Storage> all = storages(good.plan, good.layout);
        int overlaps = 0;
        for (const Storage& moved : all) {
            for (const Storage& other : all) {
                if (&moved == &other || !moved.together_with(other)) continue;
                Checked bad = good;
                // To the other's last bytes, so that some of it stays intact; the arena grows to hold it.
                const int64_t offset = other.end - kPlanAlignment;
                for (size_t t = 0; t < bad.plan.tensors.size(); ++t) {
                    if (storage_of(bad.plan, static_cast<int32_t>(t)) == moved.tensor) bad.layout.offsets[t] = offset;
                }
                bad.layout.arena_bytes += moved.end - moved.begin;
                const auto name = [&](const Storage& s) {
                    const PlanTensor& tensor = good.plan.tensors[static_cast<size_t>(s.tensor)];
                    return tensor.name + " of layer " + std::to_string(tensor.layer);
                };
                ASSERT_NE(bad.fault(), "") << good.plan.policy << ": " << name(moved) << " on " << name(other);
                ++overlaps;
            }
        }
        EXPECT_GE(overlaps, 100) << good.plan.policy;
    }
}

TEST(FindFault, SeesOffsetsOutsideTheArenaOrMisaligned) {
    for (const Checked& good : cases(2)) {
        for (size_t t = 0; t < good.plan.tensors.size(); ++t) {
            Checked bad = good;
            bad.layout.offsets[t] = good.layout.arena_bytes - good.plan.tensors[t].bytes + kPlanAlignment;
            EXPECT_NE(bad.fault(), "") << "beyond the end";
            bad.layout.offsets[t] = -kPlanAlignment;
            EXPECT_NE(bad.fault(), "") << "before the start";
            bad.layout.offsets[t] = good.layout.offsets[t] + 64;
            EXPECT_NE(bad.fault(), "") << "misaligned";
        }
        Checked bad = good;
        bad.layout.arena_bytes -= kPlanAlignment;
        EXPECT_NE(bad.fault(), "") << "an arena that is too small";
    }
}

TEST(FindFault, SeesACacheThatIsOverwrittenBeforeItsLayerReadsIt) {
    const Model model = small_model(Family::Llama, 3);
    Checked bad = checked(make_generation_plan(model, request_of(model, {1, 5}, DType::F32), 40), model);
    const auto index_of = [&](const std::string& name, int layer) {
        for (size_t t = 0; t < bad.plan.tensors.size(); ++t) {
            if (bad.plan.tensors[t].name == name && bad.plan.tensors[t].layer == layer) return t;
        }
        return bad.plan.tensors.size();
    };
    bad.layout.offsets[index_of("ln1_out", 0)] = bad.layout.offsets[index_of("k_cache", 2)];
    EXPECT_NE(bad.fault().find("needs k_cache of layer 2, which ln1_out of layer 0 has overwritten"), std::string::npos)
        << bad.fault();
}

// ---- The classifier's chunks ----

/// Damages every step of a chunk; each must be seen.
void expect_seen_in_chunks(const std::function<void(Plan&, size_t)>& damage) {
    int damaged = 0;
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 2);
        PlanRequest request = request_of(model, {3, 7}, DType::F32, 100);
        for (const int64_t chunk : {8, 10, 21}) {
            request.logits_chunk_tokens = chunk;
            for (const bool trains : {true, false}) {
                const Checked good = checked(trains ? make_training_plan(model, request, find_policy("none"))
                                                    : make_evaluation_plan(model, request),
                                             model);
                ASSERT_EQ(good.fault(), "");
                for (size_t i = 0; i < good.plan.steps.size(); ++i) {
                    if (good.plan.steps[i].kind != StepKind::Compute || !good.plan.steps[i].is_of_chunk()) continue;
                    Checked bad = good;
                    damage(bad.plan, i);
                    EXPECT_NE(bad.fault(), "") << good.plan.policy << ", chunks of " << chunk << ", step " << i << ": "
                                               << describe_step(model, good.plan.steps[i]);
                    ++damaged;
                }
            }
        }
    }
    EXPECT_GE(damaged, 80);
}

TEST(FindFault, SeesAStepOfAChunkWithOtherRows) {
    for (const int64_t by : {-8, -1, 1, 8, 21}) {
        expect_seen_in_chunks([&](Plan& plan, size_t i) { plan.steps[i].first_token += by; });
    }
    for (const int64_t by : {-21, -8, -1, 1, 100}) {
        expect_seen_in_chunks([&](Plan& plan, size_t i) { plan.steps[i].tokens += by; });
    }
    expect_seen_in_chunks([](Plan& plan, size_t i) { plan.steps[i].tokens = 0; });
}

TEST(FindFault, SeesAStepOfAChunkThatIsMissingOrTwiceOrAtTheWrongPlace) {
    const auto at = [](Plan& plan, size_t i) { return plan.steps.begin() + static_cast<int64_t>(i); };
    expect_seen_in_chunks([&](Plan& plan, size_t i) { plan.steps.erase(at(plan, i)); });
    expect_seen_in_chunks([&](Plan& plan, size_t i) { plan.steps.insert(at(plan, i), Step(plan.steps[i])); });
    // In the place of the next step of a chunk, or of the first.
    expect_seen_in_chunks([&](Plan& plan, size_t i) {
        const auto is_of_chunk = [](const Step& step) { return step.is_of_chunk(); };
        auto other = std::find_if(at(plan, i) + 1, plan.steps.end(), is_of_chunk);
        if (other == plan.steps.end()) other = std::find_if(plan.steps.begin(), plan.steps.end(), is_of_chunk);
        std::swap(plan.steps[i], *other);
    });
}

TEST(FindFault, SaysWhatIsWrongWithAChunk) {
    const Model model = small_model(Family::Gpt2, 1);
    PlanRequest request = request_of(model, {3, 7}, DType::F32);
    request.logits_chunk_tokens = 8;
    const Checked good = checked(make_evaluation_plan(model, request), model);
    const auto fault_with = [&](int64_t chunk_step, int64_t first, int64_t tokens) {
        Checked bad = good;
        const auto begin = std::find_if(bad.plan.steps.begin(), bad.plan.steps.end(),
                                        [](const Step& step) { return step.op == OpKind::Classifier; });
        (begin + chunk_step)->first_token = first, (begin + chunk_step)->tokens = tokens;
        return bad.fault();
    };
    EXPECT_EQ(fault_with(2, 8, 8), "");
    EXPECT_EQ(fault_with(2, 9, 8), "step 12 (forward of classifier) begins at token 9 instead of 8");
    EXPECT_EQ(fault_with(2, 8, 9), "step 12 (forward of classifier) is about too many tokens, or none");
    EXPECT_EQ(fault_with(3, 0, 8), "step 13 (cross-entropy) is about tokens of another chunk");
    Checked bad = good;
    bad.plan.steps.pop_back();
    EXPECT_EQ(bad.fault(), "the plan never adds up the losses");
}

// ---- Copies ----

Checked offloaded(int L) {
    const Model model = small_model(Family::Gpt2, L);
    return checked(make_training_plan(model, request_of(model, {3, 7}, DType::F32), find_policy("offload")), model);
}

int64_t index_of(const Plan& plan, StepKind kind, int layer) {
    for (size_t i = 0; i < plan.steps.size(); ++i) {
        if (plan.steps[i].kind == kind && plan.steps[i].layer == layer) return static_cast<int64_t>(i);
    }
    ADD_FAILURE() << "no such copy of layer " << layer;
    return 0;
}

Step& copy_step(Checked& item, StepKind kind, int layer) {
    return item.plan.steps[static_cast<size_t>(index_of(item.plan, kind, layer))];
}

/// Takes a step out and puts it in again before the step that was at `to`; the layout stays that of the good plan.
void move_step(Plan& plan, int64_t from, int64_t to) {
    const Step step = plan.steps[static_cast<size_t>(from)];
    plan.steps.erase(plan.steps.begin() + from);
    plan.steps.insert(plan.steps.begin() + (to > from ? to - 1 : to), step);
}

constexpr StepKind kCopyKinds[] = {StepKind::CopyOut, StepKind::WaitCopyOut, StepKind::Fetch, StepKind::WaitFetch};

TEST(FindFault, SeesEveryCopyOrWaitThatIsMissingOrTwice) {
    const Checked good = offloaded(5);
    ASSERT_EQ(good.fault(), "");
    for (const StepKind kind : kCopyKinds) {
        for (int layer = 0; layer < 3; ++layer) {
            const int64_t at = index_of(good.plan, kind, layer);
            Checked bad = good;
            bad.plan.steps.erase(bad.plan.steps.begin() + at);
            EXPECT_NE(bad.fault(), "") << describe_step(good.model, good.plan.steps[static_cast<size_t>(at)]);
            bad = good;
            bad.plan.steps.insert(bad.plan.steps.begin() + at, good.plan.steps[static_cast<size_t>(at)]);
            EXPECT_NE(bad.fault(), "") << describe_step(good.model, good.plan.steps[static_cast<size_t>(at)]);
        }
    }
}

TEST(FindFault, SeesAReadBeforeTheWaitForItsFetch) {
    const Checked good = offloaded(5);
    for (int layer = 0; layer < 3; ++layer) {
        Checked bad = good;
        const int64_t wait = index_of(good.plan, StepKind::WaitFetch, layer);
        move_step(bad.plan, wait, wait + 2 + (layer < 1 ? 0 : 1));  // Past the repeated ln1, the first reader.
        const std::string x = fmt::format("x of layer {}", layer);
        EXPECT_NE(bad.fault().find(fmt::format("layer {}, repeated ln1) uses {} before its fetch is over", layer, x)),
                  std::string::npos)
            << bad.fault();
    }
}

TEST(FindFault, SeesASlotReusedBeforeTheWaitForItsCopyOut) {
    // Laid out as if the waits stood one layer earlier, the next boundaries take the place of those still being copied.
    const Checked good = offloaded(6);
    Plan early = good.plan;
    for (int layer = 0; layer < 4; ++layer) {
        int64_t next_layer = index_of(early, StepKind::CopyOut, layer) + 1;
        while (early.steps[static_cast<size_t>(next_layer)].layer == layer) ++next_layer;
        move_step(early, index_of(early, StepKind::WaitCopyOut, layer), next_layer);
    }
    const Checked tight = checked(early, good.model);
    ASSERT_EQ(tight.fault(), "");
    Checked bad = good;
    // Both plans have the same tensors in the same order; all lifetimes but those of copied boundaries agree.
    ASSERT_EQ(bad.plan.tensors.size(), tight.plan.tensors.size());
    bad.layout = tight.layout;
    EXPECT_NE(bad.fault().find("wait for copy out of x) needs x of layer "), std::string::npos) << bad.fault();
    EXPECT_NE(bad.fault().find("has overwritten"), std::string::npos) << bad.fault();
}

TEST(FindFault, SeesATensorWrittenWhileItIsCopiedOut) {
    Checked bad = offloaded(5);
    const int64_t copy = index_of(bad.plan, StepKind::CopyOut, 0);
    bad.plan.steps.insert(bad.plan.steps.begin() + copy + 1, bad.plan.steps[static_cast<size_t>(copy) - 1]);
    EXPECT_EQ(bad.fault(), "step 2 (forward of embedding) writes x of layer 0 before its copy out is over");
}

TEST(FindFault, SeesAFetchBeforeItsCopyOutIsOver) {
    Checked bad = offloaded(5);
    // The wait for the first copy goes to just behind its fetch.
    const int64_t wait = index_of(bad.plan, StepKind::WaitCopyOut, 0);
    move_step(bad.plan, wait, index_of(bad.plan, StepKind::Fetch, 0) + 1);
    bad.layout = make_layout(bad.plan);
    EXPECT_NE(bad.fault().find("fetches x of layer 0 before its copy out is over"), std::string::npos) << bad.fault();
}

TEST(FindFault, SeesAFetchFromAnotherPlace) {
    const Checked good = offloaded(5);
    const int64_t X = boundary_bytes(good.model.config, {3, 7}, DType::F32);
    for (const int64_t offset : {X, 2 * X, 3 * X, int64_t{-1}, kPlanAlignment}) {
        Checked bad = good;
        copy_step(bad, StepKind::Fetch, 0).host_offset = offset;
        EXPECT_NE(bad.fault().find("fetches x of layer 0 from where it is not"), std::string::npos) << bad.fault();
    }
}

TEST(FindFault, SeesPlacesInHostMemoryThatMeetOrLieOutside) {
    const Checked good = offloaded(5);
    Checked bad = good;
    copy_step(bad, StepKind::CopyOut, 1).host_offset -= kPlanAlignment;
    EXPECT_NE(bad.fault().find("copies x of layer 1 over x of layer 0 in host memory"), std::string::npos)
        << bad.fault();
    bad = good;
    bad.plan.host_bytes -= kPlanAlignment;
    EXPECT_NE(bad.fault().find("copies x of layer 2 to "), std::string::npos) << bad.fault();
    bad = good;
    copy_step(bad, StepKind::CopyOut, 0).host_offset = -1;
    EXPECT_NE(bad.fault(), "");
}

TEST(FindFault, SeesACopyThatNobodyWaitsFor) {
    Checked bad = offloaded(3);
    bad.plan.steps.erase(bad.plan.steps.begin() + index_of(bad.plan, StepKind::Fetch, 0), bad.plan.steps.end());
    std::erase_if(bad.plan.steps, [](const Step& step) { return step.kind == StepKind::WaitCopyOut; });
    EXPECT_EQ(bad.fault(), "the plan ends while x of layer 0 is being copied");
}

TEST(FindFault, NamesTheStepAndTheTensors) {
    const Model model = small_model(Family::Gpt2, 3);
    const Plan plan = make_training_plan(model, request_of(model, {3, 7}, DType::F32), find_policy("layer"));
    const Checked good = checked(plan, model);
    Checked bad = good;
    bad.plan.steps.erase(bad.plan.steps.begin() + 1);  // ln1 of layer 0.
    EXPECT_EQ(bad.fault(), "step 1 (layer 0, forward of qkv) needs ln1_out of layer 0 before it is written");
    bad = good;
    int32_t act_out = -1, x_mid = -1;
    for (size_t t = 0; t < plan.tensors.size(); ++t) {
        if (act_out < 0 && plan.tensors[t].name == "act_out") act_out = static_cast<int32_t>(t);
        if (x_mid < 0 && plan.tensors[t].name == "x_mid") x_mid = static_cast<int32_t>(t);
    }
    bad.layout.offsets[static_cast<size_t>(act_out)] = bad.layout.offsets[static_cast<size_t>(x_mid)];
    bad.layout.arena_bytes += plan.tensors[static_cast<size_t>(act_out)].bytes;
    EXPECT_EQ(bad.fault(),
              "step 8 (layer 0, forward of fc_proj) needs x_mid of layer 0, which act_out of layer 0 has overwritten");
}

}  // namespace
}  // namespace llmc
