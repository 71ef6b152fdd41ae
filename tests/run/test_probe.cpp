// The probe: what it measures, what it takes, and that nothing but predicted times depends on it.
#include "llmc/run/probe.h"

#include "llmc/backend/make_backend.h"
#include "llmc/base/advice_text.h"
#include "llmc/base/error.h"
#include "llmc/train/choose_plan.h"
#include "tests/backend/null_backend.h"
#include "tests/io/temp_dir.h"
#include "tests/sanitizers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>

namespace llmc {
namespace {

Model tiny_model(const char* name) {
    ModelConfig config = preset(name);
    config.L = 3, config.maxT = 64;
    return make_model(config);
}

/// A device whose clock says what it likes.
class FakeDevice : public NullBackend {
  public:
    FakeDevice(const std::string& name, double seconds) : name_(name), seconds_(seconds) {}
    DeviceInfo info() const override {
        DeviceInfo info = NullBackend::info();
        info.name = name_;
        info.workers = 2;
        return info;
    }
    double seconds_between(const TimeMark&, const TimeMark&) override {
        state_ = state_ * 1103515245 + 12345;
        return seconds_ * (1 + static_cast<double>(state_ >> 16 & 1023));
    }

  private:
    std::string name_;
    double seconds_;
    uint32_t state_ = 1;
};

class NoMemory : public FakeDevice {
  public:
    NoMemory() : FakeDevice("full", 1) {}
    void* allocate(int64_t, const std::string& what) override { fail("{}: no memory", what); }
};

bool is_rate(double rate) { return std::isfinite(rate) && rate > 0; }

TEST(Probe, MeasuresTheModelsOperations) {
    const std::unique_ptr<Backend> backend = make_backend("cpu", 2);
    for (const char* name : {"gpt2-nano", "llama-nano"}) {
        const Model model = tiny_model(name);
        for (const OptimizerKind optimizer : {OptimizerKind::AdamW, OptimizerKind::Lion}) {
            const auto rates = probe(model, DType::F32, optimizer, *backend, 0);
            ASSERT_TRUE(rates) << name;
            ASSERT_FALSE(rates->products.empty());
            for (const ProbedRates::Product& product : rates->products) {
                EXPECT_TRUE(is_rate(product.forward) && is_rate(product.backward_input) &&
                            is_rate(product.backward_weight));
            }
            EXPECT_TRUE(is_rate(rates->bandwidth) && is_rate(rates->update) && is_rate(rates->square_sums) &&
                        is_rate(rates->zeroing) && is_rate(rates->launch_seconds));
            EXPECT_GT(rates->attention_forward.fixed + rates->attention_forward.per_key, 0);
            EXPECT_GT(rates->attention_backward.fixed + rates->attention_backward.per_key, 0);
            EXPECT_TRUE(is_rate(rates->forward[static_cast<size_t>(model.norm)]));
            EXPECT_EQ(rates->workers, threads_there_are(2));
            const OpTimes times = probed_times(model, {1, 64}, Places(), *rates);
            for (const OpTimes::Row& row : times.block) EXPECT_TRUE(is_rate(row.forward) && is_rate(row.backward));
        }
    }
}

TEST(Probe, TakesLittleMemoryAndGivesItBack) {
    FakeDevice device("any", 1e-6);
    constexpr int64_t kMiB = 1 << 20;
    const Model tiny = tiny_model("gpt2-nano");
    ASSERT_TRUE(probe(tiny, DType::F32, OptimizerKind::AdamW, device, 0));
    EXPECT_LE(device.peak_allocated_bytes(), 4 * kMiB + 16 * tiny.parameter_elements);
    ASSERT_TRUE(probe(tiny_model("llama3-8b"), DType::F32, OptimizerKind::AdamW, device, 0));
    EXPECT_LE(device.peak_allocated_bytes(), 80 * kMiB);
    EXPECT_EQ(device.allocated_bytes(), 0);
}

TEST(Probe, WithoutMemoryThereIsNone) {
    NoMemory device;
    EXPECT_FALSE(probe(tiny_model("gpt2-nano"), DType::F32, OptimizerKind::AdamW, device, 0));
    Options options;
    options.batch_size = 2, options.seq_len = 64;
    const ChosenPlan chosen = choose_plan(options, "none", tiny_model("gpt2-nano"), device);
    EXPECT_NE(chosen.times.source.find("uncalibrated, error unknown"), std::string::npos) << chosen.times.source;
}

/// Runs with a cache of its own.
class PlansByProbe : public ::testing::Test {
  protected:
    PlansByProbe() {
        if (const char* before = std::getenv("XDG_CACHE_HOME")) before_ = before;
        setenv("XDG_CACHE_HOME", cache_.path().c_str(), 1);
        options_.command = Command::Plan;
        options_.batch_size = 4, options_.seq_len = 64, options_.total_batch_size = 4 * 64;
    }
    ~PlansByProbe() override {
        before_.empty() ? unsetenv("XDG_CACHE_HOME") : setenv("XDG_CACHE_HOME", before_.c_str(), 1);
    }

