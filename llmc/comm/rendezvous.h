// How ranks find each other: from --comm-init and the environment that mpirun, srun, torchrun or a user has set, to a
// Meeting (meet.h). Reading the environment is a pure function of its variables.
#pragma once

#include "llmc/comm/launcher.h"
#include "llmc/comm/meet.h"

#include <string>

namespace llmc {

struct World {
    enum class Way { One, Mpi, Tcp, File };
    Way way = Way::One;
    int rank = 0, size = 1;  ///< Of Mpi, MPI itself knows.
    std::string mpi;         ///< Mpi: which library, "Open MPI 4.1.4".
    std::string host;        ///< Tcp: rank 0's,
    int port = 0;            ///< and where it listens.
    std::string path;        ///< File.
    std::string job;         ///< What sets this job apart from others; may be "".
    std::string secret;      ///< Tcp, File, Mpi: LLMC_JOB_SECRET; "" if it is not set.
    bool one_host = false;   ///< The launcher says that all ranks are on this host.
};

/// What `init` (CommSettings) asks for. Variables that are missing, malformed or can never work are Errors that name
/// them; so is an environment that says for sure that there are others, where the way to them is not known.
World read_world(const std::string& init, const Environment& environment, bool with_mpi);

/// Fails where ranks would meet over a network and there is no secret to know them by, with the line that makes one.
/// (MPI and a shared file bring one along.)
void require_secret(const World& world, bool insecure);

/// What to tell a user who has asked for that all the same; "" where nobody is let in.
std::string warning_of_strangers(const World& world, bool insecure);

/// Fails where MPI has found nobody else, and the launcher's variables say that there are others.
void require_company(const World& world, const Environment& environment);

/// What to tell a user whose processes may have been started together and will train each for itself; "" where all is
/// well. Every one of them says so, for their logs may be apart.
std::string warning_of_others(const std::string& init, const World& world, const Environment& environment);

/// The first host of Slurm's "node[03-07,9],login1"; "" if it is no such list.
std::string first_slurm_host(const std::string& list);

/// The name this host goes by: TRAIN_GPT_HOST_NAME, else the system's.
std::string host_name(const Environment& environment);

/// Tells all ranks what rank 0 says: mpi.h's broadcast.
using Broadcast = std::function<std::string(const std::string& of_root)>;

/// For a rank that ends before it has met the others, for a bad command line: they hear of it at once rather than at
/// --comm-timeout, where they can be reached without MPI (whose mpirun ends them). Takes three seconds at most.
void call_off(const std::string& init, const Environment& environment, bool with_mpi, const Error& cause) noexcept;

/// The meeting of two ranks or more. Rank 0 listens from now on.
Meeting prepare_meeting(const World& world, const std::string& host, const Broadcast& broadcast = {});

}  // namespace llmc
