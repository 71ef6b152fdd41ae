#include "llmc/comm/link.h"

#include "llmc/base/check.h"
#include "llmc/base/log.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <poll.h>
#include <sys/socket.h>
#include <utility>

namespace llmc {
namespace {

constexpr uint32_t kMagic = 0x32475447;  // "GTG2"
constexpr size_t kReadAtOnce = size_t{4} << 20;

struct Header {
    uint32_t magic = kMagic;
    uint32_t type = 0;
    uint64_t length = 0;
};

void append_length(std::string* text, uint64_t length) {
    text->append(reinterpret_cast<const char*>(&length), sizeof(length));
}

bool try_again() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

std::string pack(const std::vector<std::string>& fields) {
    std::string packed;
    for (const std::string& field : fields) {
        append_length(&packed, field.size());
        packed += field;
    }
    return packed;
}

std::optional<std::vector<std::string>> unpack(std::string_view packed) {
    std::vector<std::string> fields;
    while (!packed.empty()) {
        uint64_t length = 0;
        if (packed.size() < sizeof(length)) return std::nullopt;
        std::memcpy(&length, packed.data(), sizeof(length));
        packed.remove_prefix(sizeof(length));
        if (packed.size() < length) return std::nullopt;
        fields.emplace_back(packed.substr(0, length));
        packed.remove_prefix(length);
    }
    return fields;
}

std::optional<int64_t> to_integer(std::string_view text) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

Link::Link(Socket socket) : socket_(std::move(socket)), last_heard_(now_seconds()) {}

Socket Link::release() {
    CHECK(outgoing_.empty());
    return held() == 0 ? std::move(socket_) : Socket();
}

void Link::expect(std::vector<Expected> messages) {
    expected_ = std::move(messages);
    longest_ = 0;
    for (const Expected& each : expected_) longest_ = std::max(longest_, each.longest);
}

void Link::send(MessageType type, std::string payload) {
    const Header header = {kMagic, static_cast<uint32_t>(type), payload.size()};
    outgoing_.emplace_back(reinterpret_cast<const char*>(&header), sizeof(header));
    if (!payload.empty()) outgoing_.push_back(std::move(payload));
    write_some();
}

bool Link::exchange() {
    write_some();
    read_some();
    close_on_the_unexpected();
    return !closed_;
}

/// What cannot be sent any more is dropped; whether the other end is gone is for reading to find, after the last
/// message.
void Link::write_some() {
    while (!outgoing_.empty()) {
        const std::string& first = outgoing_.front();
        const ssize_t bytes =
            ::send(socket_.descriptor(), first.data() + sent_, first.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (bytes < 0 && try_again()) return;
        if (bytes < 0) {
            outgoing_.clear();
            sent_ = 0;
            return;
        }
        sent_ += static_cast<size_t>(bytes);
        if (sent_ < first.size()) continue;
        outgoing_.pop_front();
        sent_ = 0;
    }
}

/// As much as one message of those that may come, so that nobody fills our memory.
void Link::read_some() {
    std::array<char, 65536> buffer;
    incoming_.erase(0, std::exchange(taken_, 0));
    for (size_t total = 0; !closed_ && total < kReadAtOnce;) {
        const uint64_t room = sizeof(Header) + longest_ - std::min(sizeof(Header) + longest_, uint64_t{held()});
        if (room == 0) return;
        const size_t most = std::min<uint64_t>(buffer.size(), room);
        const ssize_t bytes = recv(socket_.descriptor(), buffer.data(), most, MSG_DONTWAIT);
        if (bytes < 0 && try_again()) return;
        if (bytes <= 0) {
            closed_ = true;
            return;
        }
        incoming_.append(buffer.data(), static_cast<size_t>(bytes));
        total += static_cast<size_t>(bytes);
        last_heard_ = now_seconds();
    }
}

/// Looks at the next message's header, as soon as it is there.
void Link::close_on_the_unexpected() {
    Header header;
    if (held() < sizeof(header)) return;
    std::memcpy(&header, incoming_.data() + taken_, sizeof(header));
    const bool is_expected = std::any_of(expected_.begin(), expected_.end(), [&](const Expected& each) {
        return header.type == static_cast<uint32_t>(each.type) && header.length <= each.longest;
    });
    if (header.magic == kMagic && is_expected) return;
    closed_ = true;
    incoming_.clear();
    taken_ = 0;
}

std::optional<Message> Link::take() {
    close_on_the_unexpected();
    Header header;
    if (held() < sizeof(header)) return std::nullopt;
    std::memcpy(&header, incoming_.data() + taken_, sizeof(header));
    if (held() - sizeof(header) < header.length) return std::nullopt;
    taken_ += sizeof(header);
    Message message = {static_cast<MessageType>(header.type), incoming_.substr(taken_, header.length)};
    taken_ += header.length;
    return message;
}

short Link::events() const { return static_cast<short>(outgoing_.empty() ? POLLIN : POLLIN | POLLOUT); }

void Link::wait(double deadline) const {
    pollfd entry = {socket_.descriptor(), events(), 0};
    poll(&entry, 1, static_cast<int>(std::max(0.0, deadline - now_seconds()) * 1000) + 1);
}

std::optional<Message> Link::await(double deadline) {
    for (;;) {
        const bool open = exchange();
        std::optional<Message> message = take();
        if (message || !open || closed_ || now_seconds() >= deadline) return message;
        wait(deadline);
    }
}

bool Link::flush(double deadline) {
    while (exchange() && !outgoing_.empty() && now_seconds() < deadline) wait(deadline);
    return !closed_ && outgoing_.empty();
}

}  // namespace llmc
