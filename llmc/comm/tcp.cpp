#include "llmc/comm/tcp.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/comm/tcp_mesh.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <vector>

namespace llmc {
namespace {

/// A connection moves at most so much before the others have their turn.
constexpr int64_t kTurnBytes = 1 << 20;
constexpr std::chrono::milliseconds kLookAgain(50);

/// Goes ahead of the bytes of a transfer.
struct TransferHeader {
    int64_t operation = 0, bytes = 0;
    bool operator==(const TransferHeader&) const = default;
};

/// Bytes on their way to or from one rank: a header, then what lies at `data`. On the receiving side `header` is what
/// has come, `expected` what should.
struct Transfer {
    TransferHeader expected, header;
    char* data = nullptr;
    int64_t done = 0;  ///< Header included.

    int64_t total() const { return static_cast<int64_t>(sizeof(header)) + expected.bytes; }
    bool in_header() const { return done < static_cast<int64_t>(sizeof(header)); }
    /// What comes next, at most kTurnBytes.
    char* next() {
        return in_header() ? reinterpret_cast<char*>(&header) + done
                           : data + done - static_cast<int64_t>(sizeof(header));
    }
    size_t next_bytes() const {
        const int64_t end = in_header() ? static_cast<int64_t>(sizeof(header)) : total();
        return static_cast<size_t>(std::min(end - done, kTurnBytes));
    }
};

/// What goes between this rank and another one, in order.
struct Peer {
    int rank = 0;
    Socket socket;
    std::deque<Transfer> sends, receives;
    std::string why_lost = "";
};

class TcpTransport final : public Transport {
  public:
    TcpTransport(Control& control, std::vector<Socket> sockets);
    ~TcpTransport() override;

    std::string name() const override { return "TCP"; }
    int begin_exchange(void* received, const void* bucket, int64_t piece_bytes) override;
    int begin_all_gather(void* bucket, int64_t piece_bytes) override;
    void wait(int operation) override;
    bool test(int operation) override;

  private:
    struct Order {
        int peer = 0;
        bool sends = false;
        Transfer transfer;
    };

    template <typename From, typename To>
    int begin(int64_t piece_bytes, From from, To to);
    void throw_if_lost(std::unique_lock<std::mutex>& lock);
    void stop();

    // Of the thread.
    void run();
    void take_orders();
    void wait_for_events();
    void move_bytes(Peer& peer, bool sends);
    void finish_transfer(const Transfer& transfer);
    void lose(Peer& peer, const std::string& why);

    Control& control_;
    WakeUp wake_;
    std::vector<Peer> peers_;  ///< Of the thread, by rank; the own one is empty.
    bool over_ = false;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Order> orders_;
    std::map<int, int> left_;  ///< Transfers of every operation that are still to be finished.
    int next_ = 0;
    std::string lost_;
    bool stopped_ = false;
    std::thread thread_;
};

TcpTransport::TcpTransport(Control& control, std::vector<Socket> sockets) : control_(control) {
    for (Socket& socket : sockets) {
        peers_.push_back({static_cast<int>(peers_.size()), std::move(socket), {}, {}});
    }
    thread_ = std::thread([this] { run(); });
}

TcpTransport::~TcpTransport() { stop(); }

/// No memory is touched after it.
void TcpTransport::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopped_ = true;
    }
    wake_.notify();
    if (thread_.joinable()) thread_.join();
}

// ---- The caller's side -------------------------------------------------------------------------------------------

int TcpTransport::begin_exchange(void* received, const void* bucket, int64_t piece_bytes) {
    const auto* pieces = static_cast<const char*>(bucket);
    auto* room = static_cast<char*>(received);
    return begin(
        piece_bytes, [&](int peer) { return pieces + peer * piece_bytes; },
        [&](int peer) { return room + (peer < control_.rank() ? peer : peer - 1) * piece_bytes; });
}

int TcpTransport::begin_all_gather(void* bucket, int64_t piece_bytes) {
    auto* pieces = static_cast<char*>(bucket);
    return begin(
        piece_bytes, [&](int) { return pieces + control_.rank() * piece_bytes; },
        [&](int peer) { return pieces + peer * piece_bytes; });
}

