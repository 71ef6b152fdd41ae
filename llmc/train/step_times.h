// The typical time of a step, which the log's last line and the page of a run compare with the plan's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace llmc {

/// Takes the steps of one process in their order. The first ones are not typical: caches and kernels warm up. Of the
/// others the last kKept count.
class StepTimes {
  public:
    static constexpr int64_t kWarmupSteps = 2, kKept = 1000;

    /// Rounded to what metrics.jsonl has of it, so that its readers find the same.
    void add(double ms);
    int64_t steps() const { return steps_; }  ///< Taken, whether they count or not.
    size_t size() const { return ms_.size(); }
    double median_ms() const;  ///< Of those that count; there must be one.

  private:
    int64_t steps_ = 0;
    std::vector<double> ms_;  ///< In no order.
};

}  // namespace llmc
