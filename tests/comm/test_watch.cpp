#include "llmc/comm/watch.h"
#include "tests/io/temp_dir.h"

#include <gtest/gtest.h>

namespace llmc {
namespace {

constexpr double kNow = 1000, kTimeout = 30;

/// Ranks that were heard just now, outside of calls, having made ten.
std::vector<RankReport> healthy(int size) {
    std::vector<RankReport> reports(static_cast<size_t>(size));
    for (RankReport& report : reports) {
        report.last_heard = kNow;
        report.position = 20;
        report.doing = "step 12";
    }
    return reports;
}

void let_wait(RankReport* report, double seconds) {
    report->waiting_seconds = seconds;
    report->position = 21;
}

TEST(Watch, ComputingMayTakeItsTime) { EXPECT_FALSE(judge(healthy(4), kNow, kTimeout)); }

TEST(Watch, WaitingIsNoFaultBeforeTheTimeout) {
    auto reports = healthy(3);
    let_wait(&reports[0], kTimeout);
    EXPECT_FALSE(judge(reports, kNow, kTimeout));
}

TEST(Watch, TheRankFurthestBehindIsAtFault) {
    auto reports = healthy(4);
    for (const size_t rank : {0, 1, 3}) let_wait(&reports[rank], 31);
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 2);
    EXPECT_EQ(verdict->what, " has not answered for 31 s: it was at step 12; raise --comm-timeout if it is only slow");
}

TEST(Watch, SeveralLateRanksAreNamed) {
    auto reports = healthy(4);
    for (const size_t rank : {0, 3}) let_wait(&reports[rank], 31);
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 1);
    EXPECT_TRUE(has(verdict->what, {"(nor has rank 2)"}));
}

TEST(Watch, ASilentRankIsAtFaultEvenIfNobodyWaits) {
    auto reports = healthy(3);
    reports[1].last_heard = kNow - 31;
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 1);
}

TEST(Watch, AProcessStoppedInsideACallIsFoundAmongThoseThatWait) {
    auto reports = healthy(3);
    for (RankReport& report : reports) let_wait(&report, 31);
    reports[1].last_heard = kNow - 20;
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 1);
}

TEST(Watch, IfAllWaitForOneAnotherItIsTheNetwork) {
    auto reports = healthy(3);
    for (RankReport& report : reports) let_wait(&report, 31);
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_TRUE(has(verdict->what, {"all other ranks", "the network"}));
}

TEST(Watch, TheyWaitTogetherSinceTheLastOneCame) {
    auto reports = healthy(3);
    for (RankReport& report : reports) let_wait(&report, 1000);
    let_wait(&reports[2], 30);
    EXPECT_FALSE(judge(reports, kNow, kTimeout));
    let_wait(&reports[2], 31);
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_TRUE(has(verdict->what, {"for 31 s", "the network"}));
}

TEST(Watch, LongWorkIsNoFaultUnlessItsRankIsSilent) {
    auto reports = healthy(4);
    for (const size_t rank : {0, 1, 3}) let_wait(&reports[rank], 1000);
    EXPECT_FALSE(waits_for_long_work(reports));
    reports[2].busy = true;
    EXPECT_TRUE(waits_for_long_work(reports));
    EXPECT_FALSE(judge(reports, kNow, kTimeout));
    reports[2].last_heard = kNow - 20;
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 2);
}

TEST(Watch, LongWorkOfOneRankIsNoExcuseForAnother) {
    auto reports = healthy(4);
    for (const size_t rank : {0, 3}) let_wait(&reports[rank], 31);
    reports[1].busy = true;
    EXPECT_FALSE(waits_for_long_work(reports));
    auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 2);
    reports[1].position = 22;  // Busy with what comes later.
    verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 2);
}

TEST(Watch, WaitingForLongWorkDoesNotCountAfterwards) {
    auto reports = healthy(3);
    for (const size_t rank : {0, 1}) let_wait(&reports[rank], 1000);
    EXPECT_FALSE(judge(reports, kNow, kTimeout, kNow - 30));
    const auto verdict = judge(reports, kNow, kTimeout, kNow - 31);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 2);
    EXPECT_TRUE(has(verdict->what, {"for 31 s"}));
}

TEST(Watch, WhoHasFinishedMayBeSilentAndIsNotBehind) {
    auto reports = healthy(3);
    reports[2].finished = true;
    reports[2].last_heard = kNow - 100;
    EXPECT_FALSE(judge(reports, kNow, kTimeout));
    reports[2].position = 2;
    let_wait(&reports[0], 31);
    const auto verdict = judge(reports, kNow, kTimeout);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(verdict->rank, 1);
}

}  // namespace
}  // namespace llmc
