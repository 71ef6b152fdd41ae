// How ranks find each other: from --comm-init and the environment that mpirun, srun, torchrun or a user has set, to a
// Meeting (meet.h). Reading the environment is a pure function of its variables.
#pragma once

#include "llmc/comm/meet.h"

#include <map>
#include <string>

namespace llmc {

using Environment = std::map<std::string, std::string>;
Environment process_environment();

struct World {
    enum class Way { One, Mpi, Tcp, File };
    Way way = Way::One;
    int rank = 0, size = 1;  ///< Of Mpi, MPI itself knows.
    std::string host;        ///< Tcp: rank 0's,
    int port = 0;            ///< and where it listens.
    std::string path;        ///< File.
    std::string job;         ///< What sets this job apart from others; may be "".
};

/// What `init` (CommSettings) asks for. Variables that are missing or malformed are Errors that name them.
World read_world(const std::string& init, const Environment& environment, bool with_mpi);

/// What to tell a user whose processes were started together by srun and will train each for itself; "" where all is
/// well, and on all tasks but the first.
std::string warning_of_lone_tasks(const std::string& init, const World& world, const Environment& environment);

/// The first host of Slurm's "node[03-07,9],login1"; "" if it is no such list.
std::string first_slurm_host(const std::string& list);

/// The name this host goes by: TRAIN_GPT_HOST_NAME, else the system's.
std::string host_name(const Environment& environment);

/// Tells all ranks what rank 0 says: mpi.h's broadcast.
using Broadcast = std::function<std::string(const std::string& of_root)>;

/// The meeting of two ranks or more. Rank 0 listens from now on.
Meeting prepare_meeting(const World& world, const std::string& host, const Broadcast& broadcast = {});

}  // namespace llmc
