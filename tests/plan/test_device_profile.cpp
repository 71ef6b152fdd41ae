// Profiles of devices: those that were promised, whole, and found by the names that drivers report; rates found again
// in the times that they made.
#include "llmc/plan/device_profile.h"

#include "llmc/plan/measured_profile.h"
#include "tests/plan/plan_cases.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using namespace plan_cases;

TEST(DeviceProfiles, AreThoseOfTheList) {
    std::string names;
    for (const DeviceProfile& profile : device_profiles()) names += profile.name + " ";
    EXPECT_EQ(names,
              "rtx3060 rtx3080 rtx3090 rtx4060 rtx4060ti-16gb rtx4070 rtx4080 rtx4090 rtx5060ti-16gb rtx5070ti "
              "rtx5080 rtx5090 a10 a100 a100-80gb l4 l40s h100 h200 b200 gh200 ");
}

TEST(DeviceProfiles, AreWhole) {
    for (const DeviceProfile& profile : device_profiles()) {
        EXPECT_GT(profile.flops_fp32, 10e12) << profile.name;
        EXPECT_GT(profile.flops_bf16, 1.9 * profile.flops_fp32) << profile.name;
        EXPECT_GT(profile.bandwidth, 0.2e12) << profile.name;
        EXPECT_GE(profile.memory_bytes, int64_t{7} << 30) << profile.name;
        EXPECT_GE(profile.reserve_bytes, int64_t{1} << 29) << profile.name;
        EXPECT_GT(profile.usable_bytes(), profile.memory_bytes / 2) << profile.name;
        EXPECT_TRUE(profile.kind.starts_with("sm_")) << profile.name;
        EXPECT_EQ(known_device_profile(profile.name), &profile);
    }
    EXPECT_EQ(known_device_profile("h10"), nullptr);
}

TEST(DeviceProfiles, AreFoundByTheNamesOfDevices) {
    const std::pair<const char*, const char*> names[] = {{"NVIDIA GeForce RTX 4090", "rtx4090"},
                                                         {"NVIDIA GeForce RTX 4060 Ti", "rtx4060ti-16gb"},
                                                         {"NVIDIA GeForce RTX 4060", "rtx4060"},
                                                         {"NVIDIA A100-SXM4-80GB", "a100"},
                                                         {"NVIDIA A10", "a10"},
                                                         {"NVIDIA L4", "l4"},
                                                         {"NVIDIA L40S", "l40s"},
                                                         {"NVIDIA H100 80GB HBM3", "h100"},
                                                         {"NVIDIA GH200 480GB", "gh200"},
                                                         {"NVIDIA H200", "h200"}};
    for (const auto& [device, profile] : names) {
        ASSERT_NE(profile_of_device(device), nullptr) << device;
        EXPECT_EQ(profile_of_device(device)->name, profile) << device;
    }
    EXPECT_EQ(profile_of_device("AMD EPYC 9454"), nullptr);
}

/// Milliseconds of attention in all layers of one micro-batch, forward and backward, in bf16.
std::pair<double, double> attention_ms(const std::string& name, int64_t B, int64_t T, const DeviceProfile& device) {
    const Model model = make_model(preset(name));
    const OpTimes times = analytic_times(model, {B, T}, Places(DType::BF16), device);
    const auto attention = std::find_if(model.block.begin(), model.block.end(),
                                        [](const OpRow& row) { return row.kind == OpKind::Attention; });
    const OpTimes::Row& row = times.block[static_cast<size_t>(attention - model.block.begin())];
    const double layers_ms = 1e3 * static_cast<double>(model.config.L);
    return {row.forward * layers_ms, row.backward * layers_ms};
}

