// Control's thread: it alone touches the connections.
#include "llmc/base/log.h"
#include "llmc/comm/control.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <poll.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

constexpr double kDrainSeconds = 1;
constexpr std::chrono::seconds kFlushLog(1);
constexpr std::chrono::seconds kSayWhy(5);  ///< The log's line, the drain, and the flush.

/// The process ends by then, even where the main thread sits on a lock of the log: in a pipe that nobody reads, on a
/// disk that hangs.
void end_within(std::chrono::seconds time, int exit_code) {
    try {
        std::thread([time, exit_code] {
            std::this_thread::sleep_for(time);
            _exit(exit_code);
        }).detach();
    } catch (const std::system_error&) {  // A limit on processes allows no other thread.
    }
}

[[noreturn]] void end_process(int exit_code) {
    end_within(kFlushLog, exit_code);
    spdlog::default_logger()->flush();
    std::fflush(stdout);
    _exit(exit_code);
}

/// "{exit code, text}" as an Error; without a code, one for a fault.
Error to_error(const std::string& payload) {
    const auto fields = unpack(payload);
    if (!fields || fields->size() != 2) return {kExitFailed, payload};
    return {static_cast<int>(to_integer((*fields)[0]).value_or(kExitFailed)), (*fields)[1]};
}

}  // namespace

std::string words_of_failure(int exit_code, const std::string& reason) {
    return pack({std::to_string(exit_code), reason.substr(0, kLongestWords / 2)});
}

void Control::run() {
    std::vector<int> ready;  // At first all: something may have come with the last message of the meeting.
    for (int peer = 0; peer < size(); ++peer) {
        if (links_[static_cast<size_t>(peer)]) ready.push_back(peer);
    }
    for (turn(ready); !over_; turn(ready)) ready = wait_for_events();
    links_.clear();
}

void Control::turn(const std::vector<int>& ready) {
    // A process that was stopped for a while has not heard others for as long.
    held_up_ = std::max(0.0, now_seconds() - last_turn_ - beat_seconds_);
    last_turn_ = now_seconds();
    for (RankReport& report : reports_) report.last_heard += held_up_;
    take_outbox();
    for (const int peer : ready) hear(peer);
    if (!over_) act();
    if (!over_) beat();
    if (!over_) judge_ranks();
    const Lock lock(mutex_);
    over_ = over_ || stopped_;
}

/// Peers with something to read or room to write.
std::vector<int> Control::wait_for_events() {
    std::vector<pollfd> entries = {{wake_.descriptor(), POLLIN, 0}};
    std::vector<int> peers = {-1}, ready;
    for (int peer = 0; peer < size(); ++peer) {
        const Link& link = links_[static_cast<size_t>(peer)];
        if (!link) continue;
        entries.push_back({link.socket().descriptor(), link.events(), 0});
        peers.push_back(peer);
    }
    poll(entries.data(), entries.size(), static_cast<int>(beat_seconds_ * 1000));
    wake_.clear();
    for (size_t i = 1; i < entries.size(); ++i) {
        if (entries[i].revents != 0) ready.push_back(peers[i]);
    }
    return ready;
}

void Control::take_outbox() {
    std::vector<Outgoing> outgoing;
    {
        const Lock lock(mutex_);
        outgoing.swap(outbox_);
    }
    for (Outgoing& message : outgoing) {
        Link& link = links_[static_cast<size_t>(message.to)];
        if (link) link.send(message.type, std::move(message.payload));
    }
}

void Control::hear(int peer) {
    Link& link = links_[static_cast<size_t>(peer)];
    RankReport& report = reports_[static_cast<size_t>(peer)];
    link.exchange();
    report.last_heard = std::max(report.last_heard, link.last_heard());
    while (std::optional<Message> message = link.take()) {
        handle(peer, std::move(*message));
        if (over_) return;
    }
    if (link.is_open()) return;
    link.close();
    const bool has_said_why = reported_ && reported_->rank == peer;
    if (!report.finished && !has_said_why) lost_.push_back(peer);
}

void Control::handle(int peer, Message message) {
    switch (message.type) {
        case MessageType::Values: {
            const Lock lock(mutex_);
            inbox_[static_cast<size_t>(peer)].push_back(std::move(message.payload));
            changed_.notify_all();
            return;
        }
        case MessageType::Heartbeat: return handle_heartbeat(peer, message);
        case MessageType::Failure: {
            const Error cause = to_error(message.payload);
            if (!reported_) reported_ = Verdict{peer, fmt::format(": {}", cause.what()), cause.exit_code()};
            return;
        }
        case MessageType::End: {
            const Error failure = to_error(message.payload);
            end_soon(failure.exit_code());
            spdlog::debug("ended by {}", failure.what());
            return end_here(failure);
        }
        case MessageType::Goodbye: {
            reports_[static_cast<size_t>(peer)].finished = true;
            if (rank_ == 0) return;
            const Lock lock(mutex_);
            over_ = finished_ = true;
            changed_.notify_all();
            return;
        }
        default: return;
    }
}

void Control::handle_heartbeat(int peer, const Message& message) {
    const auto fields = unpack(message.payload);
    if (!fields || fields->size() != 4) return;
    RankReport& report = reports_[static_cast<size_t>(peer)];
    report.position = to_integer((*fields)[0]).value_or(0);
    report.waiting_seconds = static_cast<double>(to_integer((*fields)[1]).value_or(0)) / 1000;
    report.doing = (*fields)[2];
    report.busy = (*fields)[3] == "busy";
}

