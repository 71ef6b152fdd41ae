#include "llmc/train/step_times.h"

#include "llmc/base/median.h"

namespace llmc {

void StepTimes::add(double ms) {
    const int64_t index = steps_++ - kWarmupSteps;
    if (index < 0) return;
    if (index < kKept) ms_.push_back(ms);
    ms_[static_cast<size_t>(index % kKept)] = ms;
}

double StepTimes::median_ms() const { return median(ms_); }

}  // namespace llmc
