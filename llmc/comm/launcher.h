// Who has started this process, and whether it is one of several: what mpirun, srun, torchrun and their like tell by
// variables. Pure functions of the variables; rendezvous.h makes a meeting of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace llmc {

using Environment = std::map<std::string, std::string>;
Environment process_environment();

/// A variable that is set and not empty.
std::optional<std::string> variable(const Environment& environment, const std::string& name);
/// The same as a number; nothing, too, where it is none.
std::optional<int64_t> number(const Environment& environment, const std::string& name);

/// A value for people: printable() and in one line.
std::string one_line(const std::string& value);

/// A way to start processes together, and its variables; "" for one that it does not set.
struct Launcher {
    enum class Kind {
        ByHand,  ///< torchrun's variables, which people and scripts set, too.
        Mpi,     ///< An MPI may find the ranks. (Whether this build's does shows when it has started.)
        Slurm,
    };
    Kind kind;
    std::string name;        ///< As people call it: "mpirun".
    std::string rank, size;  ///< This process's number, and how many there are.
    std::string local_size;  ///< How many of them are on this host.
    std::string job;         ///< Sets a run apart from others; the same for all its ranks.
    std::string unbind;      ///< How to start processes that may run on all cores.
};

/// Whose variables give rank and size where ranks meet without MPI. The innermost: mpirun inside a Slurm job before
/// Slurm, whose variables are those of the job's first process.
Launcher launcher_of(const Environment& environment);

/// The innermost launcher of MPI's kind; that of PMIX_RANK alone has no other variable.
Launcher mpi_launcher_of(const Environment& environment);

/// Whether an MPI library may find other ranks.
bool has_mpi_launcher(const Environment& environment);

/// "PMI_SIZE=2": what says, for sure, that this process is one of several that were started together to be one; "" if
/// nothing does. Slurm's tasks and what schedulers start one by one may be independent on purpose.
std::string sure_sign_of_others(const Environment& environment);

/// What says that it may be: "SLURM_NTASKS=4, SLURM_PROCID=1: srun has started 4 tasks". Nothing for the script of a
/// batch job, which is a process of its own whatever the job was given.
std::string sign_of_others(const Environment& environment);

/// "SLURM_NTASKS=4" where --comm-init=tcp goes by Slurm's variables and this is the script of a job, which nobody has
/// started as often.
std::string sign_of_missing_srun(const Environment& environment);

/// The launcher that may have bound this process to some of the cores; nothing if there is none.
std::optional<Launcher> launcher_that_binds(const Environment& environment);

}  // namespace llmc
