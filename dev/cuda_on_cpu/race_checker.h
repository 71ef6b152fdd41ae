// The checker of memory accesses: races, reads of unwritten memory, bounds, alignment.
//
// Kernels are compiled with -fsanitize=thread, which calls __tsan_readN and __tsan_writeN before accesses; libtsan is
// not linked, tsan_hooks.cpp hands them to access() below (as the Linux kernel's KCSAN does). For each two bytes a cell
// remembers the last writer and reader: thread, barrier interval, warp-barrier count, program counter. Approximations:
// neighbouring single bytes share a cell; one reader is remembered; at a named barrier a warp has arrived when its last
// thread has; a partial __syncwarp orders the whole warp; a block that called __threadfence is trusted towards other
// blocks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

/// True while kernel code runs on this OS thread, false in the executor and on the host.
extern thread_local bool kernel_code;

/// In what kernels call: no checks until it returns (the linker may have given us instrumented library functions).
class ExecutorScope {
  public:
    __attribute__((always_inline)) ExecutorScope() : before_(kernel_code) { kernel_code = false; }
    __attribute__((always_inline)) ~ExecutorScope() { kernel_code = before_; }
    ExecutorScope(const ExecutorScope&) = delete;

  private:
    bool before_;
};

namespace race {

enum class Access : uint8_t { Read, Write, Atomic };

void begin_launch();
void begin_block();
void block_barrier();
void warp_barrier(int warp);

// Named barriers: a thread of the warp has arrived at one (waiting or not); one that waited goes on; all have arrived.
void arrived(int id, int warp);
void released(int id, int warp);
void completed(int id);

void fence();

/// One access of the current thread by the instruction at `pc`.
void access(const void* p, size_t bytes, Access kind, const void* pc);

/// The same for an atomic operation, which must be aligned; another thread may run before it.
void atomic_operation(const void* p, size_t bytes, const void* pc);

/// cp.async into shared memory: from issue until the wait, nobody may touch the destination.
void copy_issued(const void* to, size_t bytes, const void* pc);
void copy_done(const void* to, size_t bytes, const void* pc);

// Device memory: the region that all of it lies in, and what became of its parts.
void attach(char* base, size_t bytes);
void allocated(const void* p, size_t bytes);
void freed(const void* p, size_t bytes);
void written(const void* p, size_t bytes);  ///< By a copy, a memset or a library.
bool is_written(const void* p, size_t bytes);

uint64_t access_count();

}  // namespace race
}  // namespace cuda_on_cpu
