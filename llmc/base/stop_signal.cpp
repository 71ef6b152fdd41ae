#include "llmc/base/stop_signal.h"

#include "llmc/base/log.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <pthread.h>
#include <thread>

namespace llmc {
namespace {

std::atomic<bool> requests_allowed = false;
std::atomic<int> requested = 0;
std::mutex remedy_mutex;
std::string remedy_of_request;

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

/// A launcher and a batch system may deliver one request twice; somebody who presses Ctrl-C twice means it.
std::chrono::milliseconds same_request(int signal) { return std::chrono::milliseconds(signal == SIGINT ? 100 : 1000); }

void acknowledge() { spdlog::info("stopping after this step; again to quit without saving"); }

void quit(int signal) {
    {
        const std::lock_guard lock(remedy_mutex);
        spdlog::warn("quitting without saving, as asked again; {}", remedy_of_request);
    }
    end_by(signal);
}

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
        if (is_first) {
            first = now;
            acknowledge();
        } else if (earlier == signal && now - first > same_request(signal)) {
            quit(signal);
        }
    }
}

}  // namespace

void watch_stop_signals() {
    const sigset_t set = stop_signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::thread(wait_for_signals).detach();
}

StopRequest::StopRequest(const std::string& remedy) {
    {
        const std::lock_guard lock(remedy_mutex);
        remedy_of_request = remedy;
    }
    requested = 0;
    requests_allowed = true;
}

StopRequest::~StopRequest() { requests_allowed = false; }

int StopRequest::signal() const { return requested; }

}  // namespace llmc
