#include "llmc/comm/gate.h"

#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <arpa/inet.h>
#include <atomic>
#include <fstream>
#include <sys/socket.h>

namespace llmc {
namespace {

const Secret kSecret("a secret of these tests", "job");

/// A gate at the loopback whose guests are welcomed, on a thread of its own.
class Opened {
  public:
    Opened() {
        int error = 0;
        std::vector<Socket> listeners = listen_at({"127.0.0.1"}, 0, &error);
        port = port_of(listeners[0]);
        gate_ = std::make_unique<Gate>(std::move(listeners), kSecret, "meet");
        thread_ = std::thread([this] { run(); });
    }
    ~Opened() { close(); }
    void close() {
        over_ = true;
        if (thread_.joinable()) thread_.join();
    }
    std::vector<std::string> hellos() const { return hellos_; }
    std::string remark() const { return gate_->remark_on_refused(); }

    int port = 0;

  private:
    void run() {
        while (!over_) {
            std::vector<pollfd> entries;
            gate_->add_to(entries);
            poll(entries.data(), entries.size(), 5);
            for (Guest& guest : gate_->admit()) {
                hellos_.push_back(guest.hello);
                guest.link.send(MessageType::Welcome, "");
                guest.link.flush(now_seconds() + kPatient);
                guests_.push_back(std::move(guest));
            }
        }
    }

