// The ranks of a run as threads of one process, each with its own Control over the loopback.
#pragma once

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/comm/control.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/sink.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace llmc {

/// Far longer than any of these tests takes, so that a busy machine is no fault.
constexpr double kPatient = 60;

/// Meetings of `size` ranks at a free port of this host.
inline std::vector<Meeting> make_meetings(int size, const std::vector<std::string>& hosts = {}) {
    std::vector<Meeting> meetings(static_cast<size_t>(size));
    int error = 0, rank = 0;
    meetings[0].listeners = listen_at({"127.0.0.1"}, 0, &error);
    const RootPlace place = {{"127.0.0.1"}, port_of(meetings[0].listeners[0]), Secret("of these tests", "")};
    for (Meeting& meeting : meetings) {
        meeting.rank = rank;
        meeting.size = size;
        meeting.host = hosts.empty() ? "here" : hosts[static_cast<size_t>(rank)];
        meeting.init = "--comm-init=test";
        meeting.secret = place.secret;
        meeting.advice = "start rank 0";
        meeting.find_root = [place](std::string*) { return place; };
        ++rank;
    }
    return meetings;
}

/// What happened to a rank.
struct Ending {
    std::string error;  ///< The Error that its body threw; "" if it threw none.
    int exit_code = 0;
    std::vector<std::string> lines;  ///< Of every call of its EndAction.
};

/// Runs body(control) on every rank; a rank whose body returns or throws closes its connections.
template <typename Body>
std::vector<Ending> run_ranks(std::vector<Meeting> meetings, double timeout_seconds, Body body) {
    std::vector<Ending> endings(meetings.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < meetings.size(); ++rank) {
        threads.emplace_back([&, rank] {
            Ending& ending = endings[rank];
            try {
                const auto end = [&ending](const std::string& line) { ending.lines.push_back(line); };
                const auto control = std::make_unique<Control>(std::move(meetings[rank]), timeout_seconds, end);
                body(*control);
            } catch (const Error& error) {
                ending.error = error.what();
                ending.exit_code = error.exit_code();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    return endings;
}

/// The same where nothing may go wrong.
template <typename Body>
void run_ranks(int size, Body body) {
    const auto finish_after = [&](Control& control) {
        body(control);
        control.finish();
    };
    for (const Ending& ending : run_ranks(make_meetings(size), kPatient, finish_after)) {
        EXPECT_EQ(ending.error, "");
        EXPECT_TRUE(ending.lines.empty());
    }
}

/// The log's lines of level "error" while it is alive, instead of on stderr.
class CapturedErrors {
  public:
    CapturedErrors() : before_(spdlog::default_logger()) {
        sink_ = std::make_shared<Sink>();
        spdlog::set_default_logger(std::make_shared<spdlog::logger>("captured", sink_));
    }
    ~CapturedErrors() { spdlog::set_default_logger(before_); }
    CapturedErrors(const CapturedErrors&) = delete;
    CapturedErrors& operator=(const CapturedErrors&) = delete;

    std::vector<std::string> lines() const {
        const std::lock_guard lock(sink_->mutex);
        return sink_->lines;
    }

  private:
    struct Sink final : spdlog::sinks::sink {
        mutable std::mutex mutex;
        std::vector<std::string> lines;
        void log(const spdlog::details::log_msg& message) override {
            const std::lock_guard lock(mutex);
            if (message.level == spdlog::level::err) lines.emplace_back(message.payload.data(), message.payload.size());
        }
        void flush() override {}
        void set_pattern(const std::string&) override {}
        void set_formatter(std::unique_ptr<spdlog::formatter>) override {}
    };
    std::shared_ptr<spdlog::logger> before_;
    std::shared_ptr<Sink> sink_;
};

}  // namespace llmc
