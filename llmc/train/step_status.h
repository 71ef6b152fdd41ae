// What a terminal shows while a step takes long: how far it is, and how long the rest may take.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace llmc {

/// Where a step is.
struct StepStatus {
    int64_t step = 0;  ///< The one at work, from 1.
    int64_t steps = 0;
    int64_t micro_batch = 0;  ///< The one at work, from 1, of this rank.
    int64_t micro_batches = 1;
    double seconds = 0;           ///< So far.
    double expected_seconds = 0;  ///< Of the whole step; 0 where nobody knows.
    double loss = 0;              ///< Of the step before; 0 for the first.
};

/// "step 12/1000 | micro-batch 3/8 | 4 s of about 12 s | loss 3.2103 | 3h 20m left".
std::string words_of(const StepStatus& status);

/// Draws the status (show_status() of log.h) once a second while a step takes more than two, by a thread of its own,
/// since the step keeps this one busy. Does nothing where no terminal shows it.
class StepStatusLine {
  public:
    /// `is_wanted`: rank 0, at a log level with the lines that this one stands below.
    explicit StepStatusLine(bool is_wanted);
    ~StepStatusLine();
    StepStatusLine(const StepStatusLine&) = delete;
    StepStatusLine& operator=(const StepStatusLine&) = delete;
    /// A step begins; its `seconds` are counted from here.
    void begin(const StepStatus& status);
    /// From 0.
    void micro_batch(int64_t number);
    /// Takes the line away.
    void end();

  private:
    void draw();

    std::mutex mutex_;
    std::condition_variable changed_;
    StepStatus status_;
    double begun_ = 0;  ///< Of now_seconds().
    bool is_running_ = false, is_over_ = false;
    std::thread thread_;
};

}  // namespace llmc
