#include "llmc/backend/make_backend.h"
#include "llmc/comm/comm.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <bit>
#include <cmath>
#include <numeric>

namespace llmc {
namespace {

using Values = std::vector<float>;

/// Every rank with its own Comm and CPU backend; one rank too.
template <typename Body>
void run_comms(int size, Body body, const std::vector<std::string>& hosts = {}) {
    if (size == 1) {
        Comm comm;
        body(comm);
        return comm.finish();
    }
    std::vector<Meeting> meetings = make_meetings(size, hosts);
    std::vector<std::thread> threads;
    for (Meeting& meeting : meetings) {
        threads.emplace_back([&] {
            const auto end = [](const std::string& line) { ADD_FAILURE() << line; };
            try {
                Comm comm(std::make_unique<Control>(std::move(meeting), kPatient, end));
                body(comm);
                comm.finish();
            } catch (const Error& error) {
                ADD_FAILURE() << error.what();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
}

/// Numbers whose sum depends on the order: of all magnitudes and both signs.
float leaf_value(int leaf, size_t i) {
    const uint32_t bits = (static_cast<uint32_t>(leaf) * 2654435761u + static_cast<uint32_t>(i) * 40503u) ^ 0x9e3779b9u;
    const auto mantissa = static_cast<float>(bits % 100003) / 777.0f;
    return std::ldexp(bits & 0x10000 ? mantissa : -mantissa, static_cast<int>(bits >> 20 & 15));
}

Values leaf(int index, size_t count) {
    Values values(count);
    for (size_t i = 0; i < count; ++i) values[i] = leaf_value(index, i);
    return values;
}

/// The sum of leaves [first, first + leaves): neighbours are added, then neighbours of the sums.
Values tree_sum(int first, int leaves, size_t count) {
    std::vector<Values> sums;
    for (int i = 0; i < leaves; ++i) sums.push_back(leaf(first + i, count));
    while (sums.size() > 1) {
        std::vector<Values> above;
        for (size_t i = 0; i < sums.size(); i += 2) {
            if (i + 1 < sums.size())
                std::transform(sums[i].begin(), sums[i].end(), sums[i + 1].begin(), sums[i].begin(), std::plus<>());
            above.push_back(sums[i]);
        }
        sums = above;
    }
    return sums[0];
}

bool same_bits(const Values& a, const Values& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
               return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
           });
}

/// Every piece becomes the sum over ranks.
void all_reduce(Comm& comm, Tensor bucket, Tensor workspace) {
    comm.wait(comm.begin_reduce_scatter(bucket, workspace));
    comm.wait(comm.begin_all_gather(bucket));
}

Tensor view(Values& values) { return {DType::F32, values.data(), static_cast<int64_t>(values.size())}; }

Values workspace_for(const Comm& comm, size_t piece) { return Values(static_cast<size_t>(comm.size() - 1) * piece); }

Values piece_of(const Values& values, int rank, size_t piece) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(piece) * rank;
    return {begin, begin + static_cast<std::ptrdiff_t>(piece)};
}

class CommOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, CommOf, testing::Values(1, 2, 3, 4, 5));

TEST(Comm, TheOrderOfTheTestsSumsMatters) {
    for (const int leaves : {3, 4, 5}) {
        Values from_the_right(100, 0.0f);
        for (int i = leaves; i-- > 0;) {
            const Values next = leaf(i, 100);
            for (size_t j = 0; j < next.size(); ++j) from_the_right[j] += next[j];
        }
        EXPECT_FALSE(same_bits(tree_sum(0, leaves, 100), from_the_right)) << leaves;
    }
}

TEST_P(CommOf, ReduceScatterGivesTheTreesBits) {
    run_comms(GetParam(), [](Comm& comm) {
        const auto backend = make_backend("cpu", 1);
        comm.open_transport(*backend, true);
        for (const size_t piece : {1u, 0u, 5u, 100000u}) {
            const size_t count = piece * static_cast<size_t>(comm.size());
            Values bucket = leaf(comm.rank(), count), workspace = workspace_for(comm, piece);
            comm.wait(comm.begin_reduce_scatter(view(bucket), view(workspace)));
            const Values sum = tree_sum(0, comm.size(), count);
            EXPECT_TRUE(same_bits(piece_of(bucket, comm.rank(), piece), piece_of(sum, comm.rank(), piece))) << piece;
        }
        comm.close_transport();
    });
}

TEST_P(CommOf, AllReduceGivesTheTreesBitsOnAllRanks) {
    run_comms(GetParam(), [](Comm& comm) {
        const auto backend = make_backend("cpu", 1);
        comm.open_transport(*backend, false);
        for (const size_t piece : {1u, 0u, 5u, 100000u}) {
            const size_t count = piece * static_cast<size_t>(comm.size());
            Values bucket = leaf(comm.rank(), count), workspace = workspace_for(comm, piece);
            all_reduce(comm, view(bucket), view(workspace));
            EXPECT_TRUE(same_bits(bucket, tree_sum(0, comm.size(), count))) << piece;
        }
        comm.close_transport();
    });
}

TEST(Comm, OneTreeOfLeavesStandsForAnyNumberOfRanks) {
    constexpr int kLeaves = 4;
    constexpr size_t kCount = 240;
    for (const int ranks : {1, 2, 4}) {
        run_comms(ranks, [&](Comm& comm) {
            const auto backend = make_backend("cpu", 1);
            comm.open_transport(*backend, true);
            const int own = kLeaves / comm.size();
            Values bucket = tree_sum(comm.rank() * own, own, kCount);
            Values workspace = workspace_for(comm, kCount / static_cast<size_t>(comm.size()));
            all_reduce(comm, view(bucket), view(workspace));
            EXPECT_TRUE(same_bits(bucket, tree_sum(0, kLeaves, kCount))) << ranks;
            comm.close_transport();
        });
    }
}

TEST_P(CommOf, AllGatherBringsPiecesOfAnyType) {
    run_comms(GetParam(), [](Comm& comm) {
        const auto backend = make_backend("cpu", 1);
        comm.open_transport(*backend, false);
        constexpr size_t kPiece = 1001;
        std::vector<uint16_t> bucket(kPiece * static_cast<size_t>(comm.size()));
        const size_t first = kPiece * static_cast<size_t>(comm.rank());
        for (size_t i = first; i < first + kPiece; ++i) bucket[i] = static_cast<uint16_t>(i * 7);
        comm.wait(comm.begin_all_gather({DType::BF16, bucket.data(), static_cast<int64_t>(bucket.size())}));
        for (size_t i = 0; i < bucket.size(); ++i) ASSERT_EQ(bucket[i], static_cast<uint16_t>(i * 7));
        comm.close_transport();
    });
}

TEST_P(CommOf, ManyOperationsOfAllKindsMayBeUnderWay) {
    run_comms(GetParam(), [](Comm& comm) {
        const auto backend = make_backend("cpu", 1);
        comm.open_transport(*backend, true);
        constexpr int kOperations = 12;
        constexpr size_t kPiece = 3000;
        const size_t count = kPiece * static_cast<size_t>(comm.size());
        std::vector<Values> buckets, workspaces;
        std::vector<CommTicket> tickets;
        for (int i = 0; i < kOperations; ++i) {
            // The bucket of a gather has all its pieces from the same leaf, one on each rank.
            buckets.push_back(leaf(i % 4 == 3 ? i : i * 10 + comm.rank(), count));
            workspaces.push_back(workspace_for(comm, kPiece));
        }
        for (int i = 0; i < kOperations; ++i) {
            const Tensor bucket = view(buckets[static_cast<size_t>(i)]);
            const Tensor workspace = view(workspaces[static_cast<size_t>(i)]);
            if (i % 4 == 3) {
                Values& values = buckets[static_cast<size_t>(i)];
                for (size_t j = 0; j < count; ++j)
                    values[j] = j / kPiece == static_cast<size_t>(comm.rank()) ? values[j] : 0;
                tickets.push_back(comm.begin_all_gather(bucket));
            } else {
                tickets.push_back(comm.begin_reduce_scatter(bucket, workspace));
            }
            comm.progress();
        }
        for (int i = 0; i < kOperations; ++i) {
            comm.wait(tickets[static_cast<size_t>(i)]);
            comm.progress();
            comm.synchronize();
            const Values& bucket = buckets[static_cast<size_t>(i)];
            const Values sum = i % 4 == 3 ? leaf(i, count) : tree_sum(i * 10, comm.size(), count);
            const bool whole = i % 4 == 3;
            EXPECT_TRUE(whole ? same_bits(bucket, sum)
                              : same_bits(piece_of(bucket, comm.rank(), kPiece), piece_of(sum, comm.rank(), kPiece)))
                << i;
        }
        comm.close_transport();
    });
}

TEST_P(CommOf, ControlBringsValuesOfTheHost) {
    run_comms(GetParam(), [](Comm& comm) {
        const std::vector<double> values = comm.all_gather(comm.rank() + 0.1);
        const std::vector<std::string> texts = comm.all_gather(std::to_string(comm.rank()));
        ASSERT_EQ(values.size(), static_cast<size_t>(comm.size()));
        for (int rank = 0; rank < comm.size(); ++rank) {
            EXPECT_EQ(values[static_cast<size_t>(rank)], rank + 0.1);
            EXPECT_EQ(texts[static_cast<size_t>(rank)], std::to_string(rank));
        }
        EXPECT_EQ(comm.broadcast(comm.is_root() ? "of rank 0" : "mine"), "of rank 0");
        comm.barrier();
    });
}

TEST(Comm, RanksAreCountedByHost) {
    const std::vector<std::string> hosts = {"red", "blue", "red", "red"};
    run_comms(
        4,
        [&](Comm& comm) {
            constexpr std::array<int, 4> kLocalRanks = {0, 0, 1, 2};
            EXPECT_EQ(comm.host(), hosts[static_cast<size_t>(comm.rank())]);
            EXPECT_EQ(comm.local_rank(), kLocalRanks[static_cast<size_t>(comm.rank())]);
            EXPECT_EQ(comm.local_size(), comm.host() == "red" ? 3 : 1);
            EXPECT_EQ(comm.describe(), "4 ranks on 2 hosts");
            const auto backend = make_backend("cpu", 1);
            comm.open_transport(*backend, false);
            EXPECT_EQ(comm.describe(), "4 ranks on 2 hosts, TCP");
            comm.close_transport();
        },
        hosts);
}

TEST(Comm, OneRankIsAlone) {
    Comm comm(CommSettings{"none", 1});
    EXPECT_EQ(comm.size(), 1);
    EXPECT_TRUE(comm.is_root());
    EXPECT_EQ(comm.local_size(), 1);
    EXPECT_NE(comm.host(), "");
    EXPECT_EQ(comm.describe(), "1 rank");
    comm.fail("nobody hears it");
    comm.synchronize();
    const Comm::LongWork work = comm.busy("planning");
    comm.finish();
}

/// Runs body(comm) on every rank, with faults; a rank whose body throws says why to the others.
template <typename Body>
std::vector<Ending> run_faulty_comms(int size, double timeout_seconds, Body body) {
    std::vector<Meeting> meetings = make_meetings(size);
    std::vector<Ending> endings(meetings.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < meetings.size(); ++rank) {
        threads.emplace_back([&, rank] {
            Ending& ending = endings[rank];
            const auto end = [&ending](const std::string& line) { ending.lines.push_back(line); };
            Comm comm(std::make_unique<Control>(std::move(meetings[rank]), timeout_seconds, end));
            try {
                body(comm);
            } catch (const Error& error) {
                ending.error = error.what();
                ending.exit_code = error.exit_code();
                comm.fail(error.what(), error.exit_code());
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    return endings;
}

TEST(Comm, ARankThatFreesItsMemoryBeforeItTellsWhyIsStillTheCause) {
    const CapturedErrors errors;
    const auto endings = run_faulty_comms(3, kPatient, [](Comm& comm) {
        const auto backend = make_backend("cpu", 1);
        comm.open_transport(*backend, true);
        comm.barrier();
        if (comm.rank() == 2) {
            comm.close_transport();
            std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // It is the time that is tested.
            fail_usage("--data: not enough");
        }
        Values bucket = leaf(comm.rank(), 30), workspace = workspace_for(comm, 10);
        all_reduce(comm, view(bucket), view(workspace));
    });
    const std::string line = "rank 2 (here): --data: not enough";
    EXPECT_EQ(errors.lines(), std::vector<std::string>{line});
    for (const size_t rank : {0, 1}) EXPECT_EQ(endings[rank].error, line);
    for (const Ending& ending : endings) EXPECT_EQ(ending.exit_code, kExitBadUsage);
}

TEST(Comm, ALostConnectionIsTheCauseWhereNoOtherComes) {
    constexpr double kTimeout = 3;  // Half of which is waited for another cause.
    const CapturedErrors errors;
    const auto endings = run_faulty_comms(3, kTimeout, [](Comm& comm) {
        const auto backend = make_backend("cpu", 1);
        comm.open_transport(*backend, true);
        comm.barrier();
        if (comm.rank() == 2) {
            comm.close_transport();
            comm.barrier();  // Alive: the end comes here.
        }
        Values bucket = leaf(comm.rank(), 30), workspace = workspace_for(comm, 10);
        all_reduce(comm, view(bucket), view(workspace));
    });
    ASSERT_EQ(errors.lines().size(), 1u);
    EXPECT_TRUE(has(errors.lines()[0], {"the data connection to rank ", "was lost"}));
    EXPECT_TRUE(has(endings[2].error, {"the data connection to rank ", "was lost"}));
}

TEST(Comm, LongWorkIsWaitedFor) {
    const auto endings = run_faulty_comms(2, 1, [](Comm& comm) {
        if (comm.rank() == 1) {
            const Comm::LongWork work = comm.busy("opening data");
            std::this_thread::sleep_for(std::chrono::milliseconds(2500));  // It is the time that is tested.
        }
        EXPECT_EQ(comm.all_gather(1.0).size(), 2u);
        comm.finish();
    });
    for (const Ending& ending : endings) EXPECT_EQ(ending.error, "");
}

TEST(Comm, WhatARankDidBeforeItsLongWorkComesBack) {
    const CapturedErrors errors;
    run_faulty_comms(2, 1, [](Comm& comm) {
        comm.doing("step 12");
        { const Comm::LongWork work = comm.busy("a checkpoint"); }
        if (comm.rank() == 0) return comm.barrier();
        std::this_thread::sleep_for(std::chrono::milliseconds(2500));  // Neither at work nor in a call.
        comm.barrier();
    });
    ASSERT_EQ(errors.lines().size(), 1u);
    EXPECT_TRUE(has(errors.lines()[0], {"rank 1 (here) has not answered for 1", "it was at step 12;"}));
}

TEST(Comm, ABarrierIsNoGather) {
    const CapturedErrors errors;
    run_faulty_comms(2, kPatient,
                     [](Comm& comm) { comm.rank() == 1 ? comm.finish() : static_cast<void>(comm.all_gather(0.0)); });
    ASSERT_EQ(errors.lines().size(), 1u);
    EXPECT_TRUE(has(errors.lines()[0], {"the end of its run", "a gather of numbers", "the same options"}));
}

}  // namespace
}  // namespace llmc
