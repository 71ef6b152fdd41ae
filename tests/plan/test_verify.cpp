// The verifier itself: plans and layouts that were right are damaged, and it must see it.
#include "llmc/plan/verify.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

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
