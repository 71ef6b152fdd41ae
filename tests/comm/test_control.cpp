#include "llmc/comm/control.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <atomic>
#include <chrono>
#include <future>

namespace llmc {
namespace {

class ControlOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ControlOf, testing::Values(2, 3, 4, 5));

TEST_P(ControlOf, AllGatherBringsEverybodysTextByRank) {
    run_ranks(GetParam(), [](Control& control) {
        for (int round = 0; round < 20; ++round) {
            const auto texts = control.all_gather(fmt::format("{} of {}", control.rank(), round));
            ASSERT_EQ(texts.size(), static_cast<size_t>(control.size()));
            for (int rank = 0; rank < control.size(); ++rank) {
                EXPECT_EQ(texts[static_cast<size_t>(rank)], fmt::format("{} of {}", rank, round));
            }
        }
    });
}

TEST_P(ControlOf, TextsMayBeEmptyOrLarge) {
    constexpr size_t kLarge = 3 << 20;
    run_ranks(GetParam(), [](Control& control) {
        const auto text_of = [](int rank) {
            return rank == 0 ? std::string() : std::string(kLarge + static_cast<size_t>(rank), static_cast<char>(rank));
        };
        const auto texts = control.all_gather(text_of(control.rank()));
        for (int rank = 0; rank < control.size(); ++rank) {
            EXPECT_TRUE(texts[static_cast<size_t>(rank)] == text_of(rank)) << rank;
        }
        const std::string large(kLarge, 'r');
        EXPECT_TRUE(control.broadcast(control.rank() == 0 ? large : "mine") == large);
        EXPECT_EQ(control.broadcast(control.rank() == 0 ? "" : "mine"), "");
    });
}

TEST_P(ControlOf, CollectivesKeepTheirOrder) {
    run_ranks(GetParam(), [](Control& control) {
        for (int round = 0; round < 50; ++round) {  // Rank 0 may be broadcasts ahead of the others.
            EXPECT_EQ(control.broadcast(std::to_string(round + control.rank())), std::to_string(round));
        }
        EXPECT_EQ(control.all_gather("x").size(), static_cast<size_t>(control.size()));
    });
}

TEST_P(ControlOf, NobodyPassesAGatherBeforeAllHaveCome) {
    std::atomic<int> come = 0;
    run_ranks(GetParam(), [&](Control& control) {
        ++come;
        control.all_gather("");
        EXPECT_EQ(come, control.size());
    });
}

TEST_P(ControlOf, TheCauseOfAFailureReachesEverybodyAndIsLoggedOnce) {
    const int at_fault = GetParam() - 1;
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(GetParam()), kPatient, [&](Control& control) {
        if (control.rank() == at_fault) {
            control.fail("the disk is full");
            fail("the disk is full");
        }
        control.all_gather("");
    });
    const std::string line = fmt::format("rank {} (here): the disk is full", at_fault);
    for (int rank = 0; rank < GetParam(); ++rank) {
        const Ending& ending = endings[static_cast<size_t>(rank)];
        EXPECT_EQ(ending.error, rank == at_fault ? "the disk is full" : line);
        // A rank that fails ends itself, with its own exit code.
        EXPECT_EQ(ending.lines, rank == at_fault ? std::vector<std::string>{} : std::vector<std::string>{line});
    }
    EXPECT_EQ(errors.lines(), std::vector<std::string>{line});
}

TEST_P(ControlOf, Rank0CanFailAsWell) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(GetParam()), kPatient, [](Control& control) {
        if (control.rank() == 0) return control.fail("no tokens");
        control.all_gather("");
    });
    const std::string line = "rank 0 (here): no tokens";
    EXPECT_TRUE(endings[0].lines.empty());
    for (size_t rank = 1; rank < endings.size(); ++rank) {
        EXPECT_EQ(endings[rank].lines, std::vector<std::string>{line});
        EXPECT_EQ(endings[rank].error, line);
    }
    EXPECT_EQ(errors.lines(), std::vector<std::string>{line});
}

TEST_P(ControlOf, AllEndWithTheExitCodeOfTheCause) {
    for (const int at_fault : {0, GetParam() - 1}) {
        const CapturedErrors errors;
        const auto endings = run_ranks(make_meetings(GetParam()), kPatient, [&](Control& control) {
            if (control.rank() == at_fault) return control.fail("--data: no such file", kExitBadUsage);
            control.all_gather("");
        });
        for (int rank = 0; rank < GetParam(); ++rank) {
            EXPECT_EQ(endings[static_cast<size_t>(rank)].exit_code, rank == at_fault ? 0 : kExitBadUsage);
        }
    }
}