/// What this turn has brought. A rank that fails says so before it goes; so one that went without a word was first,
/// and the others fail because of it.
void Control::act() {
    if (!lost_.empty() && rank_ != 0) return end_without_root(" died: its connection closed");
    if (!lost_.empty() && held_up_ > timeout_seconds_) {
        return end_all({0, fmt::format(" was stopped for {:.3g} s; the others have given up", held_up_)});
    }
    if (!lost_.empty()) {
        const int rank = lost_.front();
        const std::string& doing = reports_[static_cast<size_t>(rank)].doing;
        return end_all({rank, fmt::format(" died: its connection closed; it was at {}", doing)});
    }
    if (reported_) return end_all(*reported_);
    if (rank_ != 0) return;
    bool says_goodbye = false;
    std::optional<Error> cause;
    {
        const Lock lock(mutex_);
        cause = own_cause_;
        says_goodbye = finishing_ && std::all_of(reports_.begin() + 1, reports_.end(),
                                                 [](const RankReport& report) { return report.finished; });
    }
    if (cause) return end_all({0, fmt::format(": {}", cause->what()), cause->exit_code()});
    if (says_goodbye) say_goodbye();
}

void Control::say_goodbye() {
    send_all(MessageType::Goodbye, "");
    drain(kDrainSeconds);
    const Lock lock(mutex_);
    over_ = finished_ = true;
    changed_.notify_all();
}

void Control::beat() {
    if (last_turn_ - last_beat_ < beat_seconds_) return;
    last_beat_ = last_turn_;
    const RankReport report = own_report();
    const auto waited_ms = static_cast<int64_t>(report.waiting_seconds * 1000);
    send_all(MessageType::Heartbeat, pack({std::to_string(report.position), std::to_string(waited_ms), report.doing,
                                           report.busy ? "busy" : ""}));
}

void Control::judge_ranks() {
    if (rank_ != 0) {
        RankReport root = reports_[0];
        root.waiting_seconds = 0;  // Who has waited too long is rank 0's to say; whether it says anything, ours.
        if (const auto verdict = judge({root}, last_turn_, timeout_seconds_)) end_without_root(verdict->what);
        return;
    }
    reports_[0] = own_report();
    if (waits_for_long_work(reports_)) excused_until_ = last_turn_;
    if (const auto verdict = judge(reports_, last_turn_, timeout_seconds_, excused_until_)) end_all(*verdict);
}

RankReport Control::own_report() const {
    const Lock lock(mutex_);
    RankReport report;
    report.last_heard = last_turn_;
    const bool waits = depth_ > 0;
    report.waiting_seconds = waits ? last_turn_ - waiting_since_ : 0;
    report.position = 2 * calls_ + (waits ? 1 : 0);
    report.doing = doing_;
    report.busy = long_works_ > 0 && !waits;
    return report;
}

void Control::send_all(MessageType type, const std::string& payload) {
    for (Link& link : links_) {
        if (link) link.send(type, payload);
    }
}

// ---- The end -----------------------------------------------------------------------------------------------------

/// Rank 0 tells all. They hear it before this process goes: a connection closed too early would take the message along.
void Control::end_all(const Verdict& verdict) {
    const std::string line = name_of(verdict.rank) + verdict.what;
    send_all(MessageType::End, words_of_failure(verdict.exit_code, line));
    end_soon(verdict.exit_code);
    spdlog::error("{}", line);
    drain(kDrainSeconds);
    end_here({verdict.exit_code, line});
}

void Control::end_without_root(const std::string& what) {
    std::optional<Error> cause;
    {
        const Lock lock(mutex_);
        cause = own_cause_;
    }
    const std::string line = name_of(0) + what;
    end_soon(kExitFailed);
    spdlog::error("{}", line);
    if (cause) spdlog::error("{}: {}", name_of(rank_), cause->what());
    end_here({kExitFailed, line});
}

/// Before the first line of the log that says why.
void Control::end_soon(int exit_code) const {
    if (!end_ && !is_failing()) end_within(kSayWhy, exit_code);
}

void Control::end_here(const Error& failure) {
    over_ = true;
    if (!is_failing()) end_ ? end_(failure.what()) : end_process(failure.exit_code());
    const Lock lock(mutex_);
    failure_ = failure;
    changed_.notify_all();
}

/// Whether the main thread is in fail(), and ends the process with its own exit code.
bool Control::is_failing() const {
    const Lock lock(mutex_);
    return own_cause_.has_value();
}

/// Sends what there is and waits, for a while, until the others have closed.
void Control::drain(double seconds) {
    const double deadline = now_seconds() + seconds;
    for (;;) {
        std::vector<pollfd> entries;
        for (Link& link : links_) {
            if (link && !link.exchange()) link.close();
            while (link && link.take()) {  // Nothing counts any more.
            }
            if (link) entries.push_back({link.socket().descriptor(), link.events(), 0});
        }
        const double left = deadline - now_seconds();
        if (entries.empty() || left <= 0) return;
        poll(entries.data(), entries.size(), static_cast<int>(left * 1000) + 1);
    }
}

}  // namespace llmc
