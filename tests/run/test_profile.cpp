// The profile accounts for every step once, and its trace is what trace viewers read.
#include "llmc/run/profile.h"

#include "tests/run/tiny_trainer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <numeric>

namespace llmc {
namespace {

class ProfileTest : public testing::Test {
  protected:
    ProfileTest() : trainer_(config(), {2, 16}, DType::F32, "layer", 1) {
        trainer_.state().initialise(1);
        trainer_.run_timed(1.0f / 32, &seconds_);
    }
    static ModelConfig config() {
        ModelConfig config = preset("gpt2-nano");
        config.L = 3, config.maxT = 16;
        return config;
    }
    TinyTrainer trainer_;
    std::vector<double> seconds_;
};

TEST_F(ProfileTest, RowsAccountForEveryStep) {
    ASSERT_EQ(seconds_.size(), trainer_.plan().steps.size());
    const auto rows = profile_rows(trainer_.model(), trainer_.plan(), seconds_, 5);
    int steps = 0;
    double seconds = 0;
    for (const ProfileRow& row : rows) {
        steps += row.count;
        seconds += row.seconds;
        const bool moves = row.name != "norm of the gradients";
        EXPECT_EQ(row.bytes > 0, moves) << row.name;
        if (row.name == "forward of qkv") {
            EXPECT_EQ(row.count, 3);
        } else if (row.name == "repeated qkv") {
            EXPECT_EQ(row.count, 2) << "the last layer is not repeated";
            EXPECT_DOUBLE_EQ(row.flops, 2 * 2.0 * 32 * 128 * 384) << "2 N C (3 C) a call";
        }
    }
    EXPECT_EQ(steps, static_cast<int>(seconds_.size()));
    EXPECT_NEAR(seconds, std::accumulate(seconds_.begin(), seconds_.end(), 0.0), 1e-12);
    for (size_t i = 1; i < rows.size(); ++i) EXPECT_GE(rows[i - 1].seconds, rows[i].seconds);
}

TEST_F(ProfileTest, RooflineIsKnownWhereThePeaksAre) {
    const auto rows = profile_rows(trainer_.model(), trainer_.plan(), seconds_, 5);
    DeviceInfo device;
    EXPECT_NE(profile_table(rows, device, DType::F32).find("n/a"), std::string::npos);
    device.peak_flops_fp32 = 1e12, device.bandwidth = 1e11;
    EXPECT_EQ(profile_table(rows, device, DType::F32).find("n/a"), std::string::npos);
}

TEST_F(ProfileTest, TraceIsOneEventPerStepWithoutGaps) {
    const auto trace = nlohmann::json::parse(chrome_trace(trainer_.model(), trainer_.plan(), seconds_));
    const auto& events = trace.at("traceEvents");
    ASSERT_EQ(events.size(), seconds_.size());
    double end = 0;
    for (size_t i = 0; i < events.size(); ++i) {
        EXPECT_EQ(events[i].at("ph"), "X");
        EXPECT_NEAR(events[i].at("ts").get<double>(), end, 1e-3);
        EXPECT_NEAR(events[i].at("dur").get<double>(), seconds_[i] * 1e6, 1e-3);
        end += seconds_[i] * 1e6;
    }
}

}  // namespace
}  // namespace llmc
