// The executor: a launch's blocks run one after the other, a block's threads as fibers in a seeded order.
//
// A fair random order is a poor adversary: all threads advance alike, so a writer is nearly always early enough. Each
// block draws one of: fair; random priorities of warps, where one runs as far as it can while others starve; the same
// with priorities that change; the same with lanes in order.
#pragma once

#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/report.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_on_cpu {

constexpr int kLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / kLanes;

struct Launch {
    const void* kernel;
    dim3 grid, block;
    size_t shared_bytes;
    std::shared_ptr<void> arguments;  ///< Of one launch; `call` starts the kernel with them.
    size_t argument_bytes;
    void (*call)(void* arguments);
};

enum class State : uint8_t {
    Ready,
    Running,
    AtBarrier,
    InWarpOperation,
    AtNamedBarrier,
    AtMbarrier,
    AtWgmma,
    AtRegisters,
    Done
};

struct AsyncCopy {
    void* to;
    const void* from;
    bool zero;
    int group;
    const void* pc;
};

struct Thread {
    Stack stack;
    void* stack_pointer;
    uint3 index;
    int number;  ///< Within the block.
    State state;
    const void* pc;  ///< Of the call in which it waits.
    Where where;
    int barrier_id;
    const void* awaited;  ///< The mbarrier, and the parity of its phase.
    int parity;
    unsigned mask;
    const char* operation;
    int copy_group;
    std::vector<AsyncCopy> copies;
    int lane() const { return number % kLanes; }
    int warp() const { return number / kLanes; }
};

/// Runs a whole launch. A fault leaves a report and the sticky error.
void run_grid(const Launch& launch);

/// True on an OS thread while it executes a kernel.
bool in_kernel();
const Launch& current_launch();

// ---- for what is called by kernels ---------------------------------------------------------

/// The thread that runs, or nullptr.
inline Thread* running = nullptr;
inline Thread& self() { return *running; }
Thread& thread_of_block(int number);
int thread_count();
int live_count();
unsigned exited_lanes(int warp);  ///< Of a short last warp, also the lanes that do not exist.

/// The caller waits in `state` until somebody wakes it; others run.
void suspend(Thread& thread, State state, const void* pc, const Where& where);
void wake(Thread& thread);

/// A point at which another thread may run instead.
void preempt();

[[noreturn]] void abandon_launch();

inline uint64_t random_state = 0;
inline uint32_t random_bits() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return static_cast<uint32_t>(random_state >> 32);
}
bool random_order();  ///< False with the fixed schedules.
uint64_t current_seed();

/// State of barriers and warp operations, reset for each block.
void reset_barriers();
void reset_warp_operations();

}  // namespace cuda_on_cpu
