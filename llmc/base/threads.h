// How many threads there can be: what the environment asks for, and what the system grants.
#pragma once

#include <cstdint>
#include <optional>

namespace llmc {

/// The first number of OMP_NUM_THREADS, by which OpenMP programs go where nothing else is said, but no more than there
/// are processors for the process; nothing where it is unset or no number.
std::optional<int> threads_by_environment();

/// How many of `wanted` threads, this one counted, the system lets the process have: limits on processes (ulimit -u,
/// pids.max of a control group), on address space, and OMP_THREAD_LIMIT. Found by trying; at least 1. Fewer than
/// wanted are a warning, once. To be asked before a parallel region of so many threads, which else ends the process.
int possible_threads(int wanted);

/// What is not asked for in particular: stacks of threads of a usual size, and the threads of a parallel region,
/// --threads or else those of the environment or one per processor, as far as they are possible. To be called once in
/// main(), before there is such a region.
void settle_threads(int64_t threads);

/// Whether a thread with a stack of so many bytes can be made; 0 means the usual size.
bool can_start_thread(int64_t stack_bytes);

/// OMP_STACKSIZE, else GOMP_STACKSIZE, in bytes; nothing where it is unset or libgomp does not understand it.
std::optional<int64_t> omp_stack_bytes();

}  // namespace llmc
