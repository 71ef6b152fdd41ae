// Machines where the CUDA backend cannot be used, or not as asked: what the user is told.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/backend/make_backend.h"
#include "llmc/base/error.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

using cuda_on_cpu::Driver;

std::string refusal(const std::string& device) {
    try {
        make_backend(device, 1);
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        return error.what();
    }
    return "accepted";
}

bool has(const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
        if (text.find(part) == std::string::npos) {
            ADD_FAILURE() << "no \"" << part << "\" in: " << text;
            return false;
        }
    }
    return true;
}

TEST(Machines, NoDriver) {
    cuda_on_cpu::set_machine({.devices = {}, .driver = Driver::Absent, .driver_version = 0});
    EXPECT_TRUE(has(refusal("cuda"), {"--device=cuda:0", "no NVIDIA driver", "--device=cpu"}));
    EXPECT_FALSE(make_backend("auto", 1)->info().supports_bf16 && make_backend("auto", 1)->host_view({}) != nullptr);
    EXPECT_EQ(make_backend("auto", 1)->info().default_dtype, DType::F32) << "auto is the CPU";
}

TEST(Machines, OldDriver) {
    cuda_on_cpu::set_machine({.driver = Driver::TooOld, .driver_version = 11080});
    EXPECT_TRUE(has(refusal("cuda"), {"driver is too old", "11.8", "update the driver"}));
}

TEST(Machines, NoCard) {
    cuda_on_cpu::set_machine({.devices = {}});
    EXPECT_TRUE(has(refusal("cuda:0"), {"no NVIDIA GPU was found"}));
}

TEST(Machines, FewerCardsThanAskedFor) {
    EXPECT_TRUE(has(refusal("cuda:7"), {"--device=cuda:7", "this machine has 1 GPU, counted from 0"}));
    for (const char* device : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "gpu"}) {
        EXPECT_TRUE(has(refusal(device), {device, "is unknown"}));
    }
}

TEST(Machines, OldCard) {
    cuda_on_cpu::set_machine({.devices = {{.name = "old", .compute_capability = 75}}});
    EXPECT_TRUE(has(refusal("cuda"), {"compute capability 7.5", "8.0"}));
}

TEST(Machines, ACardWithoutKernels) {
    cuda_on_cpu::set_machine({.devices = {{.name = "new", .compute_capability = 103, .kernels = -1}}});
    cuda_on_cpu::set_quiet(true);
    try {
        make_backend("cuda", 1);
        FAIL() << "made";
    } catch (const Error& error) {
        EXPECT_TRUE(has(error.what(), {"--device=cuda:0", "needs kernels for compute capability 103", "has them for",
                                       "make GPU_ARCH=103", "--device=cpu"}));
    }
    EXPECT_EQ(make_backend("auto", 1)->info().kind, "cpu");
    cuda_on_cpu::clear_report();
}

TEST(Machines, ArchitectureAndKernelsAreNamed) {
    cuda_on_cpu::set_machine({.devices = {{.name = "a card", .compute_capability = 86}}});
    EXPECT_EQ(make_backend("cuda", 1)->info().name, "a card, sm_86, kernels for sm_86");
    cuda_on_cpu::set_machine({.devices = {{.name = "a card", .compute_capability = 103, .kernels = 90}}});
    EXPECT_EQ(make_backend("cuda", 1)->info().name, "a card, sm_103, kernels from PTX of compute_90");
    EXPECT_EQ(make_backend("cuda", 1)->info().kind, "sm_103");
}

TEST(Machines, MemoryHeldByOthers) {
    cuda_on_cpu::set_machine({.devices = {{.memory_bytes = 1 << 30, .used_by_others = 900 << 20}}});
    const auto backend = make_backend("cuda", 1);
    try {
        backend->allocate(512 << 20, "the arena");
        FAIL() << "allocated more than there is";
    } catch (const Error& error) {
        EXPECT_TRUE(has(error.what(), {"the arena needs 512.0 MiB", "of 1.00 GiB is free", "hold 900.0 MiB"}));
    }
    EXPECT_NO_THROW(backend->release(backend->allocate(1 << 20, "a small one"))) << "the error is over";
}

TEST(Machines, HeadsTheKernelsDoNotTake) {
    ModelConfig config = preset("gpt2-nano");
    config.L = 1, config.C = 512, config.NH = config.NKV = 2, config.HD = 256, config.maxT = 8;
    const Model model = make_model(config);
    const auto backend = make_backend("cuda", 1);
    try {
        State state(*backend, model, DType::BF16, 8, 1024, false);
        FAIL() << "made";
    } catch (const Error& error) {
        EXPECT_TRUE(has(error.what(), {"gpt2-nano", "heads of up to 128 channels, not 256", "--device=cpu"}));
    }
}

TEST(Machines, AFailedLaunchNamesTheOperation) {
    ModelConfig config = preset("gpt2-nano");
    config.L = 1, config.maxT = 8;
    TinyTrainer trainer(config, {1, 8}, DType::F32, "none", 1, 0, "cuda");
    trainer.state().initialise(1);
    const auto tokens = trainer.random_tokens(1);
    cuda_on_cpu::fail_launch(2);
    try {
        trainer.micro_batch(tokens.data(), tokens.data(), 1.0f);
        FAIL() << "the launch did not fail";
    } catch (const Error& error) {
        EXPECT_TRUE(has(error.what(), {"layer 0, forward of ln1: CUDA: the launch of", "kernel", "failed"}));
    }
    cuda_on_cpu::set_quiet(true);
    cuda_on_cpu::clear_report();
}

TEST(Machines, PlanningNeedsNoCard) {
    cuda_on_cpu::set_machine({.devices = {}, .driver = Driver::Absent, .driver_version = 0});
    const auto backend = make_planning_backend("cuda", 1);
    EXPECT_GT(backend->matmul_workspace(DType::BF16, 1024, 768, 768), 0);
    EXPECT_EQ(backend->info().default_dtype, DType::BF16);
    EXPECT_EQ(backend->info().kind, "sm_90");
}

TEST(Machines, ADeviceIsDescribed) {
    const DeviceInfo info = make_backend("auto", 1)->info();
    EXPECT_TRUE(info.name.starts_with(cuda_on_cpu::machine().devices.front().name)) << info.name;
    EXPECT_EQ(info.memory_total, static_cast<int64_t>(cuda_on_cpu::machine().devices.front().memory_bytes));
    EXPECT_GT(info.peak_flops_bf16, info.peak_flops_fp32);
    EXPECT_GT(info.bandwidth, 0);
    EXPECT_EQ(info.kind, "sm_90");
    cuda_on_cpu::set_machine({.devices = {{.compute_capability = 80}}});
    EXPECT_EQ(make_backend("auto", 1)->info().kind, "sm_80");
}

}  // namespace
}  // namespace llmc
