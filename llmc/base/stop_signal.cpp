#include "llmc/base/stop_signal.h"

#include "llmc/base/log.h"

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

using Clock = std::chrono::steady_clock;

struct StopSignal {
    int number;
    /// A second one quits, unless it comes so soon that it is the same request: a launcher and a batch system may
    /// deliver one twice; somebody who presses Ctrl-C twice means it. 0: however often it comes, it says the same.
    std::chrono::milliseconds same_request;
    const char* words;
};
constexpr std::array kStopSignals = {
    StopSignal{SIGINT, std::chrono::milliseconds(100), "Ctrl-C (SIGINT)"},
    StopSignal{SIGTERM, std::chrono::milliseconds(1000), "SIGTERM"},
    StopSignal{SIGQUIT, std::chrono::milliseconds(100), "Ctrl-\\ (SIGQUIT)"},
    StopSignal{SIGUSR1, std::chrono::milliseconds(1000), "SIGUSR1"},
    StopSignal{SIGHUP, {}, "the end of the terminal (SIGHUP)"},
    StopSignal{SIGUSR2, {}, "SIGUSR2"},
    StopSignal{SIGXCPU, {}, "a limit of processor time (SIGXCPU)"},
    StopSignal{SIGALRM, {}, "SIGALRM"},
    StopSignal{SIGPWR, {}, "a power failure (SIGPWR)"},
};

std::atomic<int> requested = 0;
std::mutex taking;  ///< Held while a signal is taken, and for the next two.
bool requests_allowed = false;
std::string remedy_of_request;
std::future<void> acknowledgement;  ///< Of the request; ready once it is said.
bool has_watcher = false;           ///< A thread waits for signals. Without one, StopRequest::signal() looks for them.
std::array<std::optional<Clock::time_point>, kStopSignals.size()> first_came;  ///< Of each, since the request began.

/// Those that were not ignored at the first call.
const sigset_t& stop_signals() {
    static const sigset_t set = [] {
        sigset_t signals;
        sigemptyset(&signals);
        for (const StopSignal& signal : kStopSignals) {
            struct sigaction action = {};
            const bool is_ignored = sigaction(signal.number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
            if (!is_ignored) sigaddset(&signals, signal.number);
        }
        return signals;
    }();
    return set;
}

/// Ends the program as if the signal had never been blocked, so that a shell sees what it expects.
[[noreturn]] void end_by(int signal) {
    std::signal(signal, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    raise(signal);
    _exit(128 + signal);  // Only process 1 comes here.
}

/// In a thread of its own, where one is left: a log that is stuck, in a pipe that nobody reads or on a disk that hangs,
/// does not keep the next signal from being heard.
std::future<void> say(const std::function<void()>& words) {
    try {
        return std::async(std::launch::async, words);
    } catch (const std::exception&) {
        words();
        return {};
    }
}

void acknowledge(bool may_quit) {
    acknowledgement = say(
        [may_quit] { spdlog::info("stopping after this step{}", may_quit ? "; again to quit without saving" : ""); });
}

[[noreturn]] void quit(int signal) {
    constexpr std::chrono::seconds kPatience(1);
    if (!requests_allowed) end_by(signal);
    const std::future<void> said =
        say([] { spdlog::warn("quitting without saving, as asked again; {}", remedy_of_request); });
    if (said.valid()) said.wait_for(kPatience);
    end_by(signal);
}

/// Says nothing once requests are not allowed any more: then the program ends, and the log with it.
void take(int signal) {
    const std::lock_guard lock(taking);
    if (!requests_allowed && requested == 0) end_by(signal);
    size_t kind = 0;
    while (kStopSignals[kind].number != signal) ++kind;
    const auto now = Clock::now();
    const auto same_request = kStopSignals[kind].same_request;
    const bool may_quit = same_request.count() > 0;
    int none = 0;
    if (requested.compare_exchange_strong(none, signal)) {
        first_came.fill(std::nullopt);
        acknowledge(may_quit);
    } else if (may_quit && first_came[kind] && now - *first_came[kind] > same_request) {
        quit(signal);
    }
    if (!first_came[kind]) first_came[kind] = now;
}

void wait_for_signals() {
    for (;;) {
        int signal = 0;
        if (sigwait(&stop_signals(), &signal) == 0) take(signal);
    }
}

void look_for_signals() {
    const timespec at_once = {};
    for (int signal; (signal = sigtimedwait(&stop_signals(), nullptr, &at_once)) > 0;) take(signal);
}

}  // namespace

void watch_stop_signals() {
    pthread_sigmask(SIG_BLOCK, &stop_signals(), nullptr);
    try {
        std::thread(wait_for_signals).detach();
        has_watcher = true;
    } catch (const std::system_error&) {  // A limit on processes allows no other thread.
        pthread_sigmask(SIG_UNBLOCK, &stop_signals(), nullptr);
    }
}

std::string signal_in_words(int signal) {
    for (const StopSignal& row : kStopSignals) {
        if (row.number == signal) return row.words;
    }
    return fmt::format("signal {}", signal);
}

StopRequest::StopRequest(const std::string& remedy) {
    const std::lock_guard lock(taking);
    remedy_of_request = remedy;
    requested = 0;
    requests_allowed = true;
    if (!has_watcher) pthread_sigmask(SIG_BLOCK, &stop_signals(), nullptr);
}

StopRequest::~StopRequest() {
    if (!has_watcher) look_for_signals();
    std::future<void> last;
    {
        const std::lock_guard lock(taking);
        requests_allowed = false;
        last = std::move(acknowledgement);
        if (!has_watcher) pthread_sigmask(SIG_UNBLOCK, &stop_signals(), nullptr);
    }
    if (last.valid()) last.wait();
}

int StopRequest::signal() const {
    if (!has_watcher) look_for_signals();
    return requested;
}

}  // namespace llmc