/// `from(peer)` is what a rank is sent, `to(peer)` where its part goes.
template <typename From, typename To>
int TcpTransport::begin(int64_t piece_bytes, From from, To to) {
    const std::lock_guard lock(mutex_);
    const int operation = next_++;
    const TransferHeader header = {operation, piece_bytes};
    int& left = left_[operation];
    for (int step = 1; piece_bytes > 0 && step < control_.size(); ++step) {  // Not all to the same rank at once.
        const int peer = (control_.rank() + step) % control_.size();
        // The bytes of a send are only read.
        orders_.push_back({peer, true, {header, header, const_cast<char*>(static_cast<const char*>(from(peer))), 0}});
        orders_.push_back({peer, false, {header, {}, to(peer), 0}});
        left += 2;
    }
    wake_.notify();
    return operation;
}

bool TcpTransport::test(int operation) {
    const std::lock_guard lock(mutex_);
    return left_.at(operation) == 0;
}

void TcpTransport::wait(int operation) {
    std::unique_lock lock(mutex_);
    CHECK(left_.contains(operation), operation);
    while (left_[operation] > 0) {
        changed_.wait_for(lock, kLookAgain);
        if (left_[operation] > 0) throw_if_lost(lock);
    }
    left_.erase(operation);
}

void TcpTransport::throw_if_lost(std::unique_lock<std::mutex>& lock) {
    const std::string lost = lost_;
    if (lost.empty() && control_.failure().empty()) return;
    lock.unlock();
    stop();
    control_.require_alive();
    fail("{}", lost);
}

// ---- The thread --------------------------------------------------------------------------------------------------

void TcpTransport::run() {
    while (!over_) {
        wait_for_events();
        take_orders();
        for (Peer& peer : peers_) {
            move_bytes(peer, true);
            move_bytes(peer, false);
        }
    }
}

void TcpTransport::take_orders() {
    const std::lock_guard lock(mutex_);
    over_ = stopped_;
    for (Order& order : orders_) {
        Peer& peer = peers_[static_cast<size_t>(order.peer)];
        (order.sends ? peer.sends : peer.receives).push_back(order.transfer);
    }
    orders_.clear();
}

/// Only for what is to be done: bytes that come before there is room for them wait in the connection.
void TcpTransport::wait_for_events() {
    std::vector<pollfd> entries = {{wake_.descriptor(), POLLIN, 0}};
    for (const Peer& peer : peers_) {
        if (!peer.why_lost.empty()) continue;
        const int events = (peer.sends.empty() ? 0 : POLLOUT) | (peer.receives.empty() ? 0 : POLLIN);
        if (events != 0) entries.push_back({peer.socket.descriptor(), static_cast<short>(events), 0});
    }
    poll(entries.data(), entries.size(), -1);
    wake_.clear();
}

void TcpTransport::move_bytes(Peer& peer, bool sends) {
    std::deque<Transfer>& transfers = sends ? peer.sends : peer.receives;
    for (int64_t moved = 0; moved < kTurnBytes && !transfers.empty() && peer.why_lost.empty();) {
        Transfer& transfer = transfers.front();
        const int descriptor = peer.socket.descriptor();
        const ssize_t bytes = sends ? ::send(descriptor, transfer.next(), transfer.next_bytes(), MSG_NOSIGNAL)
                                    : ::recv(descriptor, transfer.next(), transfer.next_bytes(), 0);
        if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
        if (bytes <= 0) return lose(peer, bytes == 0 ? "it was closed" : words_of(errno));
        transfer.done += bytes;
        moved += bytes;
        if (!transfer.in_header() && transfer.header != transfer.expected) {
            return lose(peer, fmt::format("{} bytes for operation {} came where {} for operation {} should: do all "
                                          "ranks run with the same options?",
                                          transfer.header.bytes, transfer.header.operation, transfer.expected.bytes,
                                          transfer.expected.operation));
        }
        if (transfer.done < transfer.total()) continue;
        finish_transfer(transfer);
        transfers.pop_front();
    }
}

void TcpTransport::finish_transfer(const Transfer& transfer) {
    const std::lock_guard lock(mutex_);
    if (--left_[static_cast<int>(transfer.expected.operation)] == 0) changed_.notify_all();
}

void TcpTransport::lose(Peer& peer, const std::string& why) {
    peer.why_lost = why;
    const std::lock_guard lock(mutex_);
    if (!lost_.empty()) return;
    lost_ = fmt::format("the data connection to {} was lost: {}", control_.name_of(peer.rank), why);
}

}  // namespace

std::unique_ptr<Transport> make_tcp_transport(Control& control) {
    return std::make_unique<TcpTransport>(control, connect_mesh(control));
}

}  // namespace llmc
