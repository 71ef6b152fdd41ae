// Predicted time of plans: the sum of their operations, and what copies between the device and the host add to it.
#include "llmc/plan/cost.h"

#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

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

// ---- Between ranks ----

constexpr double kFree = 1e300;  // Bytes per second.

Priced priced_ranks(Family family, int L, int ranks, int zero, double link_bandwidth, double latency = 0,
                    DType dtype = DType::F32) {
    DeviceProfile device = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};
    device.link_bandwidth = link_bandwidth;
    Model model = small_model(family, L);
    Plan plan = make_training_plan(model, request_of_ranks(model, kShape, dtype, ranks, zero), find_policy("layer"));
    OpTimes times = analytic_times(model, kShape, dtype, device);
    EXPECT_EQ(times.link_bandwidth, link_bandwidth);
    times.link_latency = latency;
    return {std::move(model), std::move(plan), std::move(times)};
}

int64_t bytes_of_all_buckets(const Priced& item, int64_t size) {
    return (item.plan.parallel.ranks - 1) * item.plan.partition.shard_elements * size;
}

TEST(CommunicationBytes, AreWhatTheStagesSend) {
    for (const Family family : kFamilies) {
        for (const int ranks : {2, 3, 8}) {
            for (const DType dtype : kTypes) {
                for (int zero = 0; zero <= 3; ++zero) {
                    const Priced item = priced_ranks(family, 5, ranks, zero, 1e9, 0, dtype);
                    const int64_t gradients = bytes_of_all_buckets(item, 4);
                    if (zero < 3) {
                        // Sums reach every rank at stage 0, their owners only from stage 1 on.
                        EXPECT_EQ(communication_bytes(item.plan), zero == 0 ? 2 * gradients : gradients);
                        EXPECT_EQ(communication_bytes(item.plan, /*reduces=*/false), 0);
                        continue;
                    }
                    // Every layer's parameters twice, but the last one's, which stay; the embedding's also for a tied
                    // head.
                    const auto sent = [&](int bucket) {
                        return (ranks - 1) * item.plan.partition.bucket(bucket).piece * size_of(dtype);
                    };
                    const int64_t again = 4 * sent(1) + (item.model.config.tied ? sent(0) : 0);
                    EXPECT_EQ(communication_bytes(item.plan),
                              gradients + bytes_of_all_buckets(item, size_of(dtype)) + again);
                }
            }
        }
    }
}

TEST(PlanSeconds, OfRanksWithFreeLinksAreThoseOfOne) {
    for (const Family family : kFamilies) {
        for (int zero = 0; zero <= 3; ++zero) {
            const Priced one = priced_ranks(family, 5, 1, 0, kFree), four = priced_ranks(family, 5, 4, zero, kFree);
            EXPECT_DOUBLE_EQ(four.seconds(), one.seconds());
        }
    }
}

TEST(PlanSeconds, OfRanksWithSlowLinksAreThoseOfTheLinks) {
    for (const Family family : kFamilies) {
        for (int zero = 0; zero <= 3; ++zero) {
            const double bandwidth = 1e4, latency = 0.5;
            const Priced item = priced_ranks(family, 5, 4, zero, bandwidth, latency),
                         one = priced(family, 5, "layer", 25e9);
            int transfers = 0;
            for (const Step& step : item.plan.steps) {
                if (step.kind == StepKind::Reduce) transfers += zero == 0 ? 2 : 1;
                if (step.kind == StepKind::Gather) ++transfers;
            }
            const double sending =
                static_cast<double>(communication_bytes(item.plan)) / bandwidth + transfers * latency;
            EXPECT_GE(item.seconds(), sending);
            EXPECT_LE(item.seconds(), sending + one.seconds());
            EXPECT_GT(sending, 100 * one.seconds()) << "not slow";
            if (zero == 3) continue;
            EXPECT_DOUBLE_EQ(plan_seconds(item.times, item.plan, /*reduces=*/false), one.seconds());
        }
    }
}