    TempDir cache_;
    std::string before_;
    Options options_;
};

TEST_F(PlansByProbe, SizesAndChoicesDoNotDependOnIt) {
    const Model model = tiny_model("gpt2-mini");
    FakeDevice fast("fast", 1e-9), slow("slow", 1e-3);
    const int64_t whole = choose_plan(options_, "none", model, fast).memory.total_bytes();
    const int64_t least = choose_plan(options_, "sqrt", model, fast).memory.total_bytes();
    for (const int64_t batch : {4, 0}) {
        options_.batch_size = batch;
        for (const char* policy : {"none", "layer", "act", "auto"}) {
            for (const int64_t budget : {whole, (whole + least) / 2, least}) {
                options_.memory_budget = size_option(budget);
                if (policy != std::string("auto") && budget != whole) continue;
                const ChosenPlan by_fast = choose_plan(options_, policy, model, fast);
                const ChosenPlan by_slow = choose_plan(options_, policy, model, slow);
                EXPECT_EQ(by_fast.memory.total_bytes(), by_slow.memory.total_bytes()) << policy;
                EXPECT_EQ(by_fast.memory.plan.shape, by_slow.memory.plan.shape) << policy;
                EXPECT_EQ(by_fast.memory.plan.logits_chunk_tokens, by_slow.memory.plan.logits_chunk_tokens);
                EXPECT_EQ(by_fast.memory.plan.steps.size(), by_slow.memory.plan.steps.size());
                EXPECT_EQ(by_fast.keep.slots, by_slow.keep.slots) << policy;
                EXPECT_LT(100 * by_fast.step_seconds, by_slow.step_seconds) << policy;
                EXPECT_NE(by_fast.times.source.find("a probe of fast; uncalibrated"), std::string::npos);
            }
        }
    }
}

TEST_F(PlansByProbe, CalibrationWins) {
    const Model model = tiny_model("gpt2-mini");
    FakeDevice device("calibrated", 1e-3);
    const PlanRequest request = request_for(options_, model, {4, 64}, device);
    OpTimes times = operation_times(options_, model, request, device);
    EXPECT_FALSE(times.measured);
    times.measured = true;
    times.source = "measured on calibrated";
    ASSERT_TRUE(
        save_times(calibration_path(model, request.shape, request.places, request.logits_chunk_tokens, device), times));
    EXPECT_TRUE(operation_times(options_, model, request, device).measured);
    EXPECT_EQ(choose_plan(options_, "none", model, device).times.source, "measured on calibrated");
}

TEST_F(PlansByProbe, AnotherDevicesProfileIsNotProbed) {
    FakeDevice device("host", 1e-3);
    options_.device_profile = "h100";
    const ChosenPlan chosen = choose_plan(options_, "none", tiny_model("gpt2-mini"), device);
    EXPECT_TRUE(device.calls().empty());
    EXPECT_EQ(chosen.times.source,
              "analytic, h100; uncalibrated, attention on Hopper's kernels estimated, not measured");
}

}  // namespace
}  // namespace llmc
