#include "llmc/comm/socket.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

namespace llmc {
namespace {

/// The process's limit of open files, which is put back at the end.
class FileLimit {
  public:
    FileLimit() { getrlimit(RLIMIT_NOFILE, &before_); }
    ~FileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
    FileLimit(const FileLimit&) = delete;
    FileLimit& operator=(const FileLimit&) = delete;

    static rlimit now() {
        rlimit limit = {};
        getrlimit(RLIMIT_NOFILE, &limit);
        return limit;
    }
    void lower(rlim_t files) const {
        const rlimit limit = {files, before_.rlim_max};
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    /// No further file can be opened.
    void exhaust() {
        lower(static_cast<rlim_t>(Socket(open("/dev/null", O_RDONLY)).descriptor()) + 8);
        while (Socket file{open("/dev/null", O_RDONLY)}) files_.push_back(std::move(file));
        ASSERT_EQ(errno, EMFILE);
    }

  private:
    rlimit before_ = {};
    std::vector<Socket> files_;
};

TEST(Socket, TheLimitOfOpenFilesIsRaised) {
    const FileLimit limit;
    limit.lower(200);
    raise_file_limit();
    EXPECT_EQ(FileLimit::now().rlim_cur, FileLimit::now().rlim_max);
    EXPECT_GT(FileLimit::now().rlim_cur, 200u);
}

TEST(Socket, TooManyOpenFilesAreNoFirewall) {
    int error = 0;
    const Socket listener = listen_on(0, &error);
    std::string why;
    const Socket waits = connect_to("127.0.0.1", port_of(listener), kPatient, &why);
    ASSERT_TRUE(waits) << why;
    pollfd entry = {listener.descriptor(), POLLIN, 0};
    ASSERT_EQ(poll(&entry, 1, static_cast<int>(kPatient * 1000)), 1);

    FileLimit limit;
    limit.exhaust();
    EXPECT_TRUE(has(error_of([&] { accept_from(listener); }), {"too many open files", "`ulimit -n`"}));
    EXPECT_TRUE(has(error_of([&] { listen_on(0, &error); }), {"too many open files", "`ulimit -n`"}));
    const auto connect = [&] { connect_to("localhost", port_of(listener), kPatient, &why); };
    EXPECT_TRUE(has(error_of(connect), {"too many open files", "`ulimit -n`"}));
}

TEST(Socket, OneThatListensHearsBothKindsOfAddresses) {
    int error = 0;
    const Socket listener = listen_on(0, &error);
    ASSERT_TRUE(listener) << words_of(error);
    ASSERT_GT(port_of(listener), 0);
    std::string why;
    const auto seen_from = [&](const std::string& host) -> std::string {
        const Socket socket = connect_to(host, port_of(listener), kPatient, &why);
        if (!socket) return "";
        pollfd entry = {listener.descriptor(), POLLIN, 0};
        EXPECT_EQ(poll(&entry, 1, static_cast<int>(kPatient * 1000)), 1);
        EXPECT_EQ(peer_address(socket), host);
        return peer_address(accept_from(listener));
    };
    EXPECT_EQ(seen_from("127.0.0.1"), "127.0.0.1");
    const std::string by_ipv6 = seen_from("::1");
    if (by_ipv6.empty()) GTEST_SKIP() << "no IPv6 here: " << why;
    EXPECT_EQ(by_ipv6, "::1");
    EXPECT_TRUE(is_loopback(by_ipv6));
    for (const std::string& address : interface_addresses()) EXPECT_NE(address, "");
}

TEST(Socket, Rank0WithTooManyOpenFilesSaysSo) {
    std::vector<Meeting> meetings = make_meetings(2, {"a", "b"});
    std::string why;
    const Socket comes = connect_to("127.0.0.1", port_of(meetings[0].listeners[0]), kPatient, &why);
    ASSERT_TRUE(comes) << why;
    FileLimit limit;
    limit.exhaust();
    EXPECT_EQ(error_of([&] { meet(meetings[0], kPatient); }),
              "rank 0 (a): cannot connect to other ranks: too many open files: raise `ulimit -n`");
}

}  // namespace
}  // namespace llmc