/// `usual` on all ranks but one, which does what is `odd`; what the log says.
template <typename Usual, typename Odd>
std::string error_of_different_calls(int odd_one, Usual usual, Odd odd) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(3), kPatient, [&](Control& control) {
        try {
            control.all_gather("");
            control.broadcast("");
            control.doing(control.rank() == odd_one ? "step 3" : "a checkpoint");
            control.rank() == odd_one ? odd(control) : usual(control);
            control.all_gather("");
        } catch (const Error& error) {
            control.fail(error.what(), error.exit_code());
            throw;
        }
    });
    for (const Ending& ending : endings) {
        EXPECT_TRUE(has(ending.error, {"'step 3'", "'a checkpoint'", "do all ranks run with the same options?"}));
        EXPECT_EQ(ending.exit_code, kExitFailed);
    }
    EXPECT_EQ(errors.lines().size(), 1u);
    return errors.lines().empty() ? "" : errors.lines()[0];
}

TEST(Control, RanksThatMakeDifferentCallsAreToldWhere) {
    const auto gather = [](Control& control) { control.all_gather("x"); };
    const auto numbers = [](Control& control) { control.all_gather("x", Collective::Numbers); };
    const auto finish = [](Control& control) { control.all_gather("", Collective::Finish); };
    const auto broadcast = [](Control& control) { control.broadcast("x"); };
    EXPECT_EQ(error_of_different_calls(1, gather, finish),
              "rank 0 (here): rank 1 (here) is at 'step 3', in the end of its run, where rank 0 (here) is at 'a "
              "checkpoint', in a gather of texts: do all ranks run with the same options?");
    for (const int odd_one : {0, 2}) {
        EXPECT_TRUE(has(error_of_different_calls(odd_one, gather, numbers), {"a gather of numbers"}));
        // Rank 0 waits for nobody in a broadcast, and may be at its next call already.
        EXPECT_TRUE(has(error_of_different_calls(odd_one, gather, broadcast), {"a gather of texts"}));
        EXPECT_TRUE(has(error_of_different_calls(odd_one, broadcast, finish), {"the end of its run"}));
    }
    EXPECT_TRUE(has(error_of_different_calls(2, gather, broadcast), {"a broadcast"}));
    EXPECT_TRUE(has(error_of_different_calls(0, broadcast, finish), {"a broadcast"}));
}

TEST_P(ControlOf, AConnectionThatClosesIsARankThatDied) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(GetParam()), kPatient, [](Control& control) {
        control.doing("step 3");
        control.all_gather("");
        if (control.rank() != 1) control.all_gather("");
    });
    for (size_t rank = 0; rank < endings.size(); ++rank) {
        if (rank == 1) continue;
        EXPECT_TRUE(has(endings[rank].error, {"rank 1 (here) died: its connection closed"}));
        EXPECT_EQ(endings[rank].lines.size(), 1u);
    }
    ASSERT_EQ(errors.lines().size(), 1u);
    EXPECT_TRUE(has(errors.lines()[0], {"rank 1 (here) died"}));
}

TEST_P(ControlOf, IfRank0DiesEveryoneSaysSo) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(GetParam()), kPatient, [](Control& control) {
        control.all_gather("");
        if (control.rank() != 0) control.all_gather("");
    });
    for (size_t rank = 1; rank < endings.size(); ++rank) {
        EXPECT_TRUE(has(endings[rank].error, {"rank 0 (here) died: its connection closed"}));
    }
    EXPECT_EQ(errors.lines().size(), endings.size() - 1);
}

TEST(Control, AFailureWinsOverTheConnectionThatClosesAfterIt) {
    for (int round = 0; round < 20; ++round) {
        const CapturedErrors errors;
        const auto endings = run_ranks(make_meetings(3), kPatient, [](Control& control) {
            if (control.rank() == 2) return control.fail("out of memory");
            control.all_gather("");
        });
        ASSERT_EQ(errors.lines(), std::vector<std::string>{"rank 2 (here): out of memory"});
    }
}

TEST(Control, OfSeveralFailuresOneIsLogged) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(4), kPatient, [](Control& control) {
        control.all_gather("");
        control.fail(fmt::format("cause {}", control.rank()));
    });
    ASSERT_EQ(errors.lines().size(), 1u);
    for (const Ending& ending : endings) {
        for (const std::string& line : ending.lines) EXPECT_EQ(line, errors.lines()[0]);
    }
}

