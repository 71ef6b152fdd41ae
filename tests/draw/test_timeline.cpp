// The bytes behind the picture are the simulator's, and the picture says what it should.
#include "llmc/draw/timeline.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <numeric>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(Timeline, AddsUpToTheSimulation) {
    for (const Family family : kFamilies) {
        const Model model = small_model(family, 5);
        const PlanRequest request = request_of(model, {3, 7}, DType::BF16, 1000);
        for (const PolicyRow& policy : policies()) {
            const Plan plan = make_training_plan(model, request, policy);
            const Simulation simulation = simulate(model, plan);
            const std::vector<BytesByConsumer> live = live_by_consumer(plan);
            ASSERT_EQ(live.size(), plan.steps.size());
            for (size_t i = 0; i < live.size(); ++i) {
                EXPECT_EQ(std::accumulate(live[i].begin(), live[i].end(), int64_t{0}), simulation.live_bytes[i])
                    << label(model, request.shape, DType::BF16, policy.name) << ", step " << i;
            }
            EXPECT_EQ(live[static_cast<size_t>(simulation.peak_step)], simulation.by_consumer) << policy.name;
        }
    }
}

TEST(Timeline, NamesPeakPhasesAndConsumers) {
    const Model model = small_model(Family::Llama, 6);
    const Plan plan = make_training_plan(model, request_of(model, {2, 64}, DType::F32, 500), find_policy("layer"));
    const Layout layout = make_layout(plan);
    const Simulation simulation = simulate(model, plan);
    const std::string svg = draw_timeline(model, plan, layout, "the <title>", "below it");
    const auto says = [&](const std::string& words) { return svg.find(words) != std::string::npos; };
    EXPECT_TRUE(says(">the &lt;title&gt;<") && says(">below it<"));
    EXPECT_TRUE(says(describe_step(model, plan.steps[static_cast<size_t>(simulation.peak_step)]) + "<"));
    EXPECT_TRUE(says(format_bytes(layout.arena_bytes)) && says(">activation arena, "));
    for (const char* words : {"forward", "head", "backward", "update"})
        EXPECT_TRUE(says(std::string(">") + words + "<"));
    for (size_t consumer = 0; consumer < kNumConsumers; ++consumer) {
        const std::string name(name_of(static_cast<Consumer>(consumer)));
        EXPECT_EQ(says(">" + name + "<"), consumer < static_cast<size_t>(Consumer::KeyValueCache)) << name;
    }
    EXPECT_TRUE(says("run again"));
    const Plan keeps = make_training_plan(model, request_of(model, {2, 64}, DType::F32), find_policy("none"));
    EXPECT_EQ(draw_timeline(model, keeps, make_layout(keeps), "", "").find("run again"), std::string::npos);
}

/// The number after `name="` in front of `end`.
double number_before(const std::string& text, const char* name, size_t end) {
    const size_t at = text.rfind(std::string(" ") + name + "=\"", end);
    return std::stod(text.substr(text.find('"', at) + 1));
}

TEST(Timeline, NoLineStrikesThroughThePeaksWords) {
    for (const char* policy : {"none", "act", "layer", "sqrt"}) {
        const Model model = small_model(Family::Gpt2, 6);
        const Plan plan = make_training_plan(model, request_of(model, {2, 64}, DType::F32), find_policy(policy));
        const std::string svg = draw_timeline(model, plan, make_layout(plan), "", "");
        const size_t words = svg.find(">peak ");
        ASSERT_NE(words, std::string::npos);
        const double baseline = number_before(svg, "y", words);
        const size_t box = svg.rfind("<rect", words);
        ASSERT_EQ(svg.rfind('\n', svg.rfind("<text", words)), svg.find('\n', box)) << "right before its rim";
        const double top = number_before(svg, "y", svg.find("width", box));
        const double bottom = top + number_before(svg, "height", svg.find("fill", box));
        EXPECT_LT(top, baseline - 10);
        EXPECT_GT(bottom, baseline);
        const size_t line = svg.rfind("<path", svg.find("stroke-dasharray=\"8 4\""));
        const double arena = std::stod(svg.substr(svg.find(' ', svg.find("d=\"M", line)) + 1));
        EXPECT_FALSE(top < arena && arena < bottom) << policy << ": " << top << " " << arena << " " << bottom;
    }
}

TEST(Timeline, NamesWhatRanksExchange) {
    const Model model = small_model(Family::Llama, 6);
    for (int zero = 0; zero <= 3; ++zero) {
        const PlanRequest request = request_of_ranks(model, {2, 64}, DType::F32, 4, zero);
        const Plan plan = make_training_plan(model, request, find_policy("layer"));
        const std::string svg = draw_timeline(model, plan, make_layout(plan), "", "");
        const auto says = [&](Consumer consumer) {
            return svg.find(">" + std::string(name_of(consumer)) + "<") != std::string::npos;
        };
        EXPECT_EQ(says(Consumer::GatheredParameters), zero == 3);
        EXPECT_EQ(says(Consumer::BucketGradients), zero >= 2);
        EXPECT_TRUE(says(Consumer::Communication));
    }
}

}  // namespace
}  // namespace llmc
