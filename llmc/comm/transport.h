// A transport moves the parts of buckets between ranks, in memory the backend computes in. It knows bytes and ranks;
// comm.h puts sums and an order over it. Implementations: mpi.h and tcp.h (memory of the host), nccl.h (of a GPU).
//
// A bucket is `size` pieces of equal length, one after another; piece r belongs to rank r. Every rank makes the same
// calls in the same order. An operation begins after the backend's calls made before it, and runs beside what follows
// until it is waited for; the memory it was given must not be touched meanwhile. Several may be under way at once.
#pragma once

#include "llmc/base/tensor.h"

#include <cstdint>
#include <string>

namespace llmc {

/// What operations that were begun still need.
struct Outstanding {
    enum class Stage : uint8_t {
        Nothing,        ///< All are done.
        Computing,      ///< The backend's stream has not come to the oldest one yet.
        Communicating,  ///< It has: other ranks, or the network, are what is waited for.
    };
    Stage stage = Stage::Nothing;
    int operation = -1;  ///< The oldest that is not done; numbers ascend.
};

class Transport {
  public:
    virtual ~Transport() = default;

    /// For the banner: "MPI 3.1 (Open MPI 4.1.4)", "TCP", "NCCL 2.28".
    virtual std::string name() const = 0;

    /// All-to-all: piece r of `bucket` goes to rank r; what the other ranks send arrives in `received`, (size - 1)
    /// pieces in the order of their ranks. The bucket stays as it is.
    virtual int begin_exchange(void* received, const void* bucket, int64_t piece_bytes) = 0;
    /// All-gather in place: on return of wait() every piece of `bucket` is that of its rank.
    virtual int begin_all_gather(void* bucket, int64_t piece_bytes) = 0;
    /// Sums over the ranks in an order of the transport's own: the caller's piece of `bucket` (fp32) becomes the sum of
    /// all ranks' copies of that piece, the other pieces become undefined. Only where adds() is true.
    virtual int begin_reduce_scatter([[maybe_unused]] Tensor bucket) {
        CHECK(false, "this transport does not add");
        return -1;
    }
    virtual bool adds() const { return false; }

    /// The backend's calls made after this one find the operation done. For memory of the host this blocks until it is.
    /// A transport that notices a lost rank or a library's error throws an Error that says which rank and what.
    virtual void wait(int operation) = 0;
    /// True once wait() would not block; also moves things on where that takes the caller's help.
    virtual bool test(int operation) = 0;
    /// Where wait() does not block the host: how far the operations begun so far are, waited for or not; those in a
    /// recording of the backend are not counted. Never blocks; throws as wait() does.
    virtual Outstanding outstanding() { return {}; }
};

}  // namespace llmc