TEST(PlanSeconds, ALayersReductionHidesBehindTheNextOnesBackward) {
    // Where a layer's reduction takes as long as a layer's backward or less, only the last of all is waited for.
    for (const Family family : kFamilies) {
        const Priced one = priced_ranks(family, 12, 1, 0, kFree);
        const double backward = backward_of_layer(one.times);
        Priced item = priced_ranks(family, 12, 4, 1, 1e9);
        const auto seconds_of_bucket = [&](int bucket) {
            return 3 * static_cast<double>(item.plan.partition.bucket(bucket).piece) * 4 / item.times.link_bandwidth;
        };
        item.times.link_bandwidth *= seconds_of_bucket(1) / backward;
        ASSERT_NEAR(seconds_of_bucket(1), backward, 1e-9 * backward);
        const double embedding = item.times.embedding.backward;
        const double exposed = std::max(0.0, seconds_of_bucket(1) - embedding) + seconds_of_bucket(0);
        EXPECT_NEAR(item.seconds(), one.seconds() + exposed, 1e-6 * one.seconds() + seconds_of_bucket(13));
        // Half as fast, and every layer waits for as long again.
        item.times.link_bandwidth /= 2;
        EXPECT_GT(item.seconds(), one.seconds() + 10 * backward);
    }
}

TEST(UpdateGather, SendsTheParametersOfStagesOneAndTwo) {
    for (const DType dtype : kTypes) {
        for (int zero = 0; zero <= 3; ++zero) {
            const Priced item = priced_ranks(Family::Llama, 5, 4, zero, 1e6, 0.25, dtype);
            const double all = static_cast<double>(bytes_of_all_buckets(item, size_of(dtype))) / 1e6 + 7 * 0.25;
            EXPECT_DOUBLE_EQ(update_gather_seconds(item.times, item.plan), zero == 1 || zero == 2 ? all : 0);
        }
    }
    const Priced one = priced_ranks(Family::Llama, 5, 1, 0, 1e6);
    EXPECT_EQ(update_gather_seconds(one.times, one.plan), 0);
}

TEST(BandwidthToHide, IsWhereTheSlackIsUsedUp) {
    for (const Family family : kFamilies) {
        for (int zero = 0; zero <= 3; ++zero) {
            for (const double slack : {0.02, 0.3}) {
                Priced item = priced_ranks(family, 8, 4, zero, 1e9);
                const double free = priced_ranks(family, 8, 1, 0, kFree).seconds();
                const double bandwidth = bandwidth_to_hide(item.times, item.plan, slack);
                ASSERT_TRUE(bandwidth > 0 && bandwidth < 1e15) << bandwidth;
                item.times.link_bandwidth = bandwidth;
                EXPECT_LE(item.seconds(), (1 + slack) * free * (1 + 1e-9));
                item.times.link_bandwidth = bandwidth * 0.999;
                EXPECT_GT(item.seconds(), (1 + slack) * free);
            }
        }
    }
}

TEST(BandwidthToHide, IsNothingForOneRankAndEndlessWhereLatencyAloneIsTooMuch) {
    const Priced one = priced_ranks(Family::Gpt2, 4, 1, 0, 1e9);
    EXPECT_EQ(bandwidth_to_hide(one.times, one.plan), 0);
    const Priced far = priced_ranks(Family::Gpt2, 4, 4, 0, 1e9, one.seconds());
    EXPECT_EQ(bandwidth_to_hide(far.times, far.plan), INFINITY);
}

TEST(DeviceProfiles, LinksInsideAHostAreNoSlowerThanBetweenHosts) {
    for (const DeviceProfile& device : device_profiles()) {
        EXPECT_GE(device.link_bandwidth, device.node_bandwidth) << device.name;
        EXPECT_GT(device.bandwidth, device.link_bandwidth) << device.name;
    }
    EXPECT_EQ(find_device_profile("h100").link_bandwidth, 450e9);
    EXPECT_EQ(find_device_profile("h100").node_bandwidth, 50e9);
    EXPECT_EQ(find_device_profile("rtx4090").link_bandwidth, 25e9);
    EXPECT_EQ(OpTimes().link_bandwidth, DeviceProfile().link_bandwidth);
}

}  // namespace
}  // namespace llmc
