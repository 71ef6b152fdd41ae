#include "llmc/base/log.h"
#include "llmc/comm/link.h"

#include <gtest/gtest.h>

#include <poll.h>
#include <sys/socket.h>
#include <utility>

namespace llmc {
namespace {

constexpr double kPatience = 20;

double soon() { return now_seconds() + kPatience; }

/// Both ends of a connection over the loopback.
std::pair<Socket, Socket> connected() {
    int error = 0;
    const Socket listener = listen_on(0, &error);
    std::string why;
    Socket near = connect_to("127.0.0.1", port_of(listener), kPatience, &why);
    EXPECT_TRUE(near) << why;
    pollfd entry = {listener.descriptor(), POLLIN, 0};
    poll(&entry, 1, static_cast<int>(kPatience * 1000));
    return {std::move(near), accept_from(listener)};
}

/// A link that takes what control.h may send, of any length.
Link heard(Socket socket) {
    Link link(std::move(socket));
    constexpr uint64_t kAny = 1 << 30;
    link.expect({{MessageType::Values, kAny},
                 {MessageType::Heartbeat, kAny},
                 {MessageType::Failure, kAny},
                 {MessageType::Hello, kAny}});
    return link;
}

TEST(Link, PackedTextsComeBack) {
    const std::vector<std::string> fields = {"", "one", std::string("\0\n\xff", 3), std::string(100000, 'x')};
    EXPECT_EQ(unpack(pack(fields)), fields);
    EXPECT_EQ(unpack(pack({})), std::vector<std::string>{});
}

TEST(Link, WhatWasNotPackedIsNotUnpacked) {
    const std::string packed = pack({"one", "two"});
    for (const size_t cut : {size_t{1}, size_t{9}, packed.size() - 1}) EXPECT_FALSE(unpack(packed.substr(0, cut)));
    EXPECT_FALSE(unpack(std::string(16, '\xff')));
}

TEST(Link, IntegersAreWholeTexts) {
    EXPECT_EQ(to_integer("-12"), -12);
    EXPECT_EQ(to_integer("007"), 7);
    for (const char* text : {"", "x", "1x", " 1", "1.5", "99999999999999999999"})
        EXPECT_FALSE(to_integer(text)) << text;
}

TEST(Link, MessagesKeepTheirOrderAndLength) {
    auto [a, b] = connected();
    Link near(std::move(a)), far = heard(std::move(b));
    const std::string large(3 << 20, 'm');
    near.send(MessageType::Values, "first");
    near.send(MessageType::Heartbeat, "");
    near.send(MessageType::Values, large);
    std::vector<Message> got;
    while (got.size() < 3 && near.exchange()) {
        if (auto message = far.await(now_seconds())) got.push_back(*message);
    }
    ASSERT_EQ(got.size(), 3u);
    EXPECT_EQ(got[0].payload, "first");
    EXPECT_EQ(got[1].type, MessageType::Heartbeat);
    EXPECT_EQ(got[1].payload, "");
    EXPECT_EQ(got[2].payload, large);
}

TEST(Link, WhatWasSentBeforeTheConnectionClosedIsStillHeard) {
    auto [a, b] = connected();
    Link far = heard(std::move(b));
    far.send(MessageType::Heartbeat, "unread, so that closing is a reset");
    {
        Link near(std::move(a));
        near.send(MessageType::Failure, "no data");
    }
    const auto message = far.await(soon());
    ASSERT_TRUE(message);
    EXPECT_EQ(message->payload, "no data");
    EXPECT_FALSE(far.await(soon()));
    EXPECT_FALSE(far.exchange());
}

TEST(Link, WhoSpeaksSomethingElseIsSentAway) {
    auto [a, b] = connected();
    const std::string request = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    ASSERT_EQ(send(a.descriptor(), request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    Link far = heard(std::move(b));
    EXPECT_FALSE(far.await(soon()));
    EXPECT_FALSE(far.exchange());
}

TEST(Link, AMessageBeyondTheLimitIsNotWaitedFor) {
    auto [a, b] = connected();
    Link near(std::move(a)), far = heard(std::move(b));
    far.expect({{MessageType::Hello, 100}});
    near.send(MessageType::Hello, std::string(101, 'x'));
    EXPECT_FALSE(far.await(soon()));
    EXPECT_FALSE(far.exchange());
}

TEST(Link, OnlyWhatIsExpectedAtTheMomentIsTaken) {
    auto [a, b] = connected();
    Link near(std::move(a)), far(std::move(b));
    near.send(MessageType::Welcome, "");
    near.send(MessageType::Start, "names");
    far.expect({{MessageType::Welcome, 0}});
    ASSERT_TRUE(far.await(soon()));
    far.expect({{MessageType::Start, 5}});  // Also of what has come already.
    const auto start = far.await(soon());
    ASSERT_TRUE(start);
    EXPECT_EQ(start->payload, "names");
    far.expect({});
    near.send(MessageType::Start, "names");
    EXPECT_FALSE(far.await(soon()));
    EXPECT_FALSE(far.is_open());
}

TEST(Link, NobodyFillsOurMemory) {
    auto [a, b] = connected();
    Link far(std::move(b));
    far.expect({{MessageType::Knock, 32}});
    const uint32_t header[] = {0x32475447, static_cast<uint32_t>(MessageType::Knock), 32, 0};
    std::string flood(reinterpret_cast<const char*>(header), sizeof(header));
    flood += std::string(1 << 20, 'x');
    send(a.descriptor(), flood.data(), flood.size(), MSG_DONTWAIT);
    const auto knock = far.await(soon());
    ASSERT_TRUE(knock);
    EXPECT_EQ(knock->payload, std::string(32, 'x'));
    EXPECT_FALSE(far.exchange());  // What follows is no message.
    EXPECT_FALSE(far.take());
}

TEST(Link, ADeclaredLengthAloneTakesNoRoom) {
    auto [a, b] = connected();
    Link far = heard(std::move(b));
    const uint32_t header[] = {0x32475447, static_cast<uint32_t>(MessageType::Values), 0, 1u << 8};  // A TiB.
    send(a.descriptor(), header, sizeof(header), 0);
    EXPECT_FALSE(far.await(soon()));
    EXPECT_FALSE(far.is_open());
}

TEST(Link, AwaitKeepsItsDeadline) {
    auto [a, b] = connected();
    Link near(std::move(a)), far = heard(std::move(b));
    EXPECT_FALSE(far.await(now_seconds() + 0.05));
    EXPECT_TRUE(far.exchange());
}

}  // namespace
}  // namespace llmc
