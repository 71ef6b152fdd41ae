// Predicted time of plans: the sum of their steps, and what copies between the device and the host, and between ranks,
// add to it.
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
    OpTimes times = analytic_times(model, kShape, Places(), device);
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
        const auto zeroing = std::find_if(layer.plan.steps.begin(), layer.plan.steps.end(), [](const Step& step) {
            return step.kind == StepKind::ZeroGradients && step.layer == 1;
        });
        const double forward = forward_of_layer(layer.times);
        const double backward = backward_of_layer(layer.times) + step_seconds(layer.times, *zeroing);
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
    for (const DeviceProfile& device : device_profiles()) {
        const bool has_half_the_lanes = device.name == "rtx4060" || device.name == "rtx4060ti-16gb";
        EXPECT_GE(device.host_bandwidth, has_half_the_lanes ? 12.5e9 : 25e9) << device.name;
    }
}

TEST(AnalyticTimes, AttentionsBackwardIsPricedByTheProductsThatRun) {
    // So slow a processor that nothing is bound by memory.
    DeviceProfile device = {"test", 1e6, 1e6, 1e12, 0, 0.8};
    device.attention_forward = 0.5, device.attention_backward = 0.25;
    const Model model = small_model(Family::Llama, 1);
    const auto attention = std::find_if(model.block.begin(), model.block.end(),
                                        [](const OpRow& row) { return row.kind == OpKind::Attention; });
    const auto row = static_cast<size_t>(attention - model.block.begin());
    const auto priced_row = [&] { return analytic_times(model, kShape, Places(), device).block[row]; };
    // One product, causal: half of 2 N T NH HD.
    const double product = 2.0 * 64 * 64 * 48;
    for (const int products : {5, 7}) {
        for (const int64_t overhead : {0, 16, 64, 128}) {
            device.attention_backward_products = products;
            device.attention_overhead = overhead;
            const double longer = 1 + static_cast<double>(overhead) / 64;  // As if of so many more tokens.
            EXPECT_DOUBLE_EQ(priced_row().forward, 2 * product * longer / 0.5e6);
            EXPECT_DOUBLE_EQ(priced_row().backward, products * product * longer / 0.25e6);
            EXPECT_EQ(priced_row().backward_weight, 0);
        }
    }
    // Other operations know nothing of it.
    OpTimes times = analytic_times(model, kShape, Places(), device);
    device.attention_overhead = 0, device.attention_backward_products = 5;
    const OpTimes without = analytic_times(model, kShape, Places(), device);
    for (size_t i = 0; i < model.block.size(); ++i) {
        EXPECT_EQ(times.block[i].forward == without.block[i].forward, i != row) << model.block[i].name;
        EXPECT_EQ(times.block[i].backward == without.block[i].backward, i != row) << model.block[i].name;
    }
}

TEST(StepSeconds, AShorterChunkTakesItsShare) {
    const Model model = small_model(Family::Gpt2, 2);
    PlanRequest request = request_of(model, kShape, DType::F32);
    request.logits_chunk_tokens = 50;  // Of 128: two, and one of 28.
    const DeviceProfile device = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};
    const OpTimes times = analytic_times(model, kShape, Places(), device, 50);
    const Plan plan = make_training_plan(model, request, find_policy("none"));
    double classifier = 0, losses = 0;
    for (const Step& step : plan.steps) {
        if (step.kind == StepKind::Compute && step.op == OpKind::Classifier) classifier += step_seconds(times, step);
        if (step.kind == StepKind::Compute && step.op == OpKind::CrossEntropy) losses += step_seconds(times, step);
    }
    const OpTimes::Row& row = times.classifier;
    EXPECT_NEAR(classifier, 2.56 * (row.forward + row.backward + row.backward_weight), 1e-9 * classifier);
    EXPECT_NEAR(losses, 2.56 * times.cross_entropy.backward, 1e-9 * losses);
    // Generation's single row of logits is not free.
    const Plan generation = make_generation_plan(model, request_of(model, {1, 4}, DType::F32), 40);
    EXPECT_GT(step_seconds(times, generation.steps.back()), 0);
}

// ---- Between ranks ----

constexpr double kFree = 1e300;  // Bytes per second.

