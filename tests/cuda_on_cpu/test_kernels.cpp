// Attention on Hopper's kernels in whole models, and products in TF32: what is compared before, and which bits change.
#include "dev/cuda_on_cpu/control.h"
#include "llmc/backend/make_backend.h"
#include "llmc/plan/policy.h"
#include "llmc/train/arithmetic.h"
#include "llmc/train/ranks.h"
#include "tests/comm/comm_testing.h"
#include "tests/cuda_on_cpu/seeds.h"
#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace llmc {
namespace {

TEST(Kernels, HoppersAgreeWithThePortableOnes) {
    const auto backend = make_backend("cuda", 1);
    for (const int64_t HD : {64, 128}) {
        EXPECT_TRUE(backend->hopper_kernels_agree(HD)) << HD;
        cuda_on_cpu::set_wrong_wgmma(true);
        EXPECT_FALSE(backend->hopper_kernels_agree(HD)) << HD;
        cuda_on_cpu::set_wrong_wgmma(false);
    }
    EXPECT_EQ(backend->info().arithmetic, (Arithmetic{"", "portable", false})) << "nobody asked for them";
}

/// On each of so many ranks, each with a card.
void on_ranks(int ranks, const std::function<void(int rank, Backend& backend, Comm& comm)>& run) {
    const auto run_on = [&run](int rank, Comm& comm) {
        const auto backend = make_backend(fmt::format("cuda:{}", rank), 1);
        run(rank, *backend, comm);
        comm.finish();
    };
    if (ranks == 1) {
        Comm alone;
        return run_on(0, alone);
    }
    std::vector<std::thread> threads;
    for (Meeting& meeting : make_meetings(ranks)) {
        threads.emplace_back([&run_on, meeting = std::move(meeting)]() mutable {
            const int rank = meeting.rank;
            const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
            Comm comm(std::make_unique<Control>(std::move(meeting), kPatient, end));
            run_on(rank, comm);
        });
    }
    for (std::thread& thread : threads) thread.join();
}

/// What becomes of --kernels=fastest.
std::vector<std::string> settled_on_ranks(int ranks) {
    cuda_on_cpu::set_machine({.devices = {static_cast<size_t>(ranks), cuda_on_cpu::Device()}});
    ModelConfig config = preset("gpt2-nano");
    config.HD = 64;
    std::vector<std::string> kernels(static_cast<size_t>(ranks));
    on_ranks(ranks, [&](int rank, Backend& backend, Comm& comm) {
        Options options;
        settle_arithmetic(options, config, DType::BF16, backend, comm);
        EXPECT_EQ(backend.info().arithmetic.kernels, options.kernels);
        kernels[static_cast<size_t>(rank)] = options.kernels;
    });
    return kernels;
}

/// What the plans of two ranks have fused, of which the cards' libraries have algorithms for it or have not.
std::vector<size_t> fused_on_ranks(bool first_has, bool second_has) {
    cuda_on_cpu::set_machine({.devices = {{.backward_epilogues = first_has}, {.backward_epilogues = second_has}}});
    ModelConfig config = preset("gpt2-nano");
    config.maxT = 32;
    const Model model = make_model(config);
    std::vector<size_t> fused(2);
    on_ranks(2, [&](int rank, Backend& backend, Comm& comm) {
        Options options;
        options.batch_size = 1, options.seq_len = 32, options.total_batch_size = 64, options.ranks = 2;
        const ChosenPlan chosen = agree_on_plan(options, model, backend, comm);
        fused[static_cast<size_t>(rank)] = chosen.memory.plan.fusions.size();
        EXPECT_EQ(options.no_fuse, first_has != second_has);
    });
    cuda_on_cpu::set_machine({});
    return fused;
}

TEST(Kernels, RanksFuseTheSameOrNothing) {
    EXPECT_EQ(fused_on_ranks(true, true), (std::vector<size_t>{5, 5}));
    EXPECT_EQ(fused_on_ranks(false, false), (std::vector<size_t>{0, 0}));
    EXPECT_EQ(fused_on_ranks(true, false), (std::vector<size_t>{0, 0}));
    EXPECT_EQ(fused_on_ranks(false, true), (std::vector<size_t>{0, 0}));
}

TEST(Kernels, RanksWhoseCardsAreWrongTakeThePortableOnes) {
    for (const int ranks : {1, 2}) {
        const auto all = [ranks](const char* name) {
            return std::vector<std::string>(static_cast<size_t>(ranks), name);
        };
        EXPECT_EQ(settled_on_ranks(ranks), all("hopper"));
        cuda_on_cpu::set_wrong_wgmma(true);
        EXPECT_EQ(settled_on_ranks(ranks), all("portable"));
        cuda_on_cpu::set_wrong_wgmma(false);
    }
}

TEST(Kernels, HoppersAreOfOneCapabilityAndOfBuildsThatHaveThem) {
    EXPECT_EQ(make_backend("cuda", 1)->why_no_hopper(), "");
    cuda_on_cpu::set_machine({.devices = {{.compute_capability = 86}}});
    EXPECT_EQ(make_backend("cuda", 1)->why_no_hopper(), "its compute capability is 8.6, not 9.0");
    cuda_on_cpu::set_machine({.devices = {{.compute_capability = 100}}});
    EXPECT_EQ(make_backend("cuda", 1)->why_no_hopper(), "its compute capability is 10.0, not 9.0");
    cuda_on_cpu::set_machine({.devices = {{.hopper_kernels = false}}});
    EXPECT_EQ(make_backend("cuda", 1)->why_no_hopper(), "this build has no kernels for sm_90a");
    cuda_on_cpu::set_machine({.devices = {}, .driver = cuda_on_cpu::Driver::Absent});
    EXPECT_EQ(make_planning_backend("cuda", 1)->why_no_hopper(), "there is no GPU here");
}

struct Trained {
    std::vector<double> losses;
    std::vector<float> gradients;
    bool operator==(const Trained&) const = default;
};

/// Two updates of a model with two layers.
Trained train(const ModelConfig& config, DType dtype, const std::string& policy, const Arithmetic& arithmetic) {
    const BatchShape shape = {1, config.maxT};
    TinyTrainer trainer(config, shape, dtype, policy, 1, 0, "cuda");
    trainer.backend().set_arithmetic(arithmetic);
    trainer.state().initialise(7);
    const auto tokens = trainer.random_tokens(1), targets = trainer.random_tokens(2);
    trainer.set_optimizer({}, 3e-3f);
    Trained run;
    for (int step = 0; step < 2; ++step) {
        run.losses.push_back(trainer.micro_batch(tokens.data(), targets.data(), 1.0f / static_cast<float>(shape.N()),
                                                 TinyTrainer::kOnly));
        run.gradients = trainer.gradients();
    }
    EXPECT_EQ(trainer.state().allocated_bytes(), trainer.memory().total_bytes());
    EXPECT_EQ(trainer.executor().high_water_bytes(), trainer.memory().layout.arena_bytes);
    return run;
}

/// Attention with grouped heads of HD channels over more than one tile.
ModelConfig config_of(int64_t HD, int64_t T) {
    ModelConfig config = preset("llama-nano");
    config.L = 2, config.NH = 2, config.NKV = 1, config.HD = HD, config.C = 48, config.F = 40, config.V = 61;
    config.maxT = T;
    return config;
}

const Arithmetic kPortable = {"", kPortableKernels, false}, kHopper = {"", kHopperKernels, false};

TEST(Kernels, HoppersGiveTheSameBitsAtEveryLevelAndUnderEverySchedule) {
    const ModelConfig config = config_of(64, 130);
    const Trained expected = train(config, DType::BF16, "none", kHopper);
    for (const PolicyRow& policy : policies()) {
        EXPECT_TRUE(train(config, DType::BF16, policy.name, kHopper) == expected) << policy.name;
    }
    cuda::for_each_seed([&] { EXPECT_TRUE(train(config, DType::BF16, "layer", kHopper) == expected); });
    const Trained portable = train(config, DType::BF16, "none", kPortable);
    EXPECT_NE(portable.gradients, expected.gradients) << "the choice has no effect";
    for (size_t i = 0; i < portable.losses.size(); ++i) EXPECT_NEAR(portable.losses[i], expected.losses[i], 4e-3);
}

TEST(Kernels, HoppersChangeNothingWhereTheyTakeNothing) {
    for (const auto& [HD, dtype] : {std::pair(32, DType::BF16), std::pair(64, DType::F32)}) {
        const ModelConfig config = config_of(HD, 20);
        EXPECT_TRUE(train(config, dtype, "none", kHopper) == train(config, dtype, "none", kPortable));
    }
}

TEST(Kernels, Tf32RoundsProductsOfFp32AndNothingElse) {
    const ModelConfig config = config_of(32, 20);
    const Arithmetic tf32 = {"", kPortableKernels, true};
    const Trained exact = train(config, DType::F32, "none", kPortable),
                  rounded = train(config, DType::F32, "none", tf32);
    EXPECT_NE(exact.gradients, rounded.gradients);
    for (size_t i = 0; i < exact.losses.size(); ++i) EXPECT_NEAR(exact.losses[i], rounded.losses[i], 1e-3);
    EXPECT_TRUE(train(config, DType::F32, "layer", tf32) == rounded) << "the same bits at another level";
    EXPECT_TRUE(train(config, DType::BF16, "none", tf32) == train(config, DType::BF16, "none", kPortable));
}

/// x is all ones: the product is a column sum of weights, each as the product reads it.
TEST(Kernels, Tf32HasTenBitsOfMantissa) {
    const auto backend = make_backend("cuda", 1);
    constexpr int64_t kOut = 5, kIn = 4;
    const std::vector<float> weights = {
        1 + 0x1p-10f, 0, 0, 0, 1 + 0x1p-11f, 0, 0, 0, 1 + 0x1p-12f, 0, 0, 0, 1, 2, 3, 4, 0, 0, -1 - 0x1p-11f, 0};
    const std::vector<float> ones(kIn, 1);
    const auto product = [&] {
        const int64_t bytes = backend->matmul_workspace(DType::F32, 1, kOut, kIn);
        const auto make = [&](int64_t rows, int64_t columns) {
            Tensor tensor(DType::F32, nullptr, rows, columns);
            tensor.data = backend->allocate(tensor.bytes(), "a test's tensor");
            return tensor;
        };
        const Tensor x = make(1, kIn), w = make(kOut, kIn), out = make(1, kOut), workspace = make(1, bytes / 4);
        backend->copy_to_device(x, ones.data());
        backend->copy_to_device(w, weights.data());
        backend->matmul_forward(out, x, w, {}, {}, workspace);
        std::vector<float> result(kOut);
        backend->copy_to_host(result.data(), out);
        for (const Tensor& tensor : {x, w, out, workspace}) backend->release(tensor.data);
        return result;
    };
    EXPECT_EQ(product(), (std::vector<float>{1 + 0x1p-10f, 1 + 0x1p-11f, 1 + 0x1p-12f, 10, -1 - 0x1p-11f}));
    backend->set_arithmetic({"", kPortableKernels, true});
    EXPECT_EQ(product(), (std::vector<float>{1 + 0x1p-10f, 1 + 0x1p-10f, 1, 10, -1 - 0x1p-10f}));
}

}  // namespace
}  // namespace llmc
