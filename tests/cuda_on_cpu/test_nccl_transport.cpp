// The NCCL transport over the stand-in for NCCL: ranks as threads, each with a device and a CUDA backend of its own.
// What kernels write before an operation is what is sent, and what they read after its wait is what has come.
#if __has_include(<nccl.h>)
#include "llmc/comm/nccl.h"

#include "dev/cuda_on_cpu/control.h"
#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/base/error.h"
#include "llmc/comm/comm.h"
#include "tests/comm/comm_testing.h"
#include "tests/cuda_on_cpu/seeds.h"
#include "tests/io/temp_dir.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <vector>

namespace llmc::cuda {
namespace {

using Floats = std::vector<float>;

/// A tensor on a rank's device.
class OnRank {
  public:
    OnRank(Backend& backend, const Floats& values) : OnRank(backend, static_cast<int64_t>(values.size())) {
        backend_.copy_to_device(tensor_, values.data());
    }
    OnRank(Backend& backend, int64_t count)
        : backend_(backend),
          tensor_(DType::F32, backend.allocate(std::max<int64_t>(count * 4, 1), "a test's tensor"), count) {}
    ~OnRank() { backend_.release(tensor_.data); }
    OnRank(const OnRank&) = delete;
    OnRank& operator=(const OnRank&) = delete;

    operator Tensor() const { return tensor_; }
    Tensor piece(int64_t index, int64_t size) const { return tensor_.row_range(index * size, size); }
    void* data() const { return tensor_.data; }
    Floats values() const {
        Floats values(static_cast<size_t>(tensor_.count()));
        if (!values.empty()) backend_.copy_to_host(values.data(), tensor_);
        return values;
    }

