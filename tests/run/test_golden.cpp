// Whole models against PyTorch: losses, every gradient, ten AdamW updates, from the files dev/oracle/make_golden.py
// wrote. Our fp32 error against PyTorch's fp64 values is bounded by a small multiple of PyTorch's own fp32 error.
#include "tests/run/golden.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llmc {
namespace {

double distance(const std::vector<float>& ours, const std::vector<double>& reference) {
    double sum = 0;
    for (size_t i = 0; i < reference.size(); ++i) {
        const double difference = static_cast<double>(ours[i]) - reference[i];
        sum += difference * difference;
    }
    return std::sqrt(sum);
}

double norm_of(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value * value;
    return std::sqrt(sum);
}

class GoldenTest : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(GoldenTest, LossAndGradientsMatchPyTorch) {
    const auto [name, policy] = GetParam();
    const Golden golden(name);
    TinyTrainer trainer(golden.config(), golden.shape(), DType::F32, policy);
    load_parameters(golden, trainer);
    const int64_t N = golden.shape().N();
    const double loss = trainer.micro_batch(golden.values<int32_t>("tokens").data(),
                                            golden.values<int32_t>("targets").data(), 1.0f / static_cast<float>(N));
    const double expected = golden.values<double>("loss")[0];
    EXPECT_NEAR(loss, expected, 1e-6 * expected);
    for (size_t i = 0; i < trainer.model().parameters.size(); ++i) {
        const std::string& parameter = trainer.model().parameters[i].name;
        const auto reference = golden.values<double>("grad." + parameter);
        const auto ours = trainer.values(trainer.state().gradient(static_cast<int>(i)), static_cast<int>(i));
        ASSERT_EQ(ours.size(), reference.size()) << parameter;
        const double allowed = 2 * golden.values<double>("grad_error." + parameter)[0] + 1e-9 * norm_of(reference);
        EXPECT_LE(distance(ours, reference), allowed) << parameter;
    }
}

TEST_P(GoldenTest, TenUpdatesMatchPyTorch) {
    const auto [name, policy] = GetParam();
    const Golden golden(name);
    TinyTrainer trainer(golden.config(), golden.shape(), DType::F32, policy);
    load_parameters(golden, trainer);
    const int64_t N = golden.shape().N();
    const auto tokens = golden.values<int32_t>("tokens");
    const auto targets = golden.values<int32_t>("targets");
    const auto losses = golden.values<double>("loss");
    const auto norms = golden.values<double>("grad_norm");
    trainer.set_optimizer(golden.adamw(), golden.learning_rate());
    for (int64_t step = 0; step < golden.integer("steps"); ++step) {
        const double loss = trainer.micro_batch(tokens.data() + step * N, targets.data() + step * N,
                                                1.0f / static_cast<float>(N), TinyTrainer::kOnly);
        const double norm = trainer.norm();
        EXPECT_NEAR(loss, losses[static_cast<size_t>(step)], 1e-5 * loss) << "step " << step;
        EXPECT_NEAR(norm, norms[static_cast<size_t>(step)], 2e-4 * norm) << "step " << step;
    }
    for (size_t i = 0; i < trainer.model().parameters.size(); ++i) {
        const std::string& parameter = trainer.model().parameters[i].name;
        auto reference = golden.values<double>("final." + parameter);
        auto ours = trainer.values(trainer.state().parameter(static_cast<int>(i)), static_cast<int>(i));
        double error = golden.values<double>("final_error." + parameter)[0];
        if (parameter.ends_with("qkv_bias")) {
            // The loss does not depend on the keys' bias: its gradient is rounding noise, which AdamW turns into steps.
            const auto C = static_cast<long>(golden.config().C);
            reference.erase(reference.begin() + C, reference.begin() + 2 * C);
            ours.erase(ours.begin() + C, ours.begin() + 2 * C);
            error = golden.values<double>("final_error_without_k." + parameter)[0];
        }
        EXPECT_LE(distance(ours, reference), 4 * error + 1e-9 * norm_of(reference)) << parameter;
    }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest,
                         testing::Combine(testing::Values("gpt2_tiny", "llama_tiny", "llama_tied_tiny"),
                                          testing::Values("none", "sqrt")),
                         [](const auto& info) {
                             return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                         });

}  // namespace
}  // namespace llmc
