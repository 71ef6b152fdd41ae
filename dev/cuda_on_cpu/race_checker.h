// The checker of memory accesses: races, reads of unwritten memory, bounds, alignment.
//
// Kernels are compiled with -fsanitize=thread, which calls __tsan_readN and __tsan_writeN before accesses; libtsan is
// not linked, tsan_hooks.cpp has them checked here (as the Linux kernel's KCSAN does), nearly all at once by
// access_aligned() of race_cells.h, the rest by access() below. For each two bytes a cell remembers the last writer and
// reader: thread, barrier interval, warp-barrier count, program counter. Approximations:
// neighbouring single bytes share a cell; one reader is remembered; at a named barrier a warp has arrived when its last
// thread has; a partial __syncwarp orders the whole warp; a block that called __threadfence is trusted towards other
// blocks.
//
// Asynchronous work (bulk copies, wgmma) accesses memory as an agent of its own, which no barrier of the block orders:
// what comes before it and after it is known from clocks, and what threads did must also have been made known to the
// asynchronous proxy.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

/// True while kernel code runs on this OS thread, false in the executor and on the host.
extern constinit thread_local bool kernel_code;

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

constexpr int kFirstAgent = 32;      ///< Below, agents are warps.
constexpr int kWarpgroups = 8;       ///< An agent for the wgmmas of each,
constexpr int kTransferAgents = 24;  ///< and for copies: one for each mbarrier, and one for all stores.
constexpr int kAgents = kFirstAgent + kWarpgroups + kTransferAgents;
constexpr int kStoreAgent = kAgents - 1;

/// For each agent: what it did before that moment is before.
struct Clock {
    uint32_t last[kAgents] = {};
    uint32_t& operator[](int agent) { return last[agent]; }
    uint32_t operator[](int agent) const { return last[agent]; }
    void join(const Clock& other);
};
/// What the warp did so far, and all it knows of, becomes part of the clock, or the clock of what the warp knows.
void publish(Clock& clock, int warp);
void acquire(int warp, const Clock& clock);
const Clock& clock_of(int warp);
uint32_t next_moment();
uint32_t last_block_barrier();

/// fence.proxy.async by a thread.
void proxy_fence(int thread);

/// Asynchronous work as an accessor of shared memory, beginning at `moment`: what it comes after.
struct AsyncAccess {
    int agent;
    uint32_t moment, block_barrier;
    Clock clock;
};
/// What is written is in flight until async_written.
void async_access(const void* p, size_t bytes, Access kind, const AsyncAccess& work, const void* pc);
void async_written(const void* p, size_t bytes, uint32_t moment);

/// Called for every access to the thread's own local variables, while set; a block begins with none.
using RegisterWatch = void (*)(const char* p, size_t bytes, Access kind, const void* pc);
extern RegisterWatch watch_registers;

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
void written(const void* p, size_t bytes);     ///< By a copy, a memset or a library.
bool is_written(const void* p, size_t bytes);  ///< Sparse memory counts as written.

uint64_t access_count();

}  // namespace race
}  // namespace cuda_on_cpu
