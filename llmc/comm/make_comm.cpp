#include "llmc/comm/make_comm.h"

#include "llmc/base/error.h"
#include "llmc/base/mapped_reading.h"
#include "llmc/comm/tcp.h"
#ifdef LLMC_WITH_MPI
#include "llmc/comm/mpi.h"
#endif
#ifdef LLMC_WITH_NCCL
#include "llmc/comm/nccl.h"
#endif

namespace llmc {

#ifdef LLMC_WITH_MPI

bool is_built_with_mpi() { return true; }

void find_mpi_world(World* world) {
    if (world->way != World::Way::Mpi) return;
    const MpiWorld found = start_mpi();
    end_well_on_failed_reads();  // MPI's libraries may have put handlers of their own there: UCX does.
    world->rank = found.rank;
    world->size = found.size;
    world->mpi = found.library;
}

std::string broadcast_over_mpi(const std::string& of_root) { return mpi_broadcast(of_root); }

void leave_mpi() { finish_mpi(); }

static std::unique_ptr<Transport> make_host_transport(Control& control, World::Way way) {
    return way == World::Way::Mpi ? make_mpi_transport() : make_tcp_transport(control);
}

#else

static constexpr const char* kNoMpi =
    "--comm-init=mpi: this build has no MPI; install Open MPI and run make again, or use --comm-init=tcp";

bool is_built_with_mpi() { return false; }

void find_mpi_world(World* world) {
    if (world->way == World::Way::Mpi) fail_usage("{}", kNoMpi);
}

std::string broadcast_over_mpi(const std::string&) { fail_usage("{}", kNoMpi); }

void leave_mpi() {}

static std::unique_ptr<Transport> make_host_transport(Control& control, World::Way) {
    return make_tcp_transport(control);
}

#endif

#ifdef LLMC_WITH_NCCL

static std::unique_ptr<Transport> make_gpu_transport(Control& control, Backend& backend) {
    const std::string id = control.broadcast(control.rank() == 0 ? make_nccl_id() : "");
    return make_nccl_transport(id, control.rank(), control.size(), backend);
}

#else

static std::unique_ptr<Transport> make_gpu_transport(Control&, Backend&) {
    fail_usage(
        "--device: many ranks on GPUs need NCCL, which this build has not; install it and run make again, or use "
        "--device=cpu");
}

#endif

std::unique_ptr<Transport> make_transport(Control& control, Backend& backend, World::Way way) {
    return backend.on_gpu() ? make_gpu_transport(control, backend) : make_host_transport(control, way);
}

}  // namespace llmc
