// How a rank that looks again and again for what it waits for lets others have its core.
#pragma once

#include <algorithm>
#include <chrono>
#include <sched.h>
#include <thread>

namespace llmc {

/// Nothing sleeps while things go on; then, a small part of the time that passed without news, for waiting should cost
/// neither work nor delay.
class Patience {
  public:
    void pause() const {
        const auto idle = Clock::now() - since_;
        if (idle < kAwake) {
            sched_yield();
        } else {
            std::this_thread::sleep_for(std::clamp<Clock::duration>(idle / 50, kShortest, kLongest));
        }
    }
    /// There is news.
    void restart() { since_ = Clock::now(); }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::microseconds kAwake{200}, kShortest{50}, kLongest{1000};
    Clock::time_point since_ = Clock::now();
};

}  // namespace llmc
