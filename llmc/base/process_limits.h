// Limits that the system puts on the memory of this process alone (setrlimit; a shell's ulimit, a batch system's
// h_vmem). Those of the machine and of control groups, which processes share, are the backend's to know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace llmc {

struct ProcessLimit {
    int64_t available = 0;  ///< Bytes that the process may still map.
    int64_t total = 0;      ///< Bytes of the limit.
    std::string name;       ///< "address space (ulimit -v)".
};

/// The tighter of the limits on address space and on data; nothing where there is none.
std::optional<ProcessLimit> memory_limit_of_process();

/// " (address space (ulimit -v) is limited to 976.6 MiB)", to be added to what is said of memory that is short; ""
/// where the process has no such limit.
std::string memory_limit_in_words();

/// Fails where a limit of the process leaves less than libraries need to compute at all: some end in a crash then.
void require_room_to_work();

/// Fails with an Error that names the limit where fewer than `more` files can be opened besides those that are.
void require_files(int more);

/// What is said where the host has no memory for something small.
std::string out_of_host_memory();

/// Where the process has such a limit: keeps the C library from reserving address space for every thread. To be called
/// in main().
void spare_address_space();

/// From now on memory that is freed is kept for what comes next, up to half a gibibyte: for work that makes and drops
/// large plans by the hundred, which the system would otherwise clear page by page each time.
void keep_freed_memory();

/// Gives memory that is freed back to the system: what loading a model took for a while would count as resident still.
void give_back_freed_memory();

}  // namespace llmc
