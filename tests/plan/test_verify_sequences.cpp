// Plans of packed sequences and scored rows: right under every policy, rank and place, and what a planted fault is
// called. Plans of neither have nothing of it.
#include "llmc/model/dropout.h"
#include "llmc/plan/verify.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {2, 64, /*packed=*/true, /*partly_scored=*/true};

struct Checked {
    Model model;
    Plan plan;
    Layout layout;
    std::string fault() const { return find_fault(model, plan, layout); }
};

PlanRequest request_for(const Model& model, const BatchShape& shape, int ranks = 1, int zero = 0) {
    PlanRequest request = request_of_ranks(model, shape, DType::F32, ranks, zero);
    request.logits_chunk_tokens = 40;
    request.workspace.embedding.backward = 1000;
    return request;
}

Checked checked(const Model& model, Plan plan) {
    Checked result = {model, std::move(plan), {}};
    result.layout = make_layout(result.plan);
    return result;
}

Checked planned(const Model& model, const BatchShape& shape = kShape, const char* policy = "layer") {
    return checked(model, make_training_plan(model, request_for(model, shape), find_policy(policy)));
}

int64_t count_told(const Plan& plan) {
    return std::count_if(plan.steps.begin(), plan.steps.end(),
                         [](const Step& step) { return step.operand(Slot::Documents) >= 0; });
}

int64_t count_gathers(const Plan& plan) {
    return std::count_if(plan.steps.begin(), plan.steps.end(), [](const Step& step) {
        return step.kind == StepKind::Compute && step.op == OpKind::ScoredRows;
    });
}

TEST(Sequences, PlansAreRight) {
    for (const Model& model : small_models(4)) {
        for (const PolicyRow& policy : policies()) {
            for (const auto& [ranks, zero] : {std::pair(1, 0), std::pair(3, 0), std::pair(2, 2), std::pair(3, 3)}) {
                const PlanRequest request = request_for(model, kShape, ranks, zero);
                const Checked plan = checked(model, make_training_plan(model, request, policy));
                EXPECT_EQ(plan.fault(), "") << model.config.name << ", " << policy.name << ", ZeRO " << zero;
                EXPECT_EQ(count_gathers(plan.plan), 2);
            }
        }
        const Checked evaluation = checked(model, make_evaluation_plan(model, request_for(model, kShape)));
        EXPECT_EQ(evaluation.fault(), "") << model.config.name;
        EXPECT_EQ(count_gathers(evaluation.plan), 1);
    }
}

TEST(Sequences, EachOfTheTwoByItself) {
    for (const Model& model : small_models(3)) {
        const Checked packed = planned(model, {2, 64, true, false}), scored = planned(model, {2, 64, false, true});
        EXPECT_EQ(packed.fault() + scored.fault(), "") << model.config.name;
        EXPECT_EQ(count_gathers(packed.plan), 0);
        EXPECT_EQ(count_told(scored.plan), 0);
        const Checked plain = planned(model, {2, 64});
        EXPECT_EQ(count_gathers(plain.plan) + count_told(plain.plan), 0);
        EXPECT_LE(plain.layout.arena_bytes, packed.layout.arena_bytes);
    }
}

/// What a model's frozen parameters leave of the head: nothing to bring back where nothing below it trains.
TEST(Sequences, AHeadThatTrainsAlone) {
    Model model = small_model(Family::Llama, 2);
    for (ParameterRow& row : model.parameters) row.trainable = row.name == "lm_head";
    lay_out_parameters(&model);
    const Checked plan = planned(model);
    EXPECT_EQ(plan.fault(), "");
    EXPECT_EQ(count_gathers(plan.plan), 1);
}

TEST(Sequences, AStepThatDoesNotKnowOfDocumentsIsFound) {
    for (const Model& model : small_models(3)) {
        const Checked good = planned(model);
        int64_t told = 0;
        for (size_t i = 0; i < good.plan.steps.size(); ++i) {
            const bool knows = good.plan.steps[i].operand(Slot::Documents) >= 0;
            if (!knows) continue;
            ++told;
            Checked bad = good;
            bad.plan.steps[i].operand(Slot::Documents) = kNone;
            EXPECT_NE(bad.fault().find("is not told where documents begin"), std::string::npos) << bad.fault();
            bad.plan.steps[i].operand(Slot::Documents) = 0;  // The tokens.
            EXPECT_NE(bad.fault(), "");
        }
        EXPECT_GE(told, 9);
    }
}

