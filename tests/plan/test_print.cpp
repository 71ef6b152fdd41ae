// Printed plans against golden files: a change of any step, operand or live size shows as a difference in text. After
// an intended change, UPDATE_GOLDEN=1 in the environment rewrites the files; look at the difference before a commit.
#include "llmc/plan/print.h"

#include "llmc/model/trainable.h"
#include "llmc/plan/simulate.h"
#include "tests/io/temp_dir.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace llmc {
namespace {

using namespace plan_cases;

void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = "tests/golden/plans/" + name + ".txt";  // Tests run at the top of the tree.
    if (const char* update = std::getenv("UPDATE_GOLDEN"); update != nullptr && std::string(update) == "1") {
        std::ofstream(path, std::ios::binary) << text;
    }
    const std::string golden = slurp(path);
    ASSERT_FALSE(golden.empty()) << path << " is missing or empty: run the tests at the top of the tree";
    if (golden == text) return;
    const auto [expected, found] = std::mismatch(golden.begin(), golden.end(), text.begin(), text.end());
    const auto line = 1 + std::count(golden.begin(), expected, '\n');
    const auto start = text.rfind('\n', static_cast<size_t>(found - text.begin()));
    const size_t begin = found == text.begin() || start == std::string::npos ? 0 : start + 1;
    ADD_FAILURE() << path << " differs from line " << line << ", where the plan now has\n"
                  << text.substr(begin, text.find('\n', begin) - begin);
}

/// `layer` on three layers; `sqrt` on four, the fewest where it keeps fewer boundaries than that; `offload` on four, of
/// which it copies two.
void expect_golden_plan(const std::string& file, Family family, int L, const char* policy) {
    const Model model = small_model(family, L);
    const Plan plan = make_training_plan(model, request_of(model, {2, 5}, DType::F32), find_policy(policy));
    expect_golden(file, summarise_steps(plan) + "\n" + print_steps(model, plan, nullptr));
}

TEST(PrintedPlan, Gpt2Layer) { expect_golden_plan("gpt2_layer", Family::Gpt2, 3, "layer"); }
TEST(PrintedPlan, Gpt2Sqrt) { expect_golden_plan("gpt2_sqrt", Family::Gpt2, 4, "sqrt"); }
TEST(PrintedPlan, Gpt2Offload) { expect_golden_plan("gpt2_offload", Family::Gpt2, 4, "offload"); }
TEST(PrintedPlan, LlamaLayer) { expect_golden_plan("llama_layer", Family::Llama, 3, "layer"); }
TEST(PrintedPlan, LlamaSqrt) { expect_golden_plan("llama_sqrt", Family::Llama, 4, "sqrt"); }
TEST(PrintedPlan, LlamaOffload) { expect_golden_plan("llama_offload", Family::Llama, 4, "offload"); }

/// The upper of three layers and the norms train, and the embedding does not, nor the tied head.
TEST(PrintedPlan, Gpt2Frozen) {
    const Model model = with_trainable(small_model(Family::Gpt2, 3),
                                       parse_patterns("--freeze", "wte,wpe,layers.0-1.*,!layers.1.ln2_*", false));
    const Plan plan = make_training_plan(model, request_of(model, {2, 5}, DType::F32), find_policy("layer"));
    expect_golden("gpt2_frozen", summarise_steps(plan) + "\n" + print_steps(model, plan, nullptr));
}

/// Four ranks; stage 2 with a tied head, stage 3 with one of its own.
void expect_golden_plan_of_ranks(const std::string& file, Family family, int zero) {
    const Model model = small_model(family, 2);
    const PlanRequest request = request_of_ranks(model, {2, 5}, DType::F32, 4, zero);
    const Plan plan = make_training_plan(model, request, find_policy("layer"));
    expect_golden(file, summarise_steps(plan) + "\n" + print_steps(model, plan, nullptr));
}

