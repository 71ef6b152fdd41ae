// The numbers of a step that the host wants. They are copied as they become ready in the order of the device's work,
// which goes on meanwhile, and read when it has come that far.
#pragma once

#include "llmc/run/state.h"

#include <cstdint>
#include <span>

namespace llmc {

class StepNumbers {
  public:
    /// Of steps with so many losses to be read. The backend must outlive this.
    StepNumbers(Backend& backend, int64_t losses);

    /// Both enqueue the copy of a tensor (1) fp64, which what is enqueued later may overwrite. The norm comes last.
    void copy_loss(int64_t index, Tensor loss);
    void copy_norm(Tensor norm);

    /// Waits for the copies, not for what was enqueued after them; then these are the step's, until the next one's
    /// copies are enqueued.
    void wait();
    double norm() const { return values()[0]; }
    std::span<const double> losses() const { return values().subspan(1); }

  private:
    std::span<double> values() const;
    void copy(size_t index, Tensor number);

    Backend& backend_;
    DeviceBuffer memory_;
    TimeMark copied_;
};

}  // namespace llmc
