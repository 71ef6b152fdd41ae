#include "llmc/comm/control.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace llmc {
namespace {

constexpr double kBeatSeconds = 0.5;
constexpr double kBeatsPerTimeout = 10;
constexpr std::chrono::seconds kDeliverFailure(2);
/// So long may a rank that fails take to free its memory, before it tells why.
constexpr double kLetOthersTell = 5;

constexpr size_t kLongestDoing = 1000;

const char* describe(Collective what_for) {
    switch (what_for) {
        case Collective::Broadcast: return "a broadcast";
        case Collective::Gather: return "a gather of texts";
        case Collective::Numbers: return "a gather of numbers";
        case Collective::Barrier: return "a barrier";
        case Collective::Finish: return "the end of its run";
    }
    return "an unknown call";
}

}  // namespace

Control::Control(Meeting meeting, double timeout_seconds, EndAction end)
    : rank_(meeting.rank),
      timeout_seconds_(timeout_seconds),
      beat_seconds_(std::min(kBeatSeconds, timeout_seconds / kBeatsPerTimeout)),
      end_(std::move(end)) {
    CHECK(meeting.size > 1 && timeout_seconds > 0, meeting.size, timeout_seconds);
    Star star = meet(meeting, timeout_seconds);
    members_ = std::move(star.members);
    links_ = std::move(star.links);
    secret_ = star.secret;
    expect_of_peers();
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

/// Nothing else comes: who says something else counts as closed, and the run ends. The answer to a gather has all
/// values.
void Control::expect_of_peers() {
    const std::vector<Expected> of_all = {{MessageType::Heartbeat, kLongestWords}, {MessageType::Goodbye, 0}};
    std::vector<Expected> of_root = of_all, of_others = of_all;
    const uint64_t longest_value = kLongestValue + kLongestWords;
    of_root.push_back({MessageType::Values, static_cast<uint64_t>(size()) * longest_value});
    of_root.push_back({MessageType::End, kLongestWords});
    of_others.push_back({MessageType::Values, longest_value});
    of_others.push_back({MessageType::Failure, kLongestWords});
    for (size_t peer = 0; peer < links_.size(); ++peer) {
        if (!links_[peer]) continue;
        links_[peer].expect(peer == 0 ? of_root : of_others);
        own_addresses_.push_back(own_address(links_[peer].socket()));
    }
}

std::string Control::name_of(int rank) const { return fmt::format("rank {} ({})", rank, member(rank).host); }

// ---- Collectives -------------------------------------------------------------------------------------------------

std::vector<std::string> Control::all_gather(const std::string& mine, Collective what_for) {
    const Waiting waiting(*this);
    Part part = begin_part(what_for, mine);
    if (rank_ != 0) {
        send_part(0, part);
        auto values = unpack(receive_part(0, part));
        if (!values || values->size() != members_.size()) llmc::fail("{} sent no values of all ranks", name_of(0));
        return std::move(*values);
    }
    std::vector<std::string> values = {mine};
    for (int rank = 1; rank < size(); ++rank) values.push_back(receive_part(rank, part));
    part.text = pack(values);
    for (int rank = 1; rank < size(); ++rank) send_part(rank, part);
    return values;
}

/// The others tell rank 0 that it was a broadcast they took part in: where it expects something else, it would wait.
std::string Control::broadcast(const std::string& of_root) {
    const Waiting waiting(*this);
    const Part part = begin_part(Collective::Broadcast, rank_ == 0 ? of_root : "");
    if (rank_ != 0) {
        send_part(0, part);
        return receive_part(0, part);
    }
    for (int rank = 1; rank < size(); ++rank) send_part(rank, part);
    return of_root;
}

Control::Part Control::begin_part(Collective what_for, const std::string& text) {
    if (text.size() > kLongestValue) {
        llmc::fail("{} cannot tell the others {} bytes at a time, only {}", name_of(rank_), text.size(), kLongestValue);
    }
    const Lock lock(mutex_);
    return {parts_++, what_for, doing_, text};
}

void Control::send_part(int to, const Part& part) {
    const auto what_for = std::to_string(static_cast<int>(part.what_for));
    post(to, MessageType::Values, pack({std::to_string(part.number), what_for, part.doing, part.text}));
}

/// A rank's part of the collective that we are in. Before it there may be what it said in broadcasts, for which nobody
/// waited.
std::string Control::receive_part(int from, const Part& own) {
    for (;;) {
        auto fields = unpack(next_values(from));
        if (!fields || fields->size() != 4) llmc::fail("{} sent what is no part of a collective", name_of(from));
        const int64_t number = to_integer((*fields)[0]).value_or(-1);
        const auto what_for = static_cast<Collective>(to_integer((*fields)[1]).value_or(-1));
        if (number == own.number && what_for == own.what_for) return std::move((*fields)[3]);
        if (number < own.number && what_for == Collective::Broadcast) continue;
        llmc::fail("{} is at '{}', in {}, where {} is at '{}', in {}: do all ranks run with the same options?",
                   name_of(from), (*fields)[2], describe(what_for), name_of(rank_), own.doing, describe(own.what_for));
    }
}

void Control::finish() {
    const Waiting waiting(*this);
    if (rank_ != 0) post(0, MessageType::Goodbye, "");
    Lock lock(mutex_);
    finishing_ = true;
    wake_.notify();
    changed_.wait(lock, [&] { return finished_ || failure_; });
    if (!finished_) throw Error(*failure_);
}

void Control::post(int to, MessageType type, std::string payload) {
    const Lock lock(mutex_);
    if (failure_) throw Error(*failure_);
    CHECK(!finished_);
    outbox_.push_back({to, type, std::move(payload)});
    wake_.notify();
}

std::string Control::next_values(int from) {
    Lock lock(mutex_);
    std::deque<std::string>& values = inbox_[static_cast<size_t>(from)];
    changed_.wait(lock, [&] { return !values.empty() || failure_; });
    if (values.empty()) throw Error(*failure_);
    std::string first = std::move(values.front());
    values.pop_front();
    return first;
}

// ---- The watch, as its rank sees it ------------------------------------------------------------------------------

void Control::fail(const std::string& cause, int exit_code) noexcept {
    try {
        Lock lock(mutex_);
        if (failure_) return;
        if (!finished_) {
            own_cause_ = Error(exit_code, cause);
            if (rank_ != 0) outbox_.push_back({0, MessageType::Failure, words_of_failure(exit_code, cause)});
            wake_.notify();
            if (changed_.wait_for(lock, kDeliverFailure, [&] { return failure_.has_value(); })) return;
        }
        lock.unlock();                                   // The watch goes on, however long the log takes.
        spdlog::error("{}: {}", name_of(rank_), cause);  // There is nobody to tell.
    } catch (...) {                                      // Out of memory: the end comes anyway.
    }
}

void Control::doing(const std::string& what) {
    const Lock lock(mutex_);
    doing_ = what.substr(0, kLongestDoing);
}

std::string Control::begin_long_work(const std::string& what) {
    const Lock lock(mutex_);
    ++long_works_;
    return std::exchange(doing_, what.substr(0, kLongestDoing));
}

void Control::end_long_work(const std::string& doing_before) {
    const Lock lock(mutex_);
    --long_works_;
    doing_ = doing_before;
}

std::string Control::failure() const {
    const Lock lock(mutex_);
    return failure_ ? failure_->what() : "";
}

void Control::require_alive() const {
    const Lock lock(mutex_);
    if (failure_) throw Error(*failure_);
}

void Control::throw_cause_of(const Error& error) {
    Lock lock(mutex_);
    const std::chrono::duration<double> patience(std::min(kLetOthersTell, timeout_seconds_ / 2));
    changed_.wait_for(lock, patience, [&] { return failure_.has_value(); });
    throw Error(failure_ ? *failure_ : error);
}

Control::Waiting::Waiting(Control& control) : control_(control) {
    const Lock lock(control_.mutex_);
    if (control_.depth_++ == 0) control_.waiting_since_ = now_seconds();
}

Control::Waiting::~Waiting() {
    const Lock lock(control_.mutex_);
    if (--control_.depth_ == 0) ++control_.calls_;
}

void Control::Watching::see(std::optional<int> operation) {
    if (operation == operation_) return;
    const Lock lock(control_.mutex_);
    control_.depth_ += static_cast<int>(operation.has_value()) - static_cast<int>(operation_.has_value());
    control_.waiting_since_ = now_seconds();
    operation_ = operation;
}

}  // namespace llmc
