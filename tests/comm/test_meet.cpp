#include "llmc/comm/gate.h"
#include "llmc/comm/meet.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <sys/socket.h>

namespace llmc {
namespace {

/// meet() of the given ranks only, each after the first with so much more patience; what each of them throws.
std::vector<Error> errors_of(std::vector<Meeting> meetings, double timeout_seconds, double more_patience = 0) {
    std::vector<Error> errors(meetings.size(), Error(0, ""));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < meetings.size(); ++i) {
        threads.emplace_back([&, i] {
            try {
                meet(meetings[i], timeout_seconds + (i > 0 ? more_patience : 0));
            } catch (const Error& error) {
                errors[i] = error;
            }
            meetings[i].listeners.clear();
        });
    }
    for (std::thread& thread : threads) thread.join();
    return errors;
}

TEST(Meet, EverybodyLearnsNamesAndAddresses) {
    std::vector<Meeting> meetings = make_meetings(3, {"a", "b", "c"});
    std::vector<Star> stars(3);
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < 3; ++rank) {
        threads.emplace_back([&, rank] {
            stars[rank] = meet(meetings[rank], kPatient);
            for (Link& link : stars[rank].links) {
                if (link) link.flush(now_seconds() + kPatient);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t rank = 0; rank < 3; ++rank) {
        EXPECT_EQ(stars[rank].members[1].host, "b");
        EXPECT_EQ(stars[rank].members[2].address, "127.0.0.1");
        for (size_t peer = 0; peer < 3; ++peer) {
            EXPECT_EQ(static_cast<bool>(stars[rank].links[peer]), rank == 0 ? peer != 0 : peer == 0);
        }
    }
}

TEST(Meet, RanksThatDoNotComeAreNamedToAllWhoDid) {
    std::vector<Meeting> meetings = make_meetings(4);
    meetings.erase(meetings.begin() + 3);
    meetings.erase(meetings.begin() + 1);
    const auto errors = errors_of(std::move(meetings), 0.3);
    EXPECT_STREQ(errors[0].what(),
                 "--comm-init=test: ranks 1, 3 of 4 did not come within 0.3 s; see why not, or raise --comm-timeout");
    EXPECT_TRUE(has(errors[1].what(), {"rank 2: rank 0 gave up: ", "ranks 1, 3 of 4 did not come"}));
    for (const Error& error : errors) EXPECT_EQ(error.exit_code(), kExitFailed);
}

TEST(Meet, Rank0ThatIsNotThereIsNamedWithItsAddress) {
    std::vector<Meeting> meetings = make_meetings(2);
    const int port = port_of(meetings[0].listeners[0]);
    meetings.erase(meetings.begin());  // Closes the port.
    const auto errors = errors_of(std::move(meetings), 0.3);
    EXPECT_EQ(errors[0].what(), fmt::format("rank 1: no answer from rank 0 at 127.0.0.1:{} within 0.3 s (connection "
                                            "refused); start rank 0",
                                            port));
}

TEST(Meet, SomethingElseAtThePortIsNoAnswer) {
    std::vector<Meeting> meetings = make_meetings(2);
    meetings[0].secret = Secret("of another job", "");
    const auto errors = errors_of(std::move(meetings), 0.3);
    EXPECT_TRUE(has(errors[0].what(), {"rank 1 of 2 did not come", "did not know this job's secret"}));
    EXPECT_TRUE(has(errors[1].what(), {"no answer from rank 0", "it does not know this job's secret"}));
}

/// He was there, and has given up since: that he refuses connections now tells less.
TEST(Meet, SomethingElseThatHasGoneIsStillTheReason) {
    std::vector<Meeting> meetings = make_meetings(2);
    meetings[0].secret = Secret("of another job", "");
    const auto errors = errors_of(std::move(meetings), 0.3, 1);
    EXPECT_TRUE(has(errors[1].what(), {"no answer from rank 0", "it does not know this job's secret"}));
}

TEST(Meet, TwoProcessesOfOneRankAreRefused) {
    std::vector<Meeting> meetings = make_meetings(3, {"a", "b", "c"});
    meetings[2].rank = 1;
    const auto errors = errors_of(std::move(meetings), kPatient);
    EXPECT_TRUE(has(errors[0].what(), {"two processes say they are rank 1, on "}));
    for (const Error& error : errors) {
        EXPECT_TRUE(has(error.what(), {"two processes say they are rank 1"}));
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
    }
}

TEST(Meet, OneThatEndsBeforeTheyMeetTellsAll) {
    for (const size_t one : {0, 1, 2, 0, 1, 2}) {  // Whoever is the last to come.
        std::vector<Meeting> meetings = make_meetings(3, {"a", "b", "c"});
        const Error cause(kExitBadUsage, "--frobnicate: no such option");
        Meeting lost = std::move(meetings[one]);
        meetings.erase(meetings.begin() + static_cast<std::ptrdiff_t>(one));
        std::thread thread([&] { call_off(lost, cause, kPatient); });
        const auto errors = errors_of(std::move(meetings), kPatient);
        thread.join();
        for (const Error& error : errors) {
            EXPECT_TRUE(has(error.what(), {fmt::format("rank {} (", one), "--frobnicate: no such option"}));
            EXPECT_EQ(error.exit_code(), kExitBadUsage);
        }
    }
}

TEST(Meet, AllThatEndTellEachOtherAndDoNotWait) {
    std::vector<Meeting> meetings = make_meetings(3);
    std::vector<std::thread> threads;
    const double begin = now_seconds();
    for (Meeting& meeting : meetings) {
        threads.emplace_back([&] { call_off(meeting, Error(kExitFailed, "cause"), kPatient); });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_LT(now_seconds() - begin, kPatient / 2);
}

TEST(Meet, DifferentNumbersOfRanksAreRefused) {
    std::vector<Meeting> meetings = make_meetings(2, {"a", "b"});
    meetings[1].size = 8;
    for (const Error& error : errors_of(std::move(meetings), kPatient)) {
        EXPECT_TRUE(has(error.what(), {"rank 1 (b) was started as one of 8 ranks, rank 0 (a) as one of 2"}));
        EXPECT_EQ(error.exit_code(), kExitBadUsage);
    }
}

TEST(Meet, StrangersDoNoHarm) {
    std::vector<Meeting> meetings = make_meetings(2);
    const int port = port_of(meetings[0].listeners[0]);
    std::string why;
    std::vector<Socket> strangers;
    for (const char* said : {"", "GET / HTTP/1.1\r\n\r\n", "GTG2", "\x47\x54\x47\x32 and then something long enough"}) {
        strangers.push_back(connect_to("127.0.0.1", port, kPatient, &why));
        ASSERT_TRUE(strangers.back()) << why;
        send(strangers.back().descriptor(), said, std::string(said).size(), 0);
    }
    Link impostor(connect_to("127.0.0.1", port, kPatient, &why));
    impostor.send(MessageType::Hello, pack({"proof", pack({"1", "2", "here"})}));
    const auto endings = run_ranks(std::move(meetings), kPatient, [](Control& control) {
        EXPECT_EQ(control.all_gather("x").size(), 2u);
        control.finish();
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

TEST(Meet, GuestsThatLieAboutThemselvesDoNoHarm) {
    std::vector<Meeting> meetings = make_meetings(2);
    const int port = port_of(meetings[0].listeners[0]);
    const Secret secret = meetings[0].secret;
    std::vector<std::string> hellos = {"", "x", pack({"1"}), pack({"one", "2", "here"}), pack({"1", "2", "a", "b"})};
    std::vector<std::thread> liars;
    for (const std::string& hello : hellos) {
        liars.emplace_back([&] {
            std::string why;
            Link link = knock("127.0.0.1", port, secret, "meet", hello, now_seconds() + kPatient, &why);
            EXPECT_TRUE(link) << why;
            link.expect({{MessageType::Welcome, 0}});
            EXPECT_FALSE(link.await(now_seconds() + kPatient));
        });
    }
    std::vector<Star> stars(2);
    std::thread root([&] { stars[0] = meet(meetings[0], kPatient); });
    for (std::thread& liar : liars) liar.join();
    stars[1] = meet(meetings[1], kPatient);
    root.join();
    EXPECT_EQ(stars[0].members.size(), 2u);
}

TEST(Meet, AMemberThatSpeaksBeforeTheMeetingIsOverEndsIt) {
    std::vector<Meeting> meetings = make_meetings(3);
    const RootPlace place = *meetings[1].find_root(nullptr);
    std::string error;
    std::thread root([&] { error = error_of([&] { meet(meetings[0], kPatient); }); });
    std::string why;
    Link link =
        knock("127.0.0.1", place.port, place.secret, "meet", pack({"1", "3", "liar"}), now_seconds() + kPatient, &why);
    link.expect({{MessageType::Welcome, 0}});
    ASSERT_TRUE(link.await(now_seconds() + kPatient));
    link.send(MessageType::Values, std::string(1 << 20, 'x'));
    root.join();
    EXPECT_EQ(error, "rank 1 (liar) died before all ranks had come");
}

}  // namespace
}  // namespace llmc