Priced priced_ranks(Family family, int L, int ranks, int zero, double link_bandwidth, double latency = 0,
                    DType dtype = DType::F32) {
    DeviceProfile device = {"test", 1e12, 2e12, 1e11, 1e-7, 0.8};
    device.link_bandwidth = link_bandwidth;
    Model model = small_model(family, L);
    Plan plan = make_training_plan(model, request_of_ranks(model, kShape, dtype, ranks, zero), find_policy("layer"));
    OpTimes times = analytic_times(model, kShape, plan.places, device);
    EXPECT_EQ(times.link_bandwidth, link_bandwidth);
    times.link_latency = latency;
    return {std::move(model), std::move(plan), std::move(times)};
}

int64_t bytes_of_all_buckets(const Priced& item, int64_t size) {
    return (item.plan.parallel.ranks - 1) * item.plan.partition.shard_elements * size;
}

constexpr Turn kNotTheFirst = {.first = false, .last = true}, kNotTheLast = {.first = true, .last = false};
constexpr Turn kBetween = {.first = false, .last = false};

/// Of an update of one micro-batch, what depends on elements: zeroed, squared and updated ones. Those are fp32; an
/// update reads and writes weight and moments, and reads the gradient. (1e11 bytes per second.)
double seconds_of_elements(const Priced& item) {
    const Partition& partition = item.plan.partition;
    const bool pieces = zero_of(item.plan.places) > 0;
    int64_t bytes = 4 * partition.shard_elements;
    bytes += (4 + 4 + 4 + 4 + 4 + 4 + 4) * (pieces ? partition.shard_elements : partition.elements);
    for (const Step& step : item.plan.steps) {
        if (step.kind == StepKind::ZeroGradients) bytes += 4 * step.elements;
    }
    return static_cast<double>(bytes) / 1e11;
}

/// The same with links that cost nothing.
Priced with_free_links(Priced item) {
    item.times.link_bandwidth = INFINITY;
    item.times.link_latency = 0;
    return item;
}

TEST(CommunicationBytes, AreWhatTheStagesSend) {
    for (const Family family : kFamilies) {
        for (const int ranks : {2, 3, 8}) {
            for (const DType dtype : kTypes) {
                for (int zero = 0; zero <= 3; ++zero) {
                    const Priced item = priced_ranks(family, 5, ranks, zero, 1e9, 0, dtype);
                    const int64_t gradients = bytes_of_all_buckets(item, 4);
                    const int64_t parameters = bytes_of_all_buckets(item, size_of(dtype));
                    if (zero < 3) {
                        // Sums reach every rank at stage 0; from stage 1 on only their owners, which then send what
                        // they made of them. Gradients that are kept in pieces are reduced every time.
                        EXPECT_EQ(communication_bytes(item.plan), gradients + (zero == 0 ? gradients : parameters));
                        EXPECT_EQ(communication_bytes(item.plan, kNotTheLast), zero == 2 ? gradients : 0);
                        continue;
                    }
                    // Every layer's parameters twice, but the last one's, which stay; the embedding's also for a tied
                    // head.
                    const auto sent = [&](int bucket) {
                        return (ranks - 1) * item.plan.partition.bucket(bucket).piece * size_of(dtype);
                    };
                    const int64_t again = 4 * sent(1) + (item.model.config.tied ? sent(0) : 0);
                    EXPECT_EQ(communication_bytes(item.plan), gradients + parameters + again);
                    EXPECT_EQ(communication_bytes(item.plan, kNotTheLast), gradients + parameters + again);
                }
            }
        }
    }
}

TEST(PlanSeconds, OfRanksWithFreeLinksAreThoseOfOne) {
    for (const Family family : kFamilies) {
        for (int zero = 0; zero <= 3; ++zero) {
            const Priced one = priced_ranks(family, 5, 1, 0, kFree), four = priced_ranks(family, 5, 4, zero, kFree);
            const double operations = one.seconds() - seconds_of_elements(one);
            EXPECT_NEAR(four.seconds(), operations + seconds_of_elements(four), 1e-12 * four.seconds());
        }
    }
}

