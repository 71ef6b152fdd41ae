#include "llmc/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmc {

double learning_rate(const Schedule& schedule, int64_t step) {
    if (step < schedule.warmup) {
        return schedule.peak * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup);
    }
    if (schedule.shape == "constant") return schedule.peak;
    int64_t first = schedule.warmup;
    if (schedule.shape == "wsd") {
        const auto decaying = std::llround(schedule.decay_fraction * static_cast<double>(schedule.steps));
        first = std::max(first, schedule.steps - static_cast<int64_t>(decaying));
        if (step < first) return schedule.peak;
    }
    const auto span = static_cast<double>(std::max<int64_t>(1, schedule.steps - 1 - first));
    const double done = std::clamp(static_cast<double>(step - first) / span, 0.0, 1.0);
    const double falling = schedule.shape == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
    return std::lerp(schedule.final_fraction * schedule.peak, schedule.peak, falling);
}

}  // namespace llmc
