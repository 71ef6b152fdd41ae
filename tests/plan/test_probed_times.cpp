// Times from a probe's rates: each operation by its own, and what memory takes besides.
#include "llmc/plan/probed_times.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {2, 64};

/// Without end, but for products of two shapes.
ProbedRates endless_rates() {
    ProbedRates rates;
    rates.device = "test";
    rates.products = {{64, 64, 1e9, 2e9, 4e9}, {512, 64, 3e9, 3e9, 3e9}};
    rates.forward.fill(1e30);
    rates.backward.fill(1e30);
    rates.bandwidth = 1e30;
    return rates;
}

const OpRow& row_of(const Model& model, OpKind kind) {
    return *std::find_if(model.block.begin(), model.block.end(), [&](const OpRow& row) { return row.kind == kind; });
}

TEST(ProbedTimes, ProductsTakeTheRateOfTheNearestShape) {
    const Model model = small_model(Family::Gpt2, 2);
    const OpTimes times = probed_times(model, kShape, Places(), endless_rates());
    for (size_t i = 0; i < model.block.size(); ++i) {
        const OpRow& row = model.block[i];
        if (row.kind != OpKind::Matmul) continue;
        const auto& weight = model.parameters[static_cast<size_t>(model.parameter_index(0, row.weight))];
        const double flops = 2.0 * static_cast<double>(kShape.N() * weight.count());
        const bool is_wide = weight.rows > 181;  // The geometric mean.
        ASSERT_LT(weight.rows, 512);
        EXPECT_NEAR(times.block[i].forward, flops / (is_wide ? 3e9 : 1e9), 1e-12) << row.name;
        EXPECT_NEAR(times.block[i].backward, flops / (is_wide ? 3e9 : 2e9), 1e-12) << row.name;
        EXPECT_NEAR(times.block[i].backward_weight, flops / (is_wide ? 3e9 : 4e9), 1e-12) << row.name;
    }
    EXPECT_NE(times.source.find("uncalibrated, usually within 15 %"), std::string::npos) << times.source;
    EXPECT_EQ(source_in_hindsight(times, -0.1), times.source);
    EXPECT_TRUE(source_in_hindsight(times, 2.859).ends_with("; uncalibrated")) << source_in_hindsight(times, 2.859);
    EXPECT_FALSE(times.measured);
}

TEST(ProbedTimes, HalfOfWhatIsShorterHidesBehindTheLonger) {
    const Model model = small_model(Family::Llama, 2);
    ProbedRates rates = endless_rates();
    const OpTimes without = probed_times(model, kShape, Places(), rates);
    for (const double bandwidth : {1e8, 1e10}) {
        rates.bandwidth = bandwidth;
        const OpTimes with = probed_times(model, kShape, Places(), rates);
        for (size_t i = 0; i < model.block.size(); ++i) {
            const OpRow& row = model.block[i];
            const OpCost cost = op_cost(model, {row.kind, Pass::Forward, &row, kShape.N()}, kShape.T, sizeof(float));
            const double computing = without.block[i].forward, moving = cost.bytes / bandwidth;
            const double expected = std::max(computing, moving) + std::min(computing, moving) / 2;
            EXPECT_NEAR(with.block[i].forward, expected, 1e-12) << row.name;
        }
    }
}

TEST(ProbedTimes, AttentionGrowsWithWhatQueriesSee) {
    const Model model = small_model(Family::Gpt2, 2);
    ProbedRates rates = endless_rates();
    rates.attention_forward = {1e-6, 1e-9};
    const auto row = static_cast<size_t>(&row_of(model, OpKind::Attention) - model.block.data());
    for (const int64_t T : {32, 64}) {
        const OpTimes times = probed_times(model, {2, T}, Places(), rates);
        const double keys = 0.5 * static_cast<double>(T);
        EXPECT_NEAR(times.block[row].forward, 2.0 * static_cast<double>(T) * (1e-6 + 1e-9 * keys), 1e-9) << T;
    }
}

/// Three heads on two threads: two turns, but no more than what cut heads cost.
TEST(ProbedTimes, HeadsThatCannotBeSharedOutEvenly) {
    Model model = small_model(Family::Gpt2, 2);
    model.config.NKV = 3;
    ProbedRates rates = endless_rates();
    rates.attention_backward = {1e-3, 0};
    const auto row = static_cast<size_t>(&row_of(model, OpKind::Attention) - model.block.data());
    const auto seconds_with = [&](int64_t workers, int64_t B) {
        rates.workers = workers;
        return probed_times(model, {B, 32}, Places(), rates).block[row].backward / (1e-3 * static_cast<double>(32 * B));
    };
    EXPECT_NEAR(seconds_with(1, 1), 1, 1e-6);
    EXPECT_NEAR(seconds_with(2, 1), 4.0 / 3, 1e-6);
    EXPECT_NEAR(seconds_with(2, 2), 1, 1e-6);
    EXPECT_NEAR(seconds_with(64, 1), 1.4, 1e-6);
}

}  // namespace
}  // namespace llmc
