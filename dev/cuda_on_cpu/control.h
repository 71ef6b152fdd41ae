// For tests: the schedule, the pretended machine, and what was found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cuda_on_cpu {

/// Everything random follows from the seed: order of blocks, threads and streams, preemption, when copies happen.
/// 0: all in ascending order; 1: all in descending order; others: random.
void set_seed(uint64_t seed);

/// LLMC_CUDA_SEED, or 2.
uint64_t seed_from_environment();

/// The reports since the last clear_report, and nothing if there were none. A report is also printed as it is made,
/// unless quiet.
const std::string& last_report();
void set_quiet(bool quiet);

/// Forgets reports and errors, drops what is still queued on the streams, ends captures.
void clear_report();

/// What the machine pretends to have.
struct Device {
    std::string name = "CUDA on the CPU";
    size_t memory_bytes = size_t{4} << 30;
    size_t used_by_others = 0;  ///< Taken by other processes.
    int compute_capability = 90;
    int kernels = 0;  ///< Which of the program's kernels it runs: 0 those of its own architecture, -1 none, else PTX's.
    int multiprocessors = 8;
    bool hopper_kernels = true;  ///< The program has kernels for compute capability 9.0 alone (*_hopper_kernel).
    bool backward_epilogues =
        true;  ///< cuBLASLt has algorithms that take a bias's gradient or GELU's derivative along.
};
enum class Driver { Present, Absent, TooOld };
struct Machine {
    std::vector<Device> devices = {Device{}};
    Driver driver = Driver::Present;
    int driver_version = 13000;
};
void set_machine(const Machine& machine);
/// Until one is set: a device of LLMC_CUDA_CAPABILITY (such as 86), or 90, without backward_epilogues where
/// LLMC_CUBLASLT_EPILOGUES is 0.
const Machine& machine();

/// While true every wgmma leaves out a product, as a descriptor that is wrong somewhere would. At first it is if
/// LLMC_CUDA_FAULT is "wgmma".
void set_wrong_wgmma(bool on);

/// How much longer than it does each of cuBLASLt's four algorithms seems to take, first to last, between events; empty:
/// no longer. At first, what LLMC_CUBLASLT_TIMES says, with commas.
void set_algorithm_times(std::vector<double> milliseconds);

/// The n-th cudaMalloc from now (1: the next) fails with out of memory; 0: none.
void fail_allocation(int n);

/// The n-th launch from now fails; 0: none.
void fail_launch(int n);

/// While false, host code may touch device memory.
void set_host_check(bool on);

/// Bytes of device memory in use.
size_t allocated_bytes();

/// A launch: the kernel's name, demangled, and the grid.
struct Grid {
    std::string kernel;
    uint64_t x, y, z;
};
/// From now on launches run only the blocks whose numbers this gives, x + grid.x * (y + grid.y * z); empty: all.
using BlockChooser = std::function<std::vector<uint64_t>(const Grid&)>;
void set_block_chooser(BlockChooser wanted);

/// What was executed since the program began.
struct Counts {
    uint64_t launches, blocks, threads, switches, accesses, operations;
    uint64_t algorithm_searches;  ///< Of cuBLASLt's stand-in.
};
Counts counts();

}  // namespace cuda_on_cpu
