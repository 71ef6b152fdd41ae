// How ranks come to one arithmetic: on devices that say what they can do, and compute nothing.
#include "llmc/train/arithmetic.h"

#include "llmc/base/error.h"
#include "llmc/train/checkpointing.h"
#include "tests/backend/null_backend.h"
#include "tests/comm/comm_testing.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/ostream_sink.h>

#include <memory>
#include <sstream>
#include <thread>
#include <vector>

namespace llmc {
namespace {

/// A GPU that has kernels for compute capability 9.0, or says why not, and finds them right or wrong.
class FakeGpu final : public NullBackend {
  public:
    explicit FakeGpu(std::string lacks = "", bool agrees = true) : lacks_(std::move(lacks)), agrees_(agrees) {}
    bool on_gpu() const override { return true; }
    std::string why_no_hopper() const override { return lacks_; }
    bool hopper_kernels_agree(int64_t) override {
        ++comparisons_;
        return agrees_;
    }
    void set_arithmetic(const Arithmetic& arithmetic) override { arithmetic_ = arithmetic; }
    const Arithmetic& told() const { return arithmetic_; }
    int comparisons() const { return comparisons_; }

  private:
    std::string lacks_;
    bool agrees_;
    int comparisons_ = 0;
    Arithmetic arithmetic_;
};

ModelConfig config_of(int64_t HD) {
    ModelConfig config = preset("gpt2-nano");
    config.HD = HD;
    return config;
}

Options asked(const std::string& kernels) {
    Options options;
    options.kernels = kernels;
    return options;
}

std::string settled(Options options, Backend& backend, DType dtype = DType::BF16, int64_t HD = 64) {
    Comm alone;
    settle_arithmetic(options, config_of(HD), dtype, backend, alone);
    return options.kernels;
}

std::string refusal(const Options& options, Backend& backend) {
    try {
        settled(options, backend);
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
        return error.what();
    }
    return "taken";
}

TEST(Arithmetic, FastestIsHoppersWhereTheDeviceTheTypeAndTheHeadsAllowIt) {
    FakeGpu hopper, other("its compute capability is 8.6, not 9.0");
    EXPECT_EQ(settled(asked("fastest"), hopper), "hopper");
    EXPECT_EQ(hopper.told(), (Arithmetic{"", "hopper", false}));
    EXPECT_EQ(settled(asked("fastest"), hopper, DType::BF16, 128), "hopper");
    EXPECT_EQ(hopper.comparisons(), 2);
    for (const int64_t HD : {32, 80, 96}) EXPECT_EQ(settled(asked("fastest"), hopper, DType::BF16, HD), "portable");
    EXPECT_EQ(settled(asked("fastest"), hopper, DType::F32), "portable");
    EXPECT_EQ(settled(asked("portable"), hopper), "portable");
    EXPECT_EQ(hopper.comparisons(), 2) << "compared what is not used";
    EXPECT_EQ(hopper.told(), (Arithmetic{"", "portable", false}));
    EXPECT_EQ(settled(asked("fastest"), other), "portable");
    EXPECT_EQ(other.comparisons(), 0);
}

TEST(Arithmetic, WhatIsRequiredAndCannotBeIsRefused) {
    FakeGpu other("its compute capability is 8.6, not 9.0"), wrong("", false);
    Options options = asked("hopper");
    EXPECT_EQ(refusal(options, other),
              "--kernels=hopper: its compute capability is 8.6, not 9.0; use --kernels=portable, or fastest");
    options.resume = "runs/a";
    EXPECT_NE(refusal(options, other).find("--resume=runs/a: the run's attention is on Hopper's kernels"),
              std::string::npos);
    EXPECT_NE(refusal(options, wrong).find("add --kernels=portable"), std::string::npos);
    NullBackend cpu;
    EXPECT_NE(refusal(options, cpu).find("it is no GPU"), std::string::npos);
    options.kernels = "portable";  // The advice.
    EXPECT_EQ(refusal(options, other), "taken");
    EXPECT_EQ(refusal(options, cpu), "taken");
}

TEST(Arithmetic, ATryThatFailsSaysHowToDoWithout) {
    class Failing final : public NullBackend {
        bool on_gpu() const override { return true; }
        std::string why_no_hopper() const override { return ""; }
        bool hopper_kernels_agree(int64_t) override { fail("CUDA: the launch of x failed"); }
    } gpu;
    try {
        settled(asked("fastest"), gpu);
        FAIL() << "taken";
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitFailed);
        EXPECT_STREQ(error.what(),
                     "a first try of Hopper's kernels of attention: CUDA: the launch of x failed; --kernels=portable "
                     "does without them");
    }
    EXPECT_EQ(settled(asked("portable"), gpu), "portable");
}

TEST(Arithmetic, Tf32IsOfFp32OnAGpu) {
    FakeGpu gpu;
    NullBackend cpu;
    Comm alone;
    for (const bool on_gpu : {false, true}) {
        for (const DType dtype : {DType::F32, DType::BF16}) {
            Options options;
            options.tf32 = true;
            settle_arithmetic(options, config_of(32), dtype, on_gpu ? static_cast<Backend&>(gpu) : cpu, alone);
            EXPECT_EQ(options.tf32, on_gpu && dtype == DType::F32);
            if (on_gpu) {
                EXPECT_EQ(gpu.told().tf32, options.tf32);
            }
        }
    }
}

/// What becomes of --kernels on each of several ranks, and how often it was warned.
struct TeamAnswer {
    std::vector<std::string> kernels;
    int warnings = 0;
};

TeamAnswer settled_together(std::vector<FakeGpu>& gpus, const std::string& kernels) {
    std::ostringstream log;
    const auto before = spdlog::default_logger();
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
    TeamAnswer answer;
    answer.kernels.resize(gpus.size());
    const auto settle = [&](size_t rank, Comm& comm) {
        try {
            Options options = asked(kernels);
            settle_arithmetic(options, config_of(64), DType::BF16, gpus[rank], comm);
            answer.kernels[rank] = options.kernels;
        } catch (const Error& error) {
            answer.kernels[rank] = error.what();
        }
        comm.barrier();
        comm.finish();
    };
    std::vector<std::thread> threads;
    if (gpus.size() == 1) {
        Comm alone;
        settle(0, alone);
    } else {
        std::vector<Meeting> meetings = make_meetings(static_cast<int>(gpus.size()));
        for (size_t rank = 0; rank < gpus.size(); ++rank) {
            threads.emplace_back([&settle, rank, meeting = std::move(meetings[rank])]() mutable {
                const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
                Comm comm(std::make_unique<Control>(std::move(meeting), kPatient, end));
                settle(rank, comm);
            });
        }
    }
    for (std::thread& thread : threads) thread.join();
    spdlog::set_default_logger(before);
    const std::string text = log.str();
    for (size_t at = text.find("not on Hopper's"); at != std::string::npos; at = text.find("not on Hopper's", at + 1)) {
        ++answer.warnings;
    }
    return answer;
}

TEST(Arithmetic, RanksTakeHoppersKernelsTogetherOrNotAtAll) {
    for (const size_t ranks : {1u, 2u, 3u}) {
        for (size_t bad = 0; bad <= ranks; ++bad) {  // The last one: none.
            std::vector<FakeGpu> gpus;
            for (size_t rank = 0; rank < ranks; ++rank) gpus.emplace_back("", rank != bad);
            const TeamAnswer answer = settled_together(gpus, "fastest");
            for (size_t rank = 0; rank < ranks; ++rank) {
                const char* expected = bad == ranks ? "hopper" : "portable";
                EXPECT_EQ(answer.kernels[rank], expected) << ranks << " ranks, wrong on " << bad;
                EXPECT_EQ(gpus[rank].told().kernels, expected);
            }
            // Here every rank logs; in a run all but the first are quiet.
            EXPECT_EQ(answer.warnings, bad == ranks ? 0 : static_cast<int>(ranks));
        }
    }
    std::vector<FakeGpu> mixed;
    mixed.emplace_back();
    mixed.emplace_back("its compute capability is 8.0, not 9.0");
    EXPECT_EQ(settled_together(mixed, "fastest").kernels, (std::vector<std::string>{"portable", "portable"}));
    EXPECT_EQ(settled_together(mixed, "fastest").warnings, 0);
    for (const std::string& refused : settled_together(mixed, "hopper").kernels) {
        EXPECT_EQ(refused,
                  "--kernels=hopper: its compute capability is 8.0, not 9.0 (rank 1); use --kernels=portable, or "
                  "fastest");
    }
}

// ---- checkpoints ---------------------------------------------------------------------------------------------------

/// A checkpoint's state, of a run that has begun, with this much said of its arithmetic.
Checkpoint checkpoint_saying(const nlohmann::json& more) {
    nlohmann::json state = {{"step", 3},           {"updates", 3},  {"next_sequence", 48},    {"tokenizer", "bytes"},
                            {"dtype", "bf16"},     {"seq_len", 32}, {"total_batch_size", 64}, {"seed", 1},
                            {"train_tokens", 1000}};
    state.update(more);
    Checkpoint checkpoint;
    checkpoint.state = state.dump();
    return checkpoint;
}

Arithmetic said(const nlohmann::json& more) { return progress_of(checkpoint_saying(more)).arithmetic; }

TEST(Arithmetic, CheckpointsSayIt) {
    for (const Arithmetic& arithmetic :
         {Arithmetic{"fp32", "", false}, Arithmetic{"", "hopper", false}, Arithmetic{"", "portable", true}}) {
        EXPECT_EQ(said({{"arithmetic", to_json(arithmetic)}}), arithmetic);
    }
    // Old ones.
    EXPECT_EQ(said(nlohmann::json::object()), (Arithmetic{"library", "portable", false}));
    EXPECT_EQ(said({{"cpu_products", "fp32"}}), (Arithmetic{"fp32", "", false}));
    EXPECT_EQ(said({{"cpu_products", ""}}), (Arithmetic{"", "portable", false}));
}

TEST(Arithmetic, AResumeKeepsWhatWasNotTyped) {
    const Checkpoint of_gpu = checkpoint_saying({{"arithmetic", to_json(Arithmetic{"", "hopper", true})}});
    const Checkpoint of_cpu = checkpoint_saying({{"arithmetic", to_json(Arithmetic{"fp32", "", false})}});
    Options options = asked("portable");  // Of the run's config.toml.
    keep_arithmetic(options, of_gpu);
    EXPECT_EQ(options.kernels, "hopper");
    EXPECT_EQ(options.cpu_products, "auto");
    EXPECT_TRUE(options.tf32);
    keep_arithmetic(options, of_cpu);
    EXPECT_EQ(options.kernels, "fastest");
    EXPECT_EQ(options.cpu_products, "fp32");
    EXPECT_FALSE(options.tf32);
    options = asked("portable");
    options.given["kernels"] = options.given["tf32"] = options.given["cpu-products"] = true;
    options.cpu_products = "library";
    keep_arithmetic(options, of_gpu);
    EXPECT_EQ(options.kernels, "portable");
    EXPECT_EQ(options.cpu_products, "library");
    EXPECT_FALSE(options.tf32);
}

/// A run that goes to another kind of device and comes back computes as before.
TEST(Arithmetic, WhatWasNotedOfTheOtherKindOfDeviceIsKept) {
    const Arithmetic cpu{"fp32", "", false}, portable{"", "portable", true}, hopper{"", "hopper", false};
    EXPECT_EQ(noted(Arithmetic(), cpu), cpu);
    EXPECT_EQ(noted(portable, cpu), (Arithmetic{"fp32", "portable", true}));
    EXPECT_EQ(noted(noted(portable, cpu), portable), (Arithmetic{"fp32", "portable", true}));
    EXPECT_EQ(noted(noted(portable, cpu), hopper), (Arithmetic{"fp32", "hopper", false}));
    EXPECT_EQ(noted(hopper, cpu).kernels, "portable") << "what it was left by";
    const Checkpoint back = checkpoint_saying({{"arithmetic", to_json(noted(portable, cpu))}});
    Options options = asked("fastest");
    keep_arithmetic(options, back);
    EXPECT_EQ(options.kernels, "portable");
    EXPECT_TRUE(options.tf32);
    EXPECT_EQ(options.cpu_products, "fp32");
}

TEST(Arithmetic, ChangesAreOfOneKindOfDevice) {
    const Arithmetic cpu{"fp32", "", false}, hopper{"", "hopper", false}, portable{"", "portable", false};
    EXPECT_FALSE(changes(cpu, hopper));
    EXPECT_FALSE(changes(hopper, hopper));
    EXPECT_TRUE(changes(hopper, portable));
    EXPECT_TRUE(changes(portable, {"", "portable", true}));
    EXPECT_TRUE(changes(cpu, {"library", "", false}));
    EXPECT_FALSE(changes({"", "portable", true}, cpu)) << "a CPU has no TF32";
}

}  // namespace
}  // namespace llmc
