// A link: messages over one TCP connection. A message is {magic, type, length} and that many bytes. What may come, and
// how long it may be, the owner says for every moment (expect()); whoever sends anything else counts as closed, and no
// room is made for it. Nothing blocks but await() and flush(), which have a deadline.
#pragma once

#include "llmc/comm/socket.h"

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmc {

enum class MessageType : uint32_t {
    // At a gate (gate.h)
    Knock,      ///< A nonce.
    Challenge,  ///< The gate's nonce and its proof.
    Hello,      ///< The guest's proof, and what he comes with.
    // While ranks meet (meet.h)
    Welcome,  ///< From rank 0: it has seen the rank.
    Refuse,   ///< From rank 0: exit code and cause; the ranks do not come together.
    Start,    ///< From rank 0: all have come; host and address of each.
    // Afterwards (control.h)
    Values,     ///< A part in a collective: its number, what it is for, what the rank is doing, the text.
    Heartbeat,  ///< Position, milliseconds of waiting, what the rank is doing, whether that may take long.
    Failure,    ///< To rank 0: why the sender ends, and with which exit code.
    End,        ///< From rank 0: all shall end, with this exit code and the line for the log.
    Goodbye,    ///< The sender has finished; from rank 0: all have.
};

struct Message {
    MessageType type = MessageType::Hello;
    std::string payload;
};

/// A message that may come now: its type, and the bytes that its payload has at most.
struct Expected {
    MessageType type = MessageType::Hello;
    uint64_t longest = 0;
};

/// Texts as one, and back; nullopt if it is no such text.
std::string pack(const std::vector<std::string>& fields);
std::optional<std::vector<std::string>> unpack(std::string_view packed);
/// A whole number in decimal digits, with nothing around it.
std::optional<int64_t> to_integer(std::string_view text);

class Link {
  public:
    Link() = default;
    explicit Link(Socket socket);

    explicit operator bool() const { return static_cast<bool>(socket_); }
    const Socket& socket() const { return socket_; }
    void close() { socket_.close(); }
    /// The connection without the messages, once all of them were taken and sent; no socket if more has come.
    Socket release();
    /// What may come from now on; at first nothing may. Of what has come already, messages not taken are held to it.
    void expect(std::vector<Expected> messages);

    /// Sends what can be without blocking; exchange() sends the rest.
    void send(MessageType type, std::string payload);
    /// Sends and receives what can be without blocking, at most a few MiB. False once the other end has closed the
    /// connection, or it is broken; messages that came before can still be taken.
    bool exchange();
    std::optional<Message> take();
    bool is_open() const { return !closed_; }
    /// For poll().
    short events() const;
    /// now_seconds() when something came last.
    double last_heard() const { return last_heard_; }

    /// Waits for a message; nullopt if none comes by `deadline`, or ever.
    std::optional<Message> await(double deadline);
    /// Sends all there is; false if that fails or takes until `deadline`.
    bool flush(double deadline);

  private:
    void write_some();
    void read_some();
    size_t held() const { return incoming_.size() - taken_; }
    void close_on_the_unexpected();
    void wait(double deadline) const;

    Socket socket_;
    std::deque<std::string> outgoing_;
    size_t sent_ = 0;  ///< Of the first of them.
    std::string incoming_;
    size_t taken_ = 0;  ///< Bytes of it that were messages.
    std::vector<Expected> expected_;
    uint64_t longest_ = 0;  ///< Of them.
    bool closed_ = false;
    double last_heard_ = 0;
};

}  // namespace llmc