TEST(PrintedPlan, Gpt2Zero2) { expect_golden_plan_of_ranks("gpt2_zero2", Family::Gpt2, 2); }
TEST(PrintedPlan, LlamaZero3) { expect_golden_plan_of_ranks("llama_zero3", Family::Llama, 3); }

TEST(PrintedPlan, SqrtOnThreeLayersIsLayer) {
    // One segment per layer is the cheapest there: the two levels are one plan.
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 3);
        const PlanRequest request = request_of(model, {2, 5}, DType::F32);
        EXPECT_EQ(print_steps(model, make_training_plan(model, request, find_policy("sqrt")), nullptr),
                  print_steps(model, make_training_plan(model, request, find_policy("layer")), nullptr));
    }
}

TEST(PrintedPlan, HasALinePerStepAndOffsetsOnRequest) {
    const Model model = small_model(Family::Llama, 3);
    const Plan plan = make_training_plan(model, request_of(model, {2, 5}, DType::F32, 100), find_policy("layer"));
    const Layout layout = make_layout(plan);
    const std::string without = print_steps(model, plan, nullptr), with = print_steps(model, plan, &layout);
    for (const std::string& text : {without, with}) {
        EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), static_cast<int64_t>(plan.steps.size()));
    }
    EXPECT_EQ(without.find('@'), std::string::npos);
    const auto last = static_cast<size_t>(without_update(plan).steps.back().operand(Slot::DOut));
    const Plan copies = make_training_plan(model, request_of(model, {2, 5}, DType::F32), find_policy("offload"));
    const Layout of_copies = make_layout(copies);
    EXPECT_NE(print_steps(model, copies, &of_copies).find(" host@0"), std::string::npos);
    EXPECT_NE(with.find("d_out=d_residual@" + std::to_string(layout.offsets[last])), std::string::npos);
}

TEST(SummariseSteps, CountsByPhase) {
    // GPT-2, 3 layers of 8 rows with 4 matmuls: 1 + 24 forward; norm, the four steps of a chunk, the losses' sum and
    // the norm's backward at the head; two layers of 7 rows again; 3 * 12 backward and the embedding's; five buckets
    // with gaps; sums of squares and update of each, and the norm between them.
    const Model model = small_model(Family::Gpt2, 3);
    const Plan plan = make_training_plan(model, request_of(model, {2, 5}, DType::F32), find_policy("layer"));
    EXPECT_EQ(summarise_steps(plan),
              "99 steps: 25 forward, 7 head, 14 repeated, 37 backward, 5 buckets zeroed; 11 of the update");
    const Plan copies = make_training_plan(model, request_of(model, {2, 5}, DType::F32), find_policy("offload"));
    EXPECT_EQ(
        summarise_steps(copies),
        "103 steps: 25 forward, 7 head, 14 repeated, 37 backward, 2 copies and their waits, 5 buckets zeroed; 11 of "
        "the update");
    // Seven gathers: embedding, layers 0 to 2, head, and layers 1 and 0 once more. The update also gathers the sums.
    const Model llama = small_model(Family::Llama, 3);
    const PlanRequest request = request_of_ranks(llama, {2, 5}, DType::F32, 4, 3);
    EXPECT_EQ(
        summarise_steps(make_training_plan(llama, request, find_policy("layer"))),
        "124 steps: 25 forward, 7 head, 14 repeated, 37 backward, 7 gathers and their waits, 5 reductions and their "
        "waits, 5 buckets zeroed; 12 of the update");
    // Stage 1's update gathers five buckets.
    const PlanRequest stage1 = request_of_ranks(llama, {2, 5}, DType::F32, 4, 1);
    EXPECT_TRUE(summarise_steps(make_training_plan(llama, stage1, find_policy("layer")))
                    .ends_with("37 backward, 5 reductions and their waits, 5 buckets zeroed; 22 of the update"));
}

}  // namespace
}  // namespace llmc