    std::unique_ptr<Gate> gate_;
    std::vector<std::string> hellos_;
    std::vector<Guest> guests_;
    std::atomic<bool> over_ = false;
    std::thread thread_;
};

/// Whether one who knocks with these is welcomed.
bool is_welcome(int port, const Secret& secret, const std::string& purpose, std::string* why) {
    Link link = knock("127.0.0.1", port, secret, purpose, "hello", now_seconds() + kPatient, why);
    link.expect({{MessageType::Welcome, 0}});
    return link && link.await(now_seconds() + kPatient);
}

Socket connected_to(int port) {
    std::string why;
    Socket socket = connect_to("127.0.0.1", port, kPatient, &why);
    EXPECT_TRUE(socket) << why;
    return socket;
}

/// What comes back after these bytes; "closed" once the connection is.
std::string answer_to(int port, const std::string& bytes) {
    const Socket socket = connected_to(port);
    send(socket.descriptor(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    std::string got;
    for (const double deadline = now_seconds() + kPatient; now_seconds() < deadline;) {
        std::array<char, 4096> buffer = {};
        pollfd entry = {socket.descriptor(), POLLIN, 0};
        poll(&entry, 1, 1000);
        const ssize_t count = recv(socket.descriptor(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (count == 0 || (count < 0 && errno != EAGAIN)) return got.empty() ? "closed" : got;
        if (count > 0) got.append(buffer.data(), static_cast<size_t>(count));
    }
    return "open";
}

std::string message(MessageType type, const std::string& payload, uint64_t length) {
    const uint32_t head[] = {0x32475447, static_cast<uint32_t>(type)};
    std::string bytes(reinterpret_cast<const char*>(head), sizeof(head));
    bytes.append(reinterpret_cast<const char*>(&length), sizeof(length));
    return bytes + payload;
}

TEST(Gate, LetsInWhoKnowsTheSecret) {
    Opened gate;
    std::string why;
    EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
    gate.close();
    EXPECT_EQ(gate.hellos(), std::vector<std::string>{"hello"});
    EXPECT_EQ(gate.remark(), "");
}

TEST(Gate, LetsNobodyElseIn) {
    Opened gate;
    std::string why;
    const std::pair<Secret, const char*> cases[] = {{Secret("another secret", "job"), "meet"},
                                                    {Secret("a secret of these tests", "other job"), "meet"},
                                                    {Secret(), "meet"},
                                                    {kSecret, "mesh"}};
    for (const auto& [secret, purpose] : cases) {
        EXPECT_FALSE(is_welcome(gate.port, secret, purpose, &why));
        EXPECT_TRUE(has(why, {"does not know this job's secret", "LLMC_JOB_SECRET"}));
    }
    EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
    gate.close();
    EXPECT_EQ(gate.hellos().size(), 1u);
    EXPECT_TRUE(has(gate.remark(), {"; ", "did not know this job's secret"}));
}

/// A gate that does not check before it proves: what a guest would give away there.
TEST(Gate, GuestsSayNothingToAGateThatProvesNothing) {
    int error = 0;
    const Socket listener = std::move(listen_at({"127.0.0.1"}, 0, &error)[0]);
    std::string why = "", heard;
    std::thread impostor([&] {
        pollfd entry = {listener.descriptor(), POLLIN, 0};
        poll(&entry, 1, 20000);
        Link link(accept_from(listener));
        link.expect({{MessageType::Knock, kNonceBytes}});
        const auto knock = link.await(now_seconds() + kPatient);
        ASSERT_TRUE(knock);
        // The guest's own words come back to him: no proof of the gate's.
        link.send(MessageType::Challenge, pack({knock->payload, std::string(kProofBytes, 'x')}));
        link.expect({{MessageType::Hello, kLongestHello}});
        if (const auto hello = link.await(now_seconds() + kPatient)) heard = hello->payload;
    });
    EXPECT_FALSE(knock("127.0.0.1", port_of(listener), kSecret, "meet", "hello", now_seconds() + kPatient, &why));
    impostor.join();
    EXPECT_EQ(heard, "");
}

/// Everything that a guest once sent, sent again; and the gate's words thrown back at it.
TEST(Gate, ARecordedConversationOpensNothing) {
    Opened gate;
    std::string recorded, why;
    const auto send_to = [&recorded](Link& link, MessageType type, const std::string& payload) {
        link.send(type, payload);
        recorded += message(type, payload, payload.size());
    };
    {
        Socket socket = connected_to(gate.port);
        const std::string ends = ends_within_host(socket), own = random_nonce();
        Link link(std::move(socket));
        send_to(link, MessageType::Knock, own);
        link.expect({{MessageType::Challenge, kLongestHello}});
        const auto challenge = link.await(now_seconds() + kPatient);
        ASSERT_TRUE(challenge);
        const std::string nonces = own + unpack(challenge->payload).value()[0];
        const std::string proof = kSecret.prove({"guest", "meet", nonces, ends, "hello"});
        send_to(link, MessageType::Hello, pack({proof, "hello"}));
        link.expect({{MessageType::Welcome, 0}});
        ASSERT_TRUE(link.await(now_seconds() + kPatient));
    }
    const std::string answer = answer_to(gate.port, recorded);
    EXPECT_NE(answer, "open");
    gate.close();
    EXPECT_EQ(gate.hellos().size(), 1u);
}

/// One who listens where the gate is expected, and passes on what he hears, in both directions.
TEST(Gate, NobodyOnTheSameHostStandsBetween) {
    int error = 0;
    const Socket between = std::move(listen_at({"127.0.0.1"}, 0, &error)[0]);
    Opened gate;
    std::thread relay([&] {
        pollfd entry = {between.descriptor(), POLLIN, 0};
        poll(&entry, 1, 20000);
        const Socket guest = accept_from(between), onward = connected_to(gate.port);
        std::array<char, 4096> buffer = {};
        pollfd both[] = {{guest.descriptor(), POLLIN, 0}, {onward.descriptor(), POLLIN, 0}};
        while (poll(both, 2, 20000) > 0) {
            for (int side = 0; side < 2; ++side) {
                if (both[side].revents == 0) continue;
                const ssize_t count = recv(both[side].fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
                if (count <= 0) return;
                send(both[1 - side].fd, buffer.data(), static_cast<size_t>(count), MSG_NOSIGNAL);
            }
        }
    });
    std::string why;
    EXPECT_FALSE(is_welcome(port_of(between), kSecret, "meet", &why));
    EXPECT_TRUE(has(why, {"does not know this job's secret"}));
    relay.join();
    EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
    gate.close();
    EXPECT_EQ(gate.hellos().size(), 1u);
}

TEST(Gate, GarbageAndOversizeAreSentAway) {
    Opened gate;
    const std::string nonce(kNonceBytes, 'n');
    const std::vector<std::string> bytes = {
        "GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        std::string(100000, '\0'),
        std::string(100000, '\xff'),
        message(MessageType::Knock, "", uint64_t{1} << 40),
        message(MessageType::Knock, nonce + "x", kNonceBytes + 1),
        message(MessageType::Knock, "short", 5),
        message(MessageType::Hello, pack({std::string(kProofBytes, 'p'), "hello"}), 53),
        message(MessageType::Welcome, "", 0),
        message(static_cast<MessageType>(1000), "", 0),
    };
    for (const std::string& each : bytes) EXPECT_EQ(answer_to(gate.port, each), "closed") << each.substr(0, 20);
    // After a proper knock.
    const std::string knock = message(MessageType::Knock, nonce, kNonceBytes);
    for (const std::string& hello :
         {message(MessageType::Hello, pack({std::string(kProofBytes, 'p'), "hello"}), 53),
          message(MessageType::Hello, "", 0), message(MessageType::Hello, "", uint64_t{1} << 62),
          message(MessageType::Knock, nonce, kNonceBytes)}) {
        EXPECT_NE(answer_to(gate.port, knock + hello), "open");
    }
    std::string why;
    EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
    gate.close();
    EXPECT_EQ(gate.hellos().size(), 1u);
}

/// Connections from an address of this host's, which say nothing.
std::vector<Socket> silent_ones(int count, const char* from, int port) {
    std::vector<Socket> made;
    sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port)), .sin_addr = {}, .sin_zero = {}};
    sockaddr_in own = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    inet_pton(AF_INET, from, &own.sin_addr);
    for (int i = 0; i < count; ++i) {
        Socket& socket = made.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const int descriptor = socket.descriptor();
        EXPECT_EQ(bind(descriptor, reinterpret_cast<const sockaddr*>(&own), sizeof(own)), 0);
        EXPECT_EQ(connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    }
    return made;
}

/// Whether a guest enters who takes so long for his Hello that so many others come meanwhile.
bool enters_late(int port, int others, const char* from) {
    Socket socket = connected_to(port);
    const std::string ends = ends_within_host(socket), own = random_nonce();
    Link link(std::move(socket));
    link.send(MessageType::Knock, own);
    link.expect({{MessageType::Challenge, kLongestHello}});
    const auto challenge = link.await(now_seconds() + kPatient);
    if (!challenge) return false;
    const std::vector<Socket> flood = silent_ones(others, from, port);
    const std::string nonces = own + unpack(challenge->payload).value()[0];
    link.send(MessageType::Hello, pack({kSecret.prove({"guest", "meet", nonces, ends, "hello"}), "hello"}));
    link.expect({{MessageType::Welcome, 0}});
    return link.await(now_seconds() + kPatient).has_value();
}

TEST(Gate, AFloodMakesRoomForItself) {
    raise_file_limit();
    Opened gate;
    EXPECT_TRUE(enters_late(gate.port, 600, "127.0.0.2"));
    gate.close();
}

/// Of so many connections it is thrown out by, one stays in four times of ten: never by each of thirty.
TEST(Gate, WhoKeepsTryingComesThroughAFloodFromHisOwnAddress) {
    raise_file_limit();
    Opened gate;
    int tries = 0;
    while (tries < 30 && !enters_late(gate.port, 240, "127.0.0.1")) ++tries;
    EXPECT_LT(tries, 30);
    gate.close();
}

int64_t resident_kib() {
    std::ifstream file("/proc/self/statm");
    int64_t size = 0, resident = 0;
    file >> size >> resident;
    return resident * 4;
}

TEST(Gate, AThousandIdleConnectionsDoNotKeepARankOut) {
    raise_file_limit();
    Opened gate;
    std::string why;
    EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
    const int64_t before = resident_kib();
    std::vector<Socket> idle;
    for (int i = 0; i < 1000; ++i) {
        idle.push_back(connected_to(gate.port));
        if (!idle.back()) break;
        const std::string part = message(MessageType::Knock, "", kNonceBytes).substr(0, static_cast<size_t>(i % 17));
        send(idle.back().descriptor(), part.data(), part.size(), MSG_NOSIGNAL);
        if (i % 100 == 99) {
            EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
        }
    }
    EXPECT_TRUE(is_welcome(gate.port, kSecret, "meet", &why)) << why;
    EXPECT_LT(resident_kib() - before, 16 << 10);
    gate.close();
    EXPECT_EQ(gate.hellos().size(), 12u);
}

}  // namespace
}  // namespace llmc