TEST(Control, ARankThatIsWaitedForTooLongIsNamed) {
    const CapturedErrors errors;
    std::promise<void> release;
    const std::shared_future<void> released = release.get_future().share();
    const auto endings = run_ranks(make_meetings(3), 1, [&](Control& control) {
        control.doing(fmt::format("step {}", 10 + control.rank()));
        control.all_gather("");
        if (control.rank() == 2) return released.wait();
        try {
            control.all_gather("");
        } catch (const Error& error) {
            if (control.rank() == 0) release.set_value();
            throw;
        }
    });
    for (const size_t rank : {0, 1}) {
        EXPECT_TRUE(has(endings[rank].error, {"rank 2 (here) has not answered for 1",
                                              " s: it was at step 12; raise "
                                              "--comm-timeout"}));
    }
    EXPECT_EQ(endings[2].lines.size(), 1u);
    EXPECT_EQ(errors.lines().size(), 1u);
}

TEST(Control, ComputingLongerThanTheTimeoutIsNoFault) {
    const auto endings = run_ranks(make_meetings(2), 1, [](Control& control) {
        control.all_gather("");
        std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // It is the time that is tested.
        control.all_gather("");
        control.finish();
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

void await_failure(const Control& control) {
    const double deadline = now_seconds() + kPatient / 4;
    while (control.failure().empty() && now_seconds() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

TEST(Control, LongWorkMayTakeLongerThanTheTimeout) {
    const auto endings = run_ranks(make_meetings(3), 1, [](Control& control) {
        control.all_gather("");
        if (control.rank() == 1) {
            const std::string before = control.begin_long_work("calibration");
            std::this_thread::sleep_for(std::chrono::milliseconds(2500));  // It is the time that is tested.
            control.end_long_work(before);
        }
        for (int round = 0; round < 3; ++round) control.all_gather("");
        control.finish();
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

TEST(Control, WaitingInsideLongWorkIsNoWork) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(2), 1, [](Control& control) {
        control.begin_long_work("planning");
        if (control.rank() == 0) control.all_gather("");
        // Both wait, and neither for the other.
        const Control::Waiting waiting(control);
        await_failure(control);
    });
    ASSERT_EQ(errors.lines().size(), 1u);
    EXPECT_TRUE(has(errors.lines()[0], {"have waited for one another", "at planning"}));
}

TEST(Control, OnlyWhatIsSeenToBeWaitedForIsWaitedFor) {
    constexpr double kTimeout = 2;
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(2), kTimeout, [](Control& control) {
        control.doing(fmt::format("step {}", control.rank()));
        {
            Control::Watching watching(control);
            const double begin = now_seconds();
            for (double part = 0; part < 1.8; part = (now_seconds() - begin) / kTimeout) {
                // None of them is waited for too long.
                watching.see(part < 0.4   ? std::optional(7)
                             : part < 0.6 ? std::nullopt
                                          : std::optional(part < 1.2 ? 8 : 9));
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            EXPECT_EQ(control.failure(), "");
        }
        control.all_gather("");
        Control::Watching watching(control);
        if (control.rank() == 0) watching.see(10);
        await_failure(control);
    });
    EXPECT_EQ(errors.lines().size(), 1u);
    for (const Ending& ending : endings) {
        ASSERT_EQ(ending.lines.size(), 1u);
        EXPECT_TRUE(has(ending.lines[0], {"rank 1 (here) has not answered for 2", "it was at step 1"}));
    }
}

TEST(Control, FinishWaitsForAllAndThenConnectionsMayClose) {
    std::atomic<int> come = 0;
    const auto endings = run_ranks(make_meetings(5), kPatient, [&](Control& control) {
        ++come;
        control.finish();
        EXPECT_EQ(come, 5);
        EXPECT_EQ(control.failure(), "");
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

TEST(Control, ARankThatLeavesWithoutFinishHasDied) {
    const CapturedErrors errors;
    const auto endings = run_ranks(make_meetings(3), kPatient, [](Control& control) {
        control.all_gather("");
        if (control.rank() != 1) control.finish();
    });
    EXPECT_TRUE(has(endings[0].error, {"rank 1 (here) died"}));
    EXPECT_TRUE(has(endings[2].error, {"rank 1 (here) died"}));
}

TEST(Control, FailAfterTheEndReturns) {
    const CapturedErrors errors;
    run_ranks(make_meetings(2), kPatient, [](Control& control) {
        control.finish();
        if (control.rank() == 1) control.fail("too late");
    });
    EXPECT_EQ(errors.lines(), std::vector<std::string>{"rank 1 (here): too late"});
}

TEST(Control, MembersHaveTheirNames) {
    const auto endings = run_ranks(make_meetings(3, {"a", "b", "c"}), kPatient, [](Control& control) {
        EXPECT_EQ(control.name_of(0), "rank 0 (a)");
        EXPECT_EQ(control.name_of(2), "rank 2 (c)");
        EXPECT_EQ(control.member(1).address, "127.0.0.1");
        control.finish();
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

}  // namespace
}  // namespace llmc
