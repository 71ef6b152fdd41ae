// Predicted time of plans: the sum of their operations, and what copies between the device and the host add to it.
#include "llmc/plan/cost.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace plan_cases;

constexpr BatchShape kShape = {2, 64};

struct Priced {
    Model model;
    Plan plan;
    OpTimes times;
    double seconds() const { return plan_seconds(times, plan); }
};

Priced priced(Family family, int L, const char* policy, double host_bandwidth) {
    DeviceProfile device = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};
    device.host_bandwidth = host_bandwidth;
    Model model = small_model(family, L);
    Plan plan = make_training_plan(model, request_of(model, kShape, DType::F32), find_policy(policy));
    OpTimes times = analytic_times(model, kShape, DType::F32, device);
    return {std::move(model), std::move(plan), std::move(times)};
}

double forward_of_layer(const OpTimes& times) {
    double seconds = 0;
    for (const OpTimes::Row& row : times.block) seconds += row.forward;
    return seconds;
}

/// Forward without the last matmul, and backward.
double backward_of_layer(const OpTimes& times) {
    double seconds = forward_of_layer(times) - times.block.back().forward;
    for (const OpTimes::Row& row : times.block) seconds += row.backward + row.backward_weight;
    return seconds;
}

TEST(PlanSeconds, AreTheSumOfTheOperationsWithoutCopies) {
    for (const Family family : kFamilies) {
        for (const char* policy : {"none", "layer", "sqrt", "act", "attn"}) {
            const Priced item = priced(family, 7, policy, 25e9);
            double sum = 0;
            for (const Step& step : item.plan.steps) sum += step_seconds(item.times, step);
            EXPECT_DOUBLE_EQ(item.seconds(), sum) << policy;
        }
    }
}

TEST(PlanSeconds, OfHiddenCopiesAreThoseOfLevelOne) {
    for (const Family family : kFamilies) {
        for (const int L : {1, 2, 3, 12}) {
            const Priced offload = priced(family, L, "offload", 1e15), layer = priced(family, L, "layer", 1e15);
            EXPECT_DOUBLE_EQ(offload.seconds(), layer.seconds());
        }
    }
}

TEST(PlanSeconds, OfCopiesThatDoNotHideGrowByWhatTheLayersAreShortOf) {
    constexpr int L = 24;
    for (const Family family : kFamilies) {
        const Priced layer = priced(family, L, "layer", 25e9);
        const double forward = forward_of_layer(layer.times), backward = backward_of_layer(layer.times);
        const auto bytes = static_cast<double>(boundary_bytes(layer.model.config, kShape, DType::F32));
        for (const double copy : {0.5 * forward, 1.5 * forward, 1.5 * backward, 4 * backward}) {
            const Priced offload = priced(family, L, "offload", bytes / copy);
            const double added = offload.seconds() - layer.seconds();
            const double rule = (L - 2) * (std::max(0.0, copy - forward) + std::max(0.0, copy - backward));
            // A copy out has two layers' time: the first is never waited for, and the last is one layer late.
            EXPECT_LE(added, rule * (1 + 1e-9));
            EXPECT_GE(added, rule - forward - 1e-12);
        }
    }
}

TEST(PlanSeconds, UsePcieRatesWhereNothingElseIsKnown) {
    EXPECT_EQ(OpTimes().host_bandwidth, 25e9);
    for (const DeviceProfile& device : device_profiles()) EXPECT_GE(device.host_bandwidth, 25e9) << device.name;
}

}  // namespace
}  // namespace llmc