TEST(PlanSeconds, OfRanksWithSlowLinksAreThoseOfTheLinks) {
    for (const Family family : kFamilies) {
        for (int zero = 0; zero <= 3; ++zero) {
            const double bandwidth = 1e4, latency = 0.5;
            const Priced item = priced_ranks(family, 5, 4, zero, bandwidth, latency), free = with_free_links(item);
            int transfers = 0;
            for (const Step& step : item.plan.steps) {
                if (step.kind == StepKind::Reduce) transfers += zero == 0 ? 2 : 1;
                if (step.kind == StepKind::Gather || step.kind == StepKind::GatherSums) ++transfers;
            }
            const double sending =
                static_cast<double>(communication_bytes(item.plan)) / bandwidth + transfers * latency;
            EXPECT_GE(item.seconds(), sending);
            EXPECT_LE(item.seconds(), sending + free.seconds());
            EXPECT_GT(sending, 100 * free.seconds()) << "not slow";
            if (zero >= 2) continue;
            EXPECT_DOUBLE_EQ(plan_seconds(item.times, item.plan, kNotTheLast),
                             plan_seconds(free.times, free.plan, kNotTheLast));
        }
    }
}

TEST(PlanSeconds, ALayersReductionHidesBehindTheNextOnesBackward) {
    // Where a layer's reduction takes as long as a layer's backward or less, only the last of all is waited for.
    for (const Family family : kFamilies) {
        const Priced one = priced_ranks(family, 12, 1, 0, kFree);
        const double backward = backward_of_layer(one.times);
        Priced item = priced_ranks(family, 12, 4, 1, 1e9);
        const auto seconds = [](const Priced& of) {
            return plan_seconds(of.times, without_update(of.plan), kNotTheFirst);
        };
        const auto seconds_of_bucket = [&](int bucket) {
            return 3 * static_cast<double>(item.plan.partition.bucket(bucket).piece) * 4 / item.times.link_bandwidth;
        };
        item.times.link_bandwidth *= seconds_of_bucket(1) / backward;
        ASSERT_NEAR(seconds_of_bucket(1), backward, 1e-9 * backward);
        const double embedding = item.times.embedding.backward;
        const double exposed = std::max(0.0, seconds_of_bucket(1) - embedding) + seconds_of_bucket(0);
        EXPECT_NEAR(seconds(item), seconds(one) + exposed, 1e-6 * seconds(one) + seconds_of_bucket(13));
        // Half as fast, and every layer waits for as long again.
        item.times.link_bandwidth /= 2;
        EXPECT_GT(seconds(item), seconds(one) + 10 * backward);
    }
}

// ---- The update ----

TEST(UpdateSeconds, SquareSumsAndUpdatesArePricedByTheirBytes) {
    for (const DType dtype : kTypes) {
        for (int zero = 0; zero <= 3; ++zero) {
            const Priced item = priced_ranks(Family::Gpt2, 3, 4, zero, kFree, 0, dtype);
            // fp32: weight, m, v both ways and the gradient. bf16: the same of the masters, and the rounded weight.
            const double bytes = dtype == DType::F32 ? 28 : 30;
            double squares = 0, updates = 0;
            for (const Step& step : item.plan.steps) {
                const auto piece =
                    static_cast<double>(step.bucket < 0 ? 0 : item.plan.partition.bucket(step.bucket).piece);
                const double seconds = step_seconds(item.times, step);
                if (step.kind == StepKind::SquareSums) {
                    EXPECT_NEAR(seconds, 4 * piece / 1e11, 1e-9 * seconds);
                    squares += seconds;
                }
                if (step.kind == StepKind::Update) {
                    EXPECT_NEAR(seconds, bytes * (zero == 0 ? 4 : 1) * piece / 1e11, 1e-9 * seconds);
                    updates += seconds;
                }
                if (step.kind == StepKind::BeginUpdate) {
                    EXPECT_EQ(seconds, 1e-7) << "a launch";
                }
            }
            const double added = plan_seconds(item.times, item.plan) - plan_seconds(item.times, item.plan, kNotTheLast);
            EXPECT_NEAR(added, squares + updates + 1e-7, 1e-9 * item.seconds()) << "ZeRO " << zero;
        }
    }
}

