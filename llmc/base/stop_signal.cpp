#include "llmc/base/stop_signal.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <pthread.h>
#include <thread>

namespace llmc {
namespace {

std::atomic<bool> requests_allowed = false;
std::atomic<int> requested = 0;

sigset_t stop_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    return set;
}

/// Ends the program as if the signal had never been blocked, so that a shell sees what it expects.
void end_by(int signal) {
    std::signal(signal, SIG_DFL);
    const sigset_t set = stop_signals();
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    raise(signal);
}

/// A launcher and a batch system may deliver one request twice.
constexpr std::chrono::seconds kSameRequest(1);

void wait_for_signals() {
    const sigset_t set = stop_signals();
    std::chrono::steady_clock::time_point first;
    for (;;) {
        int signal = 0;
        if (sigwait(&set, &signal) != 0) continue;
        int earlier = 0;
        if (!requests_allowed && requested == 0) end_by(signal);
        const auto now = std::chrono::steady_clock::now();
        const bool is_first = requested.compare_exchange_strong(earlier, signal);
        if (is_first) first = now;
        if (!is_first && earlier == signal && now - first > kSameRequest) end_by(signal);
    }
}

}  // namespace

void watch_stop_signals() {
    const sigset_t set = stop_signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::thread(wait_for_signals).detach();
}

StopRequest::StopRequest() {
    requested = 0;
    requests_allowed = true;
}

StopRequest::~StopRequest() { requests_allowed = false; }

int StopRequest::signal() const { return requested; }

}  // namespace llmc
