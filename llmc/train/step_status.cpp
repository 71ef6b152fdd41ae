#include "llmc/train/step_status.h"

#include "llmc/base/log.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <chrono>
#include <system_error>

namespace llmc {
namespace {

constexpr double kSlowStep = 2;  ///< Seconds until a step has a status.

}  // namespace

std::string words_of(const StepStatus& status) {
    std::string words = fmt::format("step {}/{}", status.step, status.steps);
    if (status.micro_batches > 1)
        words += fmt::format(" | micro-batch {}/{}", status.micro_batch, status.micro_batches);
    words += " | " + format_duration(status.seconds);
    if (status.expected_seconds > 0) words += " of about " + format_duration(status.expected_seconds);
    if (status.loss != 0) words += fmt::format(" | loss {:.4f}", status.loss);
    if (status.expected_seconds > 0) {
        const double of_step = std::max(0.0, status.expected_seconds - status.seconds);
        const auto others = static_cast<double>(status.steps - status.step);
        words += fmt::format(" | {} left", format_duration(of_step + others * status.expected_seconds));
    }
    return words;
}

StepStatusLine::StepStatusLine(bool is_wanted) {
    if (!is_wanted || !shows_status()) return;
    try {
        thread_ = std::thread([this] { draw(); });
    } catch (const std::system_error&) {  // No thread is left: then without.
    }
}

StepStatusLine::~StepStatusLine() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        is_over_ = true;
    }
    changed_.notify_one();
    thread_.join();
    show_status("");
}

void StepStatusLine::begin(const StepStatus& status) {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        status_ = status;
        begun_ = now_seconds();
        is_running_ = true;
    }
    changed_.notify_one();
}

void StepStatusLine::micro_batch(int64_t number) {
    if (!thread_.joinable()) return;
    const std::lock_guard lock(mutex_);
    status_.micro_batch = number + 1;
}

void StepStatusLine::end() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        is_running_ = false;
    }
    show_status("");
}

void StepStatusLine::draw() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return is_running_ || is_over_; });
        if (is_over_) return;
        const double begun = begun_;
        while (is_running_ && !is_over_ && begun == begun_) {
            status_.seconds = now_seconds() - begun;
            if (status_.seconds >= kSlowStep) show_status(words_of(status_));
            changed_.wait_for(lock, std::chrono::seconds(1));
        }
    }
}

}  // namespace llmc