  private:
    Backend& backend_;
    Tensor tensor_;
};

struct Rank {
    int rank, size;
    CudaBackend& backend;
    Transport& transport;
};

void pretend_devices(int count) {
    cuda_on_cpu::set_machine({.devices = std::vector<cuda_on_cpu::Device>(static_cast<size_t>(count))});
}

/// body(rank) on a thread for each of 2, 3 and 4 ranks, under several schedules.
void on_ranks(const std::function<void(const Rank&)>& body) {
    for (const int size : {2, 3, 4})
        for_each_seed([&] {
            SCOPED_TRACE(testing::Message() << size << " ranks");
            pretend_devices(size);
            const std::string id = make_nccl_id();
            std::vector<std::thread> threads;
            for (int rank = 0; rank < size; ++rank)
                threads.emplace_back([&, rank] {
                    try {
                        CudaBackend backend(rank);
                        const std::unique_ptr<Transport> transport = make_nccl_transport(id, rank, size, backend);
                        body({rank, size, backend, *transport});
                    } catch (const std::exception& error) {
                        ADD_FAILURE() << "rank " << rank << ": " << error.what();
                    }
                });
            for (std::thread& thread : threads) thread.join();
        });
}

/// Element i of what a rank contributes; sums of these are exact.
float value(int rank, int64_t i) { return static_cast<float>((rank + 1) * 1000 + i % 997) / 8; }

Floats values_of(int rank, int64_t count) {
    Floats values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = value(rank, i);
    return values;
}

/// The rank's bucket as a kernel leaves it, not yet done when this returns.
void make_with_kernel(const Rank& at, const OnRank& bucket, const OnRank& addend) {
    at.backend.zero(bucket);
    at.backend.add(bucket, addend);
}

constexpr int64_t kPieces[] = {1, 37, 1024};

TEST(NcclTransport, ReduceScatterBetweenKernels) {
    on_ranks([](const Rank& at) {
        for (const int64_t piece : kPieces) {
            const OnRank bucket(at.backend, at.size * piece), addend(at.backend, values_of(at.rank, at.size * piece));
            const OnRank result(at.backend, Floats(static_cast<size_t>(piece), 0.5f));
            make_with_kernel(at, bucket, addend);
            at.transport.wait(at.transport.begin_reduce_scatter(bucket));
            at.backend.add(result, bucket.piece(at.rank, piece));
            const Floats sums = result.values();
            for (int64_t i = 0; i < piece; ++i) {
                float sum = 0.5f;
                for (int rank = 0; rank < at.size; ++rank) sum += value(rank, at.rank * piece + i);
                ASSERT_EQ(sums[static_cast<size_t>(i)], sum) << i;
            }
        }
    });
}

TEST(NcclTransport, AllGatherBetweenKernels) {
    on_ranks([](const Rank& at) {
        for (const int64_t piece : kPieces) {
            const OnRank bucket(at.backend, Floats(static_cast<size_t>(at.size * piece), -1.0f));
            const OnRank own(at.backend, values_of(at.rank, piece)), result(at.backend, at.size * piece);
            at.backend.convert(bucket.piece(at.rank, piece), own);
            at.transport.wait(at.transport.begin_all_gather(bucket.data(), piece * 4));
            at.backend.convert(result, bucket);
            const Floats gathered = result.values();
            for (int64_t i = 0; i < at.size * piece; ++i)
                ASSERT_EQ(gathered[static_cast<size_t>(i)], value(static_cast<int>(i / piece), i % piece)) << i;
        }
    });
}

TEST(NcclTransport, ExchangeAndATreeOfSums) {
    on_ranks([](const Rank& at) {
        for (const int64_t piece : kPieces) {
            const OnRank bucket(at.backend, at.size * piece), addend(at.backend, values_of(at.rank, at.size * piece));
            const OnRank received(at.backend, (at.size - 1) * piece);
            make_with_kernel(at, bucket, addend);
            at.transport.wait(at.transport.begin_exchange(received.data(), bucket.data(), piece * 4));
            // Part r is rank r's: the own one in the bucket, the others as received.
            const auto part = [&](int rank) {
                if (rank == at.rank) return bucket.piece(rank, piece);
                return received.piece(rank < at.rank ? rank : rank - 1, piece);
            };
            for (int stride = 1; stride < at.size; stride *= 2)
                for (int rank = 0; rank + stride < at.size; rank += 2 * stride)
                    at.backend.add(part(rank), part(rank + stride));
            Floats sums(static_cast<size_t>(piece));
            at.backend.copy_to_host(sums.data(), part(0));
            for (int64_t i = 0; i < piece; ++i) {
                float sum = 0;
                for (int rank = 0; rank < at.size; ++rank) sum += value(rank, at.rank * piece + i);
                ASSERT_EQ(sums[static_cast<size_t>(i)], sum) << i;
            }
        }
    });
}

TEST(NcclTransport, SeveralAtOnceAndNothingAtAll) {
    on_ranks([](const Rank& at) {
        constexpr int64_t kPiece = 64;
        const OnRank first(at.backend, values_of(at.rank, at.size * kPiece));
        const OnRank second(at.backend, values_of(at.rank + 1, at.size * kPiece));
        const OnRank received(at.backend, (at.size - 1) * kPiece), empty(at.backend, 0);
        for (int repeat = 0; repeat < 2; ++repeat) {
            const int nothing = at.transport.begin_all_gather(empty.data(), 0);
            const int gathered = at.transport.begin_all_gather(first.data(), kPiece * 4);
            const int exchanged = at.transport.begin_exchange(received.data(), second.data(), kPiece * 4);
            const int no_exchange = at.transport.begin_exchange(empty.data(), empty.data(), 0);
            const int no_sum = at.transport.begin_reduce_scatter(empty);
            for (const int operation : {nothing, gathered, exchanged, no_exchange, no_sum}) {
                EXPECT_TRUE(at.transport.test(operation));
                at.transport.wait(operation);
            }
            const Floats all = first.values(), others = received.values();
            for (int rank = 0; rank < at.size; ++rank) {
                EXPECT_EQ(all[static_cast<size_t>(rank * kPiece)], value(rank, rank * kPiece));
                if (rank == at.rank) continue;
                const int slot = rank < at.rank ? rank : rank - 1;
                EXPECT_EQ(others[static_cast<size_t>(slot * kPiece)], value(rank + 1, at.rank * kPiece));
            }
            EXPECT_EQ(second.values(), values_of(at.rank + 1, at.size * kPiece)) << "an exchange leaves its bucket";
        }
    });
}

TEST(NcclTransport, PartOfARecording) {
    on_ranks([](const Rank& at) {
        constexpr int64_t kPiece = 40;
        const OnRank bucket(at.backend, at.size * kPiece), one(at.backend, values_of(at.rank, at.size * kPiece));
        const OnRank total(at.backend, Floats(static_cast<size_t>(at.size * kPiece), 0.0f));
        const int key = 0;
        for (int repeat = 0; repeat < 3; ++repeat)
            at.backend.repeat(&key, [&] {
                make_with_kernel(at, bucket, one);
                at.transport.wait(at.transport.begin_reduce_scatter(bucket));
                at.transport.wait(at.transport.begin_all_gather(bucket.data(), kPiece * 4));
                at.backend.add(total, bucket);
            });
        const Floats sums = total.values();
        for (int64_t i = 0; i < at.size * kPiece; ++i) {
            float sum = 0;
            for (int rank = 0; rank < at.size; ++rank) sum += 3 * value(rank, i);
            ASSERT_EQ(sums[static_cast<size_t>(i)], sum) << i;
        }
        at.backend.forget(&key);
    });
}

/// Two ranks on this thread, so that a seed gives one schedule: in how many of 20 is what rank 0 reads not what came?
int wrong_results(bool wait) {
    pretend_devices(2);
    int wrong = 0;
    for (uint64_t seed = 2; seed < 22; ++seed) {
        cuda_on_cpu::set_seed(seed);
        const std::string id = make_nccl_id();
        CudaBackend first(0), second(1);
        const auto left = make_nccl_transport(id, 0, 2, first), right = make_nccl_transport(id, 1, 2, second);
        const OnRank here(first, {1, -1}), there(second, {-1, 2}), result(first, 2);
        first.synchronize();
        second.synchronize();
        const int at_left = left->begin_all_gather(here.data(), 4), at_right = right->begin_all_gather(there.data(), 4);
        if (wait) left->wait(at_left);
        right->wait(at_right);
        first.convert(result, here);
        wrong += result.values() != Floats{1, 2};
        second.synchronize();
    }
    return wrong;
}

TEST(NcclTransport, ReadingBeforeTheWaitIsWrong) {
    EXPECT_EQ(wrong_results(true), 0);
    EXPECT_GE(wrong_results(false), 5);
}

/// Looks until something is outstanding otherwise than `stage`, or so often; what it is then.
Outstanding look(Transport& transport, Outstanding::Stage stage) {
    Outstanding outstanding = transport.outstanding();
    for (int i = 0; i < 10000 && outstanding.stage == stage; ++i) outstanding = transport.outstanding();
    return outstanding;
}

TEST(NcclTransport, TellsComputingFromWaitingForOtherRanks) {
    using enum Outstanding::Stage;
    pretend_devices(2);
    for_each_seed([] {
        const std::string id = make_nccl_id();
        CudaBackend first(0), second(1);
        const auto left = make_nccl_transport(id, 0, 2, first), right = make_nccl_transport(id, 1, 2, second);
        const OnRank here(first, {1, -1}), there(second, {-1, 2}), work(first, 1 << 10);
        first.synchronize();
        second.synchronize();
        EXPECT_EQ(left->outstanding().stage, Nothing);
        for (int repeat = 0; repeat < 3; ++repeat) {  // The numbers go on where events are used again.
            for (int i = 0; i < 20; ++i) first.zero(work);
            const int at_left = left->begin_all_gather(here.data(), 4);
            left->wait(at_left);
            for (int i = 0; i < 20; ++i) first.zero(work);  // What comes after it does not count.
            EXPECT_EQ(left->outstanding().stage, Computing);
            const Outstanding waits = look(*left, Computing);
            EXPECT_EQ(waits.stage, Communicating);
            EXPECT_EQ(waits.operation, at_left);
            EXPECT_EQ(look(*left, Communicating).stage, Communicating) << "the other rank has not come";
            right->wait(right->begin_all_gather(there.data(), 4));
            EXPECT_EQ(look(*left, Communicating).stage, Nothing);
            EXPECT_NE(look(*right, Communicating).stage, Communicating);
            second.synchronize();
            EXPECT_EQ(right->outstanding().stage, Nothing);
        }
    });
}

/// Runs body(comm, backend) on two ranks, each with the transport open, and what each ends with; "" is a good end.
template <typename Body>
std::vector<std::string> errors_of_comms(double timeout_seconds, Body body) {
    pretend_devices(2);
    std::vector<Meeting> meetings = make_meetings(2);
    std::vector<std::string> errors(2);
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < 2; ++rank)
        threads.emplace_back([&, rank] {
            const auto end = [](const std::string&) {};
            CudaBackend backend(static_cast<int>(rank));
            Comm comm(std::make_unique<Control>(std::move(meetings[rank]), timeout_seconds, end));
            comm.open_transport(backend, false);
            try {
                body(comm, backend);
                comm.finish();
            } catch (const Error& error) {
                errors[rank] = error.what();
            }
        });
    for (std::thread& thread : threads) thread.join();
    return errors;
}

TEST(NcclTransport, SynchronizeWaitsForWhatWasBegun) {
    const auto errors = errors_of_comms(kPatient, [](Comm& comm, CudaBackend& backend) {
        const OnRank bucket(backend, Floats(80, -1.0f));
        for (int step = 0; step < 3; ++step) {
            const OnRank own(backend, values_of(step, 40));
            backend.convert(bucket.piece(comm.rank(), 40), own);
            const CommTicket gather = comm.begin_all_gather(bucket);
            if (step == 1) comm.wait(gather);  // Before or after.
            comm.synchronize();
            comm.barrier();
            if (comm.is_root()) {
                cuda_on_cpu::set_host_check(false);  // To look without waiting for the device.
                const Floats values(static_cast<float*>(bucket.data()), static_cast<float*>(bucket.data()) + 80);
                cuda_on_cpu::set_host_check(true);
                for (int64_t i = 0; i < 80; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], value(step, i % 40)) << step;
                comm.synchronize();  // Ranks may differ in that.
            }
            comm.barrier();
            if (step != 1) comm.wait(gather);
        }
    });
    for (const std::string& error : errors) EXPECT_EQ(error, "");
}