TEST(UpdateSeconds, AreTheFirstMicroBatchThoseBetweenAndTheLast) {
    for (const bool invariant : {false, true}) {
        for (int zero = 0; zero <= 3; ++zero) {
            Priced item = priced_ranks(Family::Llama, 4, 4, zero, 1e9, 1e-5);
            PlanRequest request = request_of_ranks(item.model, kShape, DType::F32, 4, zero);
            request.parallel.rank_invariant = invariant;
            for (const int64_t k : {1, 2, 3, 7}) {
                request.parallel.micro_batches = k;
                item.plan = make_training_plan(item.model, request, find_policy("layer"));
                const auto seconds = [&](Turn turn) { return plan_seconds(item.times, item.plan, turn); };
                const auto bytes = [&](Turn turn) { return communication_bytes(item.plan, turn); };
                const double one = update_seconds(item.times, item.plan);
                if (k == 1) {
                    EXPECT_EQ(one, seconds({}));
                    EXPECT_EQ(communication_bytes_per_update(item.plan), bytes({}));
                    continue;
                }
                const auto between = static_cast<double>(k - 2);
                EXPECT_DOUBLE_EQ(one, seconds(kNotTheLast) + between * seconds(kBetween) + seconds(kNotTheFirst));
                EXPECT_EQ(communication_bytes_per_update(item.plan),
                          bytes(kNotTheLast) + (k - 2) * bytes(kBetween) + bytes(kNotTheFirst));
                // What is reduced, zeroed and updated once is not counted again.
                const bool once = zero < 2 && !invariant;
                EXPECT_EQ(bytes(kBetween) == 0, once);
                EXPECT_EQ(seconds(kBetween) < seconds(kNotTheLast), once) << "only the first zeroes";
                EXPECT_LT(seconds(kBetween), seconds(kNotTheFirst));
            }
        }
    }
}

/// The update of stages 1 and 2 with all it waits for, by hand: a bucket is sent as soon as it is updated and the one
/// before it has arrived.
double seconds_of_update(const Priced& item, int64_t size) {
    const Partition& partition = item.plan.partition;
    double now = static_cast<double>(4 * partition.shard_elements) / 1e11 + item.times.link_latency + 1e-7, sent = 0;
    for (const Bucket& bucket : partition.buckets) {
        now += static_cast<double>(bucket.piece) * item.times.update;
        const double sending = static_cast<double>(3 * bucket.piece * size) / item.times.link_bandwidth;
        sent = std::max(now, sent) + sending + item.times.link_latency;
    }
    return std::max(now, sent);
}

TEST(UpdateSeconds, GathersOfStagesOneAndTwoRunBesideTheUpdatesOfOtherBuckets) {
    for (const DType dtype : kTypes) {
        for (const int zero : {1, 2}) {
            for (const double bandwidth : {1e6, 1e9, 1e11, 4e11, 1e13}) {
                for (const double latency : {0.0, 1e-6}) {
                    Priced item = priced_ranks(Family::Llama, 5, 4, zero, bandwidth, latency, dtype);
                    const double whole = item.seconds();
                    const double before = plan_seconds(item.times, without_update(item.plan));
                    EXPECT_NEAR(whole - before, seconds_of_update(item, size_of(dtype)), 1e-9 * whole);
                }
            }
            // Where sending a bucket takes less than updating the next one, only the last is waited for.
            Priced item = priced_ranks(Family::Llama, 5, 4, zero, 1e12, 0, dtype);
            const Bucket& last = item.plan.partition.buckets.back();
            const double exposed = item.seconds() - with_free_links(item).seconds();
            const double reductions = plan_seconds(item.times, without_update(item.plan)) -
                                      plan_seconds(with_free_links(item).times, without_update(item.plan));
            EXPECT_NEAR(exposed - reductions, static_cast<double>(3 * last.piece * size_of(dtype)) / 1e12,
                        1e-9 * item.seconds());
        }
    }
}

TEST(UpdateSeconds, OnlyStagesOneAndTwoSendParametersThen) {
    for (const DType dtype : kTypes) {
        for (int zero = 0; zero <= 3; ++zero) {
            const Priced item = priced_ranks(Family::Llama, 5, 4, zero, 1e6, 0.25, dtype);
            const int64_t sent = communication_bytes(item.plan) - communication_bytes(without_update(item.plan));
            const bool gathers = zero == 1 || zero == 2;
            EXPECT_EQ(sent, gathers ? bytes_of_all_buckets(item, size_of(dtype)) : 0);
        }
    }
    const Priced one = priced_ranks(Family::Llama, 5, 1, 0, 1e6);
    EXPECT_EQ(communication_bytes(one.plan), 0);
}

TEST(BandwidthToHide, IsWhereTheSlackIsUsedUp) {
    for (const Family family : kFamilies) {
        for (int zero = 0; zero <= 3; ++zero) {
            for (const double slack : {0.02, 0.3}) {
                Priced item = priced_ranks(family, 8, 4, zero, 1e9);
                const double free = with_free_links(item).seconds();
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