TEST(HopperAttention, IsPredictedByTheArithmeticThatItWasDesignedBy) {
    struct Expected {
        const char* model;
        int64_t B, T;
        double forward, least, most;
    };
    const Expected rows[] = {{"gpt2", 32, 1024, 2.2, 5.8, 6.6},
                             {"gpt2-xl", 8, 1024, 4.6, 12, 14},
                             {"llama3.2-1b", 4, 4096, 11, 35, 39},
                             {"llama2-7b", 2, 4096, 16, 63, 70}};
    for (const Expected& row : rows) {
        SCOPED_TRACE(row.model);
        for (const char* card : {"h100", "h200", "gh200"}) {
            DeviceProfile device = find_device_profile(card);
            const auto [forward, backward] = attention_ms(row.model, row.B, row.T, device);
            EXPECT_NEAR(forward, row.forward, 0.05 * row.forward);
            EXPECT_GE(backward, row.least);
            EXPECT_LE(backward, row.most);
            device.hopper_attention = false;
            EXPECT_GT(attention_ms(row.model, row.B, row.T, device).first, 1.3 * forward);
        }
    }
}

TEST(HopperAttention, IsOfHopperCardsBf16AndTwoHeadSizes) {
    for (const DeviceProfile& device : device_profiles()) EXPECT_EQ(device.hopper_attention, device.kind == "sm_90");
    const DeviceProfile& device = find_device_profile("h100");
    EXPECT_TRUE(device.estimates_attention(DType::BF16, 64));
    EXPECT_TRUE(device.estimates_attention(DType::BF16, 128));
    EXPECT_FALSE(device.estimates_attention(DType::BF16, 80));
    EXPECT_FALSE(device.estimates_attention(DType::F32, 64));
    EXPECT_EQ(device.attention_rate(DType::BF16, 80, false).share, device.attention_forward);
    EXPECT_EQ(device.attention_rate(DType::F32, 64, true).share, device.attention_backward);
}

TEST(Tf32, IsOfNothingButTheLibrarysProductsOfFp32) {
    DeviceProfile device = find_device_profile("h100");
    EXPECT_EQ(device.product_flops(DType::F32), device.flops_fp32);
    device.tf32 = true;
    EXPECT_EQ(device.product_flops(DType::F32), device.flops_bf16 / 2);
    EXPECT_EQ(device.product_flops(DType::BF16), device.flops_bf16);
    const Model model = small_model(Family::Llama, 1);
    const OpTimes tf32 = analytic_times(model, {64, 512}, Places(), device);
    device.tf32 = false;
    const OpTimes exact = analytic_times(model, {64, 512}, Places(), device);
    for (size_t i = 0; i < model.block.size(); ++i) {
        if (model.block[i].kind != OpKind::Matmul) {
            EXPECT_EQ(tf32.block[i].forward, exact.block[i].forward) << model.block[i].name;
        }
    }
}

TEST(MeasuredProfile, FindsTheRatesAgain) {
    const Model model = small_model(Family::Llama, 3);
    const BatchShape shape = {4, 257};
    DeviceProfile device = {"test", 1e10, 4e10, 1e12, 1e-9, 0.8};  // So slow that matmuls are bound by FLOPs ...
    device.attention_forward = 0.4, device.attention_backward = 0.3;
    for (const DType dtype : kTypes) {
        const Places places(dtype);
        const OpTimes times = analytic_times(model, shape, places, device);
        DeviceProfile assumed = device;
        assumed.flops_fp32 *= 3, assumed.flops_bf16 *= 3, assumed.bandwidth /= 5;
        assumed.attention_forward = 0.9, assumed.attention_backward = 0.9;
        const DeviceProfile found = measured_profile(assumed, model, shape, places, times);
        EXPECT_NEAR(found.flops_fp32, device.flops_fp32, 1e-3 * device.flops_fp32);
        EXPECT_NEAR(found.flops_bf16, device.flops_bf16, 1e-3 * device.flops_bf16);
        EXPECT_NEAR(found.attention_forward, device.attention_forward, 1e-3);
        EXPECT_NEAR(found.attention_backward, device.attention_backward, 1e-3);
        EXPECT_NEAR(found.bandwidth, device.bandwidth, 1e-3 * device.bandwidth);
        EXPECT_EQ(found.host_bandwidth, device.host_bandwidth);
    }
}

}  // namespace
}  // namespace llmc