/// The other rank comes to the second operation only when the first has been waited for.
TEST(NcclTransport, SynchronizeWaitsForNoMoreThanItIsAskedTo) {
    const auto errors = errors_of_comms(kPatient, [](Comm& comm, CudaBackend& backend) {
        const OnRank first(backend, values_of(comm.rank(), 80)), second(backend, values_of(comm.rank(), 80));
        for (int step = 0; step < 3; ++step) {
            comm.wait(comm.begin_all_gather(first));
            const int begun = comm.begun();
            if (comm.is_root()) comm.wait(comm.begin_all_gather(second));
            comm.synchronize(begun);
            comm.barrier();
            if (!comm.is_root()) comm.wait(comm.begin_all_gather(second));
            comm.synchronize();
        }
    });
    for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(NcclTransport, ARankThatDoesNotComeIsNoticed) {
    const CapturedErrors log;
    const auto errors = errors_of_comms(1, [](Comm& comm, CudaBackend& backend) {
        comm.doing(fmt::format("step {}", comm.rank()));
        const OnRank bucket(backend, values_of(comm.rank(), 80));
        backend.synchronize();
        if (comm.rank() == 1) {  // Its kernels never end.
            std::this_thread::sleep_for(std::chrono::milliseconds(2500));
            comm.barrier();
        }
        comm.wait(comm.begin_all_gather(bucket));
        try {
            comm.synchronize();
        } catch (const Error&) {
            cuda_on_cpu::clear_report();  // Nothing here waits for the other rank any more.
            throw;
        }
    });
    ASSERT_EQ(log.lines().size(), 1u);
    EXPECT_TRUE(has(log.lines()[0], {"rank 1 (here) has not answered for 1", "it was at step 1;"}));
    for (const std::string& error : errors) EXPECT_EQ(error, log.lines()[0]);
}

TEST(NcclTransport, SaysWhatItIs) {
    CudaBackend backend(0);
    const auto transport = make_nccl_transport(make_nccl_id(), 0, 1, backend);
    EXPECT_EQ(transport->name().substr(0, 7), "NCCL 2.");
    EXPECT_TRUE(transport->adds());
    EXPECT_TRUE(backend.on_gpu());
}

TEST(NcclTransport, AFailureNamesTheCall) {
    CudaBackend backend(0);
    try {
        make_nccl_transport(std::string(make_nccl_id().size(), 'x'), 0, 2, backend);
        FAIL() << "nobody made this id";
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), kExitFailed);
        EXPECT_STREQ(error.what(), "NCCL: ncclCommInitRank failed: invalid argument; NCCL_DEBUG=WARN says more");
    }
}

TEST(NcclTransport, AnErrorOfTheDeviceShowsInTheWait) {
    pretend_devices(1);
    cuda_on_cpu::set_quiet(true);
    CudaBackend backend(0);
    const auto transport = make_nccl_transport(make_nccl_id(), 0, 1, backend);
    void* unwritten = nullptr;
    CUDA_CHECK(cudaMalloc(&unwritten, 64));
    const int operation = transport->begin_all_gather(unwritten, 64);
    EXPECT_NE(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_THROW(transport->wait(operation), Error);
    cuda_on_cpu::clear_report();
    CUDA_CHECK(cudaFree(unwritten));
}

}  // namespace
}  // namespace llmc::cuda
#endif
