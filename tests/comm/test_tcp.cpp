#include "llmc/comm/tcp.h"
#include "tests/comm/comm_testing.h"
#include "tests/io/temp_dir.h"

#include <numeric>

namespace llmc {
namespace {

/// The number that rank `from` has for rank `to` at `index`.
int32_t number(int from, int to, int64_t index) { return static_cast<int32_t>(from * 1000003 + to * 10007 + index); }

/// A bucket of int32 pieces, and room for what is exchanged.
struct Exchange {
    Exchange(int rank, int size, int64_t piece) : rank(rank), size(size), piece(piece) {
        for (int to = 0; to < size; ++to) {
            for (int64_t i = 0; i < piece; ++i) bucket.push_back(number(rank, to, i));
        }
        received.resize(static_cast<size_t>((size - 1) * piece) + 1, -1);
    }
    int begin(Transport& transport) {
        return transport.begin_exchange(received.data(), bucket.data(), piece * static_cast<int64_t>(sizeof(int32_t)));
    }
    void check() const {
        for (int from = 0; from < size; ++from) {
            if (from == rank) continue;
            const int64_t slot = from < rank ? from : from - 1;
            for (int64_t i = 0; i < piece; ++i) {
                ASSERT_EQ(received[static_cast<size_t>(slot * piece + i)], number(from, rank, i)) << from << " " << i;
            }
        }
        EXPECT_EQ(received.back(), -1);  // Nothing beyond its end.
    }
    int rank, size;
    int64_t piece;
    std::vector<int32_t> bucket, received;
};

class TcpOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, TcpOf, testing::Values(2, 3, 4, 5));

TEST_P(TcpOf, ExchangesPiecesOfAnyLength) {
    run_ranks(GetParam(), [](Control& control) {
        const auto transport = make_tcp_transport(control);
        for (const int64_t piece : {1, 0, 7, 4096, 1000003}) {
            Exchange exchange(control.rank(), control.size(), piece);
            transport->wait(exchange.begin(*transport));
            exchange.check();
        }
    });
}

TEST_P(TcpOf, GathersPiecesOfAnyLength) {
    run_ranks(GetParam(), [](Control& control) {
        const auto transport = make_tcp_transport(control);
        for (const size_t piece : {2u, 0u, 3u, 2000002u}) {  // Bytes: of bf16, or odd.
            std::vector<char> bucket(piece * static_cast<size_t>(control.size()));
            const auto byte = [](int rank, size_t i) {
                return static_cast<char>(rank * 31 + static_cast<int>(i % 97));
            };
            const size_t own = piece * static_cast<size_t>(control.rank());
            for (size_t i = 0; i < piece; ++i) bucket[own + i] = byte(control.rank(), i);
            transport->wait(transport->begin_all_gather(bucket.data(), static_cast<int64_t>(piece)));
            for (int rank = 0; rank < control.size(); ++rank) {
                for (size_t i = 0; i < piece; ++i) {
                    ASSERT_EQ(bucket[static_cast<size_t>(rank) * piece + i], byte(rank, i)) << rank << " " << i;
                }
            }
        }
    });
}

TEST_P(TcpOf, ManyOperationsMayBeUnderWay) {
    run_ranks(GetParam(), [](Control& control) {
        const auto transport = make_tcp_transport(control);
        std::vector<Exchange> exchanges;
        for (int i = 0; i < 30; ++i) exchanges.emplace_back(control.rank(), control.size(), i % 3 == 0 ? 100000 : i);
        std::vector<int> operations;
        for (Exchange& exchange : exchanges) operations.push_back(exchange.begin(*transport));
        for (size_t i = operations.size(); i-- > 0;) {  // The last one first.
            while (i % 2 == 0 && !transport->test(operations[i])) std::this_thread::yield();
            transport->wait(operations[i]);
            exchanges[i].check();
        }
    });
}

TEST_P(TcpOf, ARankMayBeginMuchLater) {
    run_ranks(GetParam(), [](Control& control) {
        const auto transport = make_tcp_transport(control);
        Exchange first(control.rank(), control.size(), 500000), second(control.rank(), control.size(), 3);
        const bool late = control.rank() == 0;
        if (late) control.all_gather("");
        const int a = first.begin(*transport), b = second.begin(*transport);
        if (!late) {
            EXPECT_FALSE(transport->test(a));
            control.all_gather("");
        }
        transport->wait(a);
        transport->wait(b);
        first.check();
        second.check();
    });
}

TEST(Tcp, ALostConnectionIsNamed) {
    run_ranks(3, [](Control& control) {
        auto transport = make_tcp_transport(control);
        control.all_gather("");
        if (control.rank() == 2) {
            transport.reset();
        } else {
            Exchange exchange(control.rank(), control.size(), 10);
            const int operation = exchange.begin(*transport);
            const std::string error = error_of([&] { transport->wait(operation); });
            EXPECT_TRUE(has(error, {"the data connection to rank 2 (here) was lost"}));
        }
        control.all_gather("");
    });
}

TEST(Tcp, PiecesOfDifferentLengthAreNoticed) {
    run_ranks(2, [](Control& control) {
        const auto transport = make_tcp_transport(control);
        Exchange exchange(control.rank(), control.size(), 10 + control.rank());
        const int operation = exchange.begin(*transport);
        const std::string error = error_of([&] { transport->wait(operation); });
        EXPECT_TRUE(has(error, {control.rank() == 0 ? "44 bytes" : "40 bytes", "the same options"}));
        control.all_gather("");
    });
}

}  // namespace
}  // namespace llmc
