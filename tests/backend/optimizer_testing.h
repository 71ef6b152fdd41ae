// What tests of the optimisers share between backends: the numbers in device memory that an update starts from, and by
// hand what begin_update() is to make of them.
#pragma once

#include "tests/backend/backend_testing.h"

#include <array>
#include <cmath>
#include <vector>

namespace llmc {

inline double control(const TestBuffer& controls, UpdateControl which) {
    return controls.values()[static_cast<size_t>(which)];
}
inline double factor(const TestBuffer& factors, Factor which) { return factors.values()[static_cast<size_t>(which)]; }

inline TestBuffer controls_buffer(float learning_rate, int64_t updates) {
    Values values(kNumControls);
    values[static_cast<size_t>(UpdateControl::LearningRate)] = learning_rate;
    values[static_cast<size_t>(UpdateControl::Updates)] = static_cast<double>(updates);
    return TestBuffer(DType::F64, kNumControls, 1, values);
}

/// What one call of begin_update() is told.
struct UpdateStart {
    int64_t updates = 0;  ///< Applied before.
    float learning_rate = 0;
    float grad_clip = 0;
    float weight_decay = 0;
    double norm = 0;

    OptimizerSettings settings() const {
        OptimizerSettings settings;
        settings.grad_clip = grad_clip;
        settings.weight_decay = weight_decay;
        return settings;
    }
};

inline std::vector<UpdateStart> update_starts() {
    std::vector<UpdateStart> starts;
    for (const int64_t updates : {0, 1, 2, 9, 999, 123456})
        for (const float learning_rate : {0.0f, 3e-3f, 6e-4f / 7})
            for (const float grad_clip : {0.0f, 1.0f, 0.3f})
                for (const float weight_decay : {0.0f, 0.1f})
                    for (const double norm : {0.0, 0.7, 1.0, 1e-300, 12345.678, 1e300})
                        starts.push_back({updates, learning_rate, grad_clip, weight_decay, norm});
    return starts;
}

/// The definitions, without a power function, in the widest arithmetic there is.
inline Values plain_factors(const UpdateStart& start) {
    const OptimizerSettings settings = start.settings();
    const auto one_minus_power = [&](float beta) {
        long double power = 1;
        for (int64_t i = 0; i <= start.updates && power > 0; ++i) power *= beta;
        return 1 - power;
    };
    const bool clips = start.grad_clip > 0 && start.norm > start.grad_clip;
    Values factors(kNumFactors);
    const auto set = [&](Factor which, long double value) {
        factors[static_cast<size_t>(which)] = static_cast<double>(value);
    };
    set(Factor::Applies, 1);
    set(Factor::GradientScale, clips ? start.grad_clip / static_cast<long double>(start.norm) : 1);
    set(Factor::Keep, 1 - static_cast<long double>(start.learning_rate) * start.weight_decay);
    set(Factor::Step, start.learning_rate / one_minus_power(settings.beta1));
    set(Factor::InverseRootBias2, 1 / std::sqrt(one_minus_power(settings.beta2)));
    set(Factor::Rate, start.learning_rate);
    return factors;
}

/// Each is the double's nearest fp32, but for doubles that lie just between two.
inline void expect_factors(const TestBuffer& factors, const UpdateStart& start) {
    const Values ours = factors.values(), exact = plain_factors(start);
    for (size_t i = 0; i < exact.size(); ++i)
        EXPECT_NEAR(ours[i], exact[i], 0x1.0001p-24 * std::fabs(exact[i]) + 0x1p-150) << "factor " << i;
    EXPECT_TRUE(factors.intact());
}

}  // namespace llmc
