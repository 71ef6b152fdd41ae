#include "llmc/comm/control.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <unistd.h>
#include <utility>

namespace llmc {
namespace {

constexpr double kBeatSeconds = 0.5;
constexpr double kBeatsPerTimeout = 10;
constexpr std::chrono::seconds kDeliverFailure(2);
constexpr std::chrono::seconds kFlushLog(1);

}  // namespace

void Control::end_process(const std::string&) {
    // Should the main thread sit on a lock of the log, it does not hold up the end.
    std::thread([] {
        std::this_thread::sleep_for(kFlushLog);
        _exit(kExitFailed);
    }).detach();
    spdlog::default_logger()->flush();
    std::fflush(stdout);
    _exit(kExitFailed);
}

Control::Control(Meeting meeting, double timeout_seconds, EndAction end)
    : rank_(meeting.rank),
      timeout_seconds_(timeout_seconds),
      beat_seconds_(std::min(kBeatSeconds, timeout_seconds / kBeatsPerTimeout)),
      end_(std::move(end)) {
    CHECK(meeting.size > 1 && timeout_seconds > 0, meeting.size, timeout_seconds);
    Star star = meet(meeting, timeout_seconds);
    members_ = std::move(star.members);
    links_ = std::move(star.links);
    reports_.resize(members_.size());
    inbox_.resize(members_.size());
    last_turn_ = now_seconds();
    for (RankReport& report : reports_) report.last_heard = last_turn_;
    thread_ = std::thread([this] { run(); });
}

Control::~Control() {
    {
        const Lock lock(mutex_);
        stopped_ = true;
    }
    wake_.notify();
    thread_.join();
}

std::string Control::name_of(int rank) const { return fmt::format("rank {} ({})", rank, member(rank).host); }

// ---- Collectives -------------------------------------------------------------------------------------------------

std::vector<std::string> Control::all_gather(const std::string& mine) {
    const Waiting waiting(*this);
    if (rank_ != 0) {
        post(0, MessageType::Values, mine);
        const auto values = unpack(receive_values(0));
        CHECK(values && values->size() == members_.size());
        return *values;
    }
    std::vector<std::string> values = {mine};
    for (int rank = 1; rank < size(); ++rank) values.push_back(receive_values(rank));
    const std::string packed = pack(values);
    for (int rank = 1; rank < size(); ++rank) post(rank, MessageType::Values, packed);
    return values;
}

std::string Control::broadcast(const std::string& of_root) {
    const Waiting waiting(*this);
    if (rank_ != 0) return receive_values(0);
    for (int rank = 1; rank < size(); ++rank) post(rank, MessageType::Values, of_root);
    return of_root;
}

void Control::finish() {
    const Waiting waiting(*this);
    if (rank_ != 0) post(0, MessageType::Goodbye, "");
    Lock lock(mutex_);
    finishing_ = true;
    wake_.notify();
    changed_.wait(lock, [&] { return finished_ || !failure_.empty(); });
    if (!finished_) throw Error(kExitFailed, failure_);
}

void Control::post(int to, MessageType type, std::string payload) {
    const Lock lock(mutex_);
    if (!failure_.empty()) throw Error(kExitFailed, failure_);
    CHECK(!finished_);
    outbox_.push_back({to, type, std::move(payload)});
    wake_.notify();
}

std::string Control::receive_values(int from) {
    Lock lock(mutex_);
    std::deque<std::string>& values = inbox_[static_cast<size_t>(from)];
    changed_.wait(lock, [&] { return !values.empty() || !failure_.empty(); });
    if (values.empty()) throw Error(kExitFailed, failure_);
    std::string first = std::move(values.front());
    values.pop_front();
    return first;
}

// ---- The watch, as its rank sees it ------------------------------------------------------------------------------

void Control::fail(const std::string& cause) noexcept {
    try {
        Lock lock(mutex_);
        if (!failure_.empty()) return;
        if (!finished_) {
            own_cause_ = cause;
            if (rank_ != 0) outbox_.push_back({0, MessageType::Failure, cause});
            wake_.notify();
            if (changed_.wait_for(lock, kDeliverFailure, [&] { return !failure_.empty(); })) return;
        }
        spdlog::error("{}: {}", name_of(rank_), cause);  // There is nobody to tell.
    } catch (...) {                                      // Out of memory: the end comes anyway.
    }
}

void Control::doing(const std::string& what) {
    const Lock lock(mutex_);
    doing_ = what;
}

std::string Control::failure() const {
    const Lock lock(mutex_);
    return failure_;
}

void Control::require_alive() const {
    const Lock lock(mutex_);
    if (!failure_.empty()) throw Error(kExitFailed, failure_);
}

Control::Waiting::Waiting(Control& control) : control_(control) {
    const Lock lock(control_.mutex_);
    if (control_.depth_++ > 0) return;
    control_.waiting_since_ = now_seconds();
    ++control_.position_;
}

Control::Waiting::~Waiting() {
    const Lock lock(control_.mutex_);
    if (--control_.depth_ == 0) ++control_.position_;
}

}  // namespace llmc
