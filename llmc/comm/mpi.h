// MPI (Message Passing Interface 3.1): how ranks that mpirun started find each other, and a transport for buckets in
// memory of the host. Nothing of MPI happens before start_mpi(). All calls come from the thread that made this one.
#pragma once

#include "llmc/comm/transport.h"

#include <memory>
#include <string>

namespace llmc {

struct MpiWorld {
    int rank = 0, size = 1;
    std::string library;  ///< "Open MPI 4.1.4".
};

/// Starts MPI, once, and says who we are. From now on MPI's errors are Errors that name the call.
MpiWorld start_mpi();

/// Rank 0's text, on every rank.
std::string mpi_broadcast(const std::string& of_root);

/// Between the ranks of start_mpi(). One at a time.
std::unique_ptr<Transport> make_mpi_transport();

/// Ends MPI, if it was started, after a run in which every rank did its part; waits for the others to say so.
void finish_mpi();

}  // namespace llmc
