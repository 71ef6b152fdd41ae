// The control plane of many ranks: small values of the host, and the watch over who is still alive. Every rank has a
// TCP connection to rank 0 and one thread that owns it: it carries collectives, reports what its rank is doing
// (watch.h) and hears the others end. The main thread may be computing, or stuck inside a library, meanwhile.
//
// How a run ends early: the first cause to reach rank 0 (a rank's own fail(), a connection that closed, a verdict of
// the watch) is logged there, and all ranks are told to end, with its exit code. If it is rank 0 that has died, each of
// the others logs it.
#pragma once

#include "llmc/base/error.h"
#include "llmc/comm/meet.h"
#include "llmc/comm/watch.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace llmc {

/// Of what a rank tells the others at a time.
constexpr uint64_t kLongestValue = 16 << 20;

/// What a collective is for: all ranks must mean the same.
enum class Collective : uint8_t { Broadcast, Gather, Numbers, Barrier, Finish };

/// Of a reason, or of what a rank says of itself, as it travels.
constexpr uint64_t kLongestWords = 64 << 10;
/// "{exit code, reason}" for the others; cut where it is longer.
std::string words_of_failure(int exit_code, const std::string& reason);

class Control {
  public:
    /// For tests, what happens where others end this rank, with the line that tells why: called on the thread of the
    /// watch. Afterwards calls that wait throw an Error with the line.
    using EndAction = std::function<void(const std::string& line)>;

    /// Meets the other ranks. At least two. Without an EndAction others end the process, at once: the main thread is
    /// not asked.
    Control(Meeting meeting, double timeout_seconds, EndAction end = {});
    ~Control();
    Control(const Control&) = delete;
    Control& operator=(const Control&) = delete;

    int rank() const { return rank_; }
    int size() const { return static_cast<int>(members_.size()); }
    double timeout_seconds() const { return timeout_seconds_; }
    const Member& member(int rank) const { return members_[static_cast<size_t>(rank)]; }
    std::string name_of(int rank) const;  ///< "rank 2 (host)", for messages.
    const Secret& secret() const { return secret_; }
    /// This host's addresses, as its connections to others have them: the interfaces in use.
    const std::vector<std::string>& own_addresses() const { return own_addresses_; }

    // Collectives, of one thread; as in comm.h. Where ranks make different ones, an Error says which; so does one where
    // a text is longer than kLongestValue.
    std::vector<std::string> all_gather(const std::string& mine, Collective what_for = Collective::Gather);
    std::string broadcast(const std::string& of_root);
    void fail(const std::string& cause, int exit_code = kExitFailed) noexcept;
    void finish();
    void doing(const std::string& what);
    /// From the one to the other this rank may keep others waiting as long as it likes. What it was doing before comes
    /// back, and is to be given back.
    std::string begin_long_work(const std::string& what);
    void end_long_work(const std::string& doing_before);

    /// The line, once the run has ended early; "" before.
    std::string failure() const;
    /// Throws it as an Error.
    void require_alive() const;
    /// What the data plane noticed is most often the trace of a rank that ends: its cause may be on its way, and is
    /// thrown where it comes within a few seconds, else the error.
    [[noreturn]] void throw_cause_of(const Error& error);

    /// While one is alive, its rank waits for others.
    class Waiting {
      public:
        explicit Waiting(Control& control);
        ~Waiting();
        Waiting(const Waiting&) = delete;
        Waiting& operator=(const Waiting&) = delete;

      private:
        Control& control_;
    };

    /// For a call that looks again and again whether it waits for others. It is no step from one call to the next, so
    /// ranks may make different numbers of them.
    class Watching {
      public:
        explicit Watching(Control& control) : control_(control) {}
        ~Watching() { see(std::nullopt); }
        Watching(const Watching&) = delete;
        Watching& operator=(const Watching&) = delete;
        /// The operation that is waited for, if one is: the time counts for each anew.
        void see(std::optional<int> operation);

      private:
        Control& control_;
        std::optional<int> operation_;
    };

  private:
    /// One rank's part in a collective, as it travels.
    struct Part {
        int64_t number = 0;
        Collective what_for = Collective::Gather;
        std::string doing, text;
    };
    struct Outgoing {
        int to = 0;
        MessageType type = MessageType::Values;
        std::string payload;
    };
    using Lock = std::unique_lock<std::mutex>;

    // The caller's side.
    void expect_of_peers();
    void post(int to, MessageType type, std::string payload);
    void send_part(int to, const Part& part);
    std::string receive_part(int from, const Part& own);
    std::string next_values(int from);
    Part begin_part(Collective what_for, const std::string& text);

    // The watch thread's side; control_watch.cpp.
    void run();
    void turn(const std::vector<int>& ready);
    std::vector<int> wait_for_events();
    void take_outbox();
    void hear(int peer);
    void handle(int peer, Message message);
    void handle_heartbeat(int peer, const Message& message);
    void act();
    void say_goodbye();
    void beat();
    void judge_ranks();
    RankReport own_report() const;
    void send_all(MessageType type, const std::string& payload);
    void end_all(const Verdict& verdict);
    void end_without_root(const std::string& what);
    void end_soon(int exit_code) const;
    void end_here(const Error& failure);
    void drain(double seconds);
    bool is_failing() const;

    int rank_ = 0;
    double timeout_seconds_ = 0;
    double beat_seconds_ = 0;
    EndAction end_;
    std::vector<Member> members_;
    Secret secret_;
    std::vector<std::string> own_addresses_;
    WakeUp wake_;

    // Of the watch thread alone.
    std::vector<Link> links_;
    std::vector<RankReport> reports_;
    std::optional<Verdict> reported_;  ///< The first Failure that came.
    std::vector<int> lost_;            ///< Connections that closed, not after a goodbye or a Failure.
    double last_turn_ = 0, last_beat_ = 0;
    double held_up_ = 0;        ///< How much too late the thread had its last turn.
    double excused_until_ = 0;  ///< When ranks were last waiting for long work.
    bool over_ = false;

    int64_t parts_ = 0;  ///< Collectives so far; of the main thread.

    // Shared, under the mutex.
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Outgoing> outbox_;
    std::vector<std::deque<std::string>> inbox_;  ///< Values by sender.
    int depth_ = 0;                               ///< Of Waiting and Watching.
    double waiting_since_ = 0;
    int64_t calls_ = 0;  ///< That waited, and were left.
    int long_works_ = 0;
    std::string doing_ = RankReport().doing;
    std::optional<Error> own_cause_;  ///< fail() was called.
    std::optional<Error> failure_;
    bool finishing_ = false, finished_ = false, stopped_ = false;
    std::thread thread_;
};

}  // namespace llmc
