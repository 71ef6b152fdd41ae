// What the operating system and the processor say about this machine: cores, memory, instruction sets, and a measured
// peak rate. Limits of control groups (containers, batch systems) count as limits of the machine.
#pragma once

#include "llmc/backend/cpu/topology.h"

#include <cstdint>
#include <string>
#include <vector>

namespace llmc::cpu {

struct MachineMemory {
    int64_t total = 0;      ///< Bytes of the machine, or of the tightest control group around this process.
    int64_t available = 0;  ///< Bytes that could be allocated now without swapping; file caches count as free.
    std::string limit;      ///< What binds `available`, if not the machine's memory: "/sys/fs/cgroup/job/memory.max".
};

/// The control groups are those around this process, with all their parents; where processes of others fill one, little
/// is available however much its limit is. `root` is prefixed to the paths in /proc and /sys; tests put a folder of
/// their own there.
MachineMemory machine_memory(const std::string& root = "");

/// The processors this process may run on, as the system numbers them; of these, where OpenMP binds its threads
/// (OMP_PLACES, GOMP_CPU_AFFINITY, OMP_PROC_BIND), those of its places.
std::vector<int> allowed_processors();

/// Physical cores among `processors` (of two hardware threads of a core one counts), but no more than the control
/// group's CPU quota, rounded up. At least 1.
int usable_cores(const std::vector<int>& processors, const Topology& topology = this_topology(),
                 const std::string& root = "");

/// The processor's name without "Processor", "CPU" and trade marks; "CPU" where nothing is left.
std::string processor_name(std::string model = this_topology().processor_model());

/// The widest vector instructions of the processor, for people: "AVX-512", "AVX2", "AVX", "SSE2"; "" if not x86.
std::string vector_extension();

/// The processor has bf16 dot products (AVX512_BF16 or AMX), and the system saves their registers.
bool has_bf16_dot_products();

/// The processor multiplies bf16 tiles (AMX), and the system saves their registers.
bool has_amx_bf16();

/// Bytes of the second-level cache of a core; 1 MiB where the system does not say.
int64_t second_cache_bytes();

/// fp32 FLOP/s of one core on register-resident multiply-adds, at the vector width of this build. Takes about a
/// millisecond at the first call and is remembered.
double measured_flops_per_core();

}  // namespace llmc::cpu
