#include "llmc/train/step_times.h"

#include "llmc/base/median.h"

#include <cmath>

namespace llmc {

void StepTimes::add(double ms) {
    const int64_t index = steps_++ - kWarmupSteps;
    if (index < 0) return;
    if (index < kKept) ms_.push_back(0);
    ms_[static_cast<size_t>(index % kKept)] = std::round(ms * 1e3) / 1e3;
}

double StepTimes::median_ms() const { return median(ms_); }

}  // namespace llmc
