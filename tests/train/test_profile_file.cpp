// Profiles as files: what is written is read again; links that are overridden.
#include "llmc/train/profile_file.h"

#include "llmc/base/file.h"
#include "tests/io/temp_dir.h"
#include "tests/train/words.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

TEST(ProfileFile, IsReadAsItWasWritten) {
    const TempDir dir;
    for (const DeviceProfile& profile : device_profiles()) {
        const std::string path = dir.write(profile.name + ".toml", to_toml(profile));
        const DeviceProfile read = read_device_profile(path);
        EXPECT_EQ(read.name, profile.name);
        EXPECT_EQ(read.kind, profile.kind);
        EXPECT_NEAR(read.flops_bf16, profile.flops_bf16, 1e-9 * profile.flops_bf16);
        EXPECT_NEAR(read.bandwidth, profile.bandwidth, 1e-9 * profile.bandwidth);
        EXPECT_NEAR(read.host_bandwidth, profile.host_bandwidth, 1e-9 * profile.host_bandwidth);
        EXPECT_NEAR(read.link_bandwidth, profile.link_bandwidth, 1e-9 * profile.link_bandwidth);
        EXPECT_NEAR(read.attention_forward, profile.attention_forward, 1e-9);
        EXPECT_EQ(read.attention_backward_products, profile.attention_backward_products);
        EXPECT_EQ(read.attention_overhead, profile.attention_overhead);
        EXPECT_EQ(read.memory_bytes, profile.memory_bytes);
        EXPECT_EQ(read.reserve_bytes, profile.reserve_bytes);
    }
}

TEST(ProfileFile, TheLinkCanBeOverridden) {
    const Options usual = parse({"plan", "--device-profile=rtx4090"});
    const Options slow = parse({"plan", "--device-profile=rtx4090", "--link-gbs=6.5"});
    const Options nvlink = parse({"plan", "--device-profile=h100", "--link-gbs=6.5"});
    EXPECT_EQ(device_profile_of(usual).host_bandwidth, 25e9);
    EXPECT_EQ(device_profile_of(slow).host_bandwidth, 6.5e9);
    EXPECT_EQ(device_profile_of(slow).link_bandwidth, 6.5e9);
    EXPECT_EQ(device_profile_of(nvlink).host_bandwidth, 6.5e9);
    EXPECT_EQ(device_profile_of(nvlink).link_bandwidth, 450e9);
}

TEST(ProfileFile, TheReserveIsStated) {
    EXPECT_EQ(describe_memory(find_device_profile("rtx4090")),
              "24.0 GiB of rtx4090, less 1.00 GiB for CUDA and the screen");
    EXPECT_NE(describe_memory(find_device_profile("h100")).find("512.0 MiB for CUDA"), std::string::npos);
}

}  // namespace
}  // namespace llmc