TEST(Sequences, StepsThatDropAreToldByWhatMasksAreDrawn) {
    for (const Family family : {Family::Gpt2, Family::Llama}) {
        const Model model = with_dropout(small_model(family, 3), 0.1);
        for (const PolicyRow& policy : policies()) {
            const Checked good = checked(model, make_training_plan(model, request_for(model, kShape), policy));
            EXPECT_EQ(good.fault(), "") << policy.name;
            int told = 0;
            for (size_t i = 0; i < good.plan.steps.size(); ++i) {
                const Step& step = good.plan.steps[i];
                const bool drops = step.kind == StepKind::Compute && step.op == OpKind::Dropout;
                EXPECT_EQ(step.operand(Slot::MaskRows) >= 0, drops);
                if (!drops || told++ % 5 > 0) continue;
                Checked bad = good;
                bad.plan.steps[i].operand(Slot::MaskRows) = kNone;
                EXPECT_NE(bad.fault().find("is not told what masks are drawn by"), std::string::npos) << bad.fault();
                bad.plan.steps[i].operand(Slot::MaskRows) = bad.plan.steps[i].operand(Slot::Out) >= 0
                                                                ? bad.plan.steps[i].operand(Slot::In)
                                                                : bad.plan.steps[i].operand(Slot::DOut);
                EXPECT_NE(bad.fault(), "");
            }
            EXPECT_GE(told, 14) << policy.name;  // 7 forward, 7 backward.
        }
        // Without training nothing drops, and the table's products add to the stream again.
        const Checked evaluation = checked(model, make_evaluation_plan(model, request_for(model, kShape)));
        EXPECT_EQ(evaluation.fault(), "");
        const Plan plain = make_evaluation_plan(small_model(family, 3), request_for(model, kShape));
        EXPECT_EQ(evaluation.plan.steps.size(), plain.steps.size());
        EXPECT_EQ(evaluation.layout.arena_bytes, make_layout(plain).arena_bytes);
    }
}

TEST(Sequences, FaultsOfScoredRowsAreFound) {
    for (const Model& model : small_models(3)) {
        const Checked good = planned(model);
        const auto at = [&](OpKind op, Pass pass) {
            const auto found = std::ranges::find_if(
                good.plan.steps, [&](const Step& step) { return step.op == op && step.pass == pass; });
            return static_cast<size_t>(found - good.plan.steps.begin());
        };
        const auto fault_after = [&](const auto& change) {
            Checked bad = good;
            change(bad.plan);
            return bad.fault();
        };
        const size_t gather = at(OpKind::ScoredRows, Pass::Forward), scatter = at(OpKind::ScoredRows, Pass::Backward);
        const size_t chunk = at(OpKind::Classifier, Pass::Forward), sum = at(OpKind::LossSum, Pass::Forward);
        const auto without = [](size_t step) {
            return [step](Plan& plan) { plan.steps.erase(plan.steps.begin() + static_cast<int64_t>(step)); };
        };
        EXPECT_NE(fault_after(without(gather)).find("before the rows that count are gathered"), std::string::npos);
        EXPECT_NE(fault_after(without(scatter)), "");
        const auto with = [](size_t step, Slot slot, int32_t operand) {
            return [=](Plan& plan) { plan.steps[step].operand(slot) = operand; };
        };
        const int32_t rows = good.plan.steps[gather].operand(Slot::Rows);
        const int32_t all = good.plan.steps[gather].operand(Slot::In);
        EXPECT_NE(fault_after(with(scatter, Slot::Rows, rows)).find("where rows belong"), std::string::npos);
        EXPECT_NE(fault_after(with(gather, Slot::Rows, kNone)).find("which rows count"), std::string::npos);
        EXPECT_NE(fault_after(with(chunk, Slot::In, all)), "");
        EXPECT_NE(fault_after([&](Plan& plan) { std::swap(plan.steps[scatter], plan.steps[scatter - 2]); }), "");
        EXPECT_NE(fault_after([&](Plan& plan) { std::swap(plan.steps[gather], plan.steps[gather - 1]); }), "");
        EXPECT_NE(fault_after([&](Plan& plan) {
                      plan.steps.insert(plan.steps.begin() + static_cast<int64_t>(gather), plan.steps[gather]);
                  }).find("comes twice"),
                  std::string::npos);
        EXPECT_NE(fault_after([](Plan& plan) { plan.shape.partly_scored = false; }).find("where all rows count"),
                  std::string::npos);
        EXPECT_NE(fault_after(without(sum)), "");
    }
}

}  // namespace
}  // namespace llmc
