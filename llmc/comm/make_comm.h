// What the libraries of this build offer to a communicator: with make_comm.cpp the only place in this folder that knows
// which are there. Without a library, whoever asks for it is told what to do instead.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/comm/control.h"
#include "llmc/comm/rendezvous.h"
#include "llmc/comm/transport.h"

#include <memory>

namespace llmc {

bool is_built_with_mpi();

/// Starts MPI if the world is to be found that way, and fills in rank and size.
void find_mpi_world(World* world);
/// mpi.h's, for prepare_meeting().
std::string broadcast_over_mpi(const std::string& of_root);
/// After a good end.
void leave_mpi();

/// The transport for the backend's memory: NCCL, or MPI where ranks met that way, or TCP.
std::unique_ptr<Transport> make_transport(Control& control, Backend& backend, World::Way way);

}  // namespace llmc
