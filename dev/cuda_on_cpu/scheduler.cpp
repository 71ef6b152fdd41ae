#include "dev/cuda_on_cpu/scheduler.h"

#include "dev/cuda_on_cpu/async_work.h"
#include "dev/cuda_on_cpu/bulk_copy.h"
#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/cublaslt_problem.h"
#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/mbarrier.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/register_pool.h"
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/shared_memory.h"
#include "dev/cuda_on_cpu/wgmma.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <numeric>
#include <utility>

namespace cuda_on_cpu {

thread_local bool kernel_code = false;

namespace {

enum class Policy { Fair, Priorities, ChangingPriorities, LanesInOrder };
enum class Order { Ascending, Descending, Random };

// What changes at every switch lies in plain arrays: no library function may run between two threads' checks.
struct Executor {
    Thread threads[kMaxThreads];
    int thread_count = 0, live = 0;
    unsigned ready[kMaxWarps];  // Ready lanes of each warp.
    unsigned ready_ranks = 0;   // Warps with ready lanes, a bit for each rank.
    int rank[kMaxWarps], warp_of_rank[kMaxWarps];
    unsigned exited[kMaxWarps];
    void* main_stack_pointer = nullptr;
    const Launch* launch = nullptr;
    Policy policy = Policy::Fair;
    bool failed = false;
};
Executor executor;
thread_local bool this_os_thread_executes = false;

Order order = Order::Random;
uint64_t seed_value = 2;
Counts counters{};
BlockChooser chooser;

void set_ranks() {
    const bool descending = order == Order::Descending;
    for (int i = 0; i < kMaxWarps; ++i) executor.warp_of_rank[i] = descending ? kMaxWarps - 1 - i : i;
    if (order == Order::Random) {
        for (int i = kMaxWarps; i > 1; --i) {
            const int j = static_cast<int>(random_bits() % static_cast<unsigned>(i));
            const int kept = executor.warp_of_rank[i - 1];
            executor.warp_of_rank[i - 1] = executor.warp_of_rank[j];
            executor.warp_of_rank[j] = kept;
        }
    }
    for (int i = 0; i < kMaxWarps; ++i) executor.rank[executor.warp_of_rank[i]] = i;
    executor.ready_ranks = 0;
    for (int warp = 0; warp < kMaxWarps; ++warp) {
        if (executor.ready[warp]) executor.ready_ranks |= 1u << executor.rank[warp];
    }
}

// One of the set bits; not quite uniform, but fast.
int random_bit(unsigned bits) {
    const unsigned upper = bits & (~0u << (random_bits() & 31));
    return std::countr_zero(upper ? upper : bits);
}

// Takes a thread from the ready ones; nullptr if there is none, whatever asynchronous work may still do.
Thread* pick() {
    Executor& e = executor;
    if (async_work_is_pending() && order == Order::Random && (random_bits() & 31) == 0) progress_async_work();
    while (!e.ready_ranks && progress_async_work()) {
    }
    if (!e.ready_ranks) return nullptr;
    if (e.policy == Policy::ChangingPriorities && (random_bits() & 127) == 0) set_ranks();
    const bool fair = e.policy == Policy::Fair && order == Order::Random;
    const int rank = fair ? random_bit(e.ready_ranks) : std::countr_zero(e.ready_ranks);
    const int warp = e.warp_of_rank[rank];
    int lane = std::countr_zero(e.ready[warp]);
    if (order == Order::Descending) lane = 31 - std::countl_zero(e.ready[warp]);
    if (order == Order::Random && e.policy != Policy::LanesInOrder) lane = random_bit(e.ready[warp]);
    e.ready[warp] &= ~(1u << lane);
    if (!e.ready[warp]) e.ready_ranks &= ~(1u << rank);
    return &e.threads[warp * kLanes + lane];
}

void run(void** save, Thread& next) {
    running = &next;
    next.state = State::Running;
    threadIdx = next.index;
    ++counters.switches;
    cuda_on_cpu_switch(save, next.stack_pointer);
}

std::string block_name() { return format("block (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z); }

// Nobody can run: says who waits where.
void report_deadlock() {
    struct Group {
        int count = 0;
        std::string threads;
    };
    std::map<std::string, Group> groups;
    for (int i = 0; i < executor.thread_count; ++i) {
        const Thread& thread = executor.threads[i];
        std::string what = "have exited";
        if (thread.state != State::Done) {
            std::string call = "__syncthreads";
            if (thread.state == State::InWarpOperation) call = format("%s, mask %08x,", thread.operation, thread.mask);
            if (thread.state == State::AtNamedBarrier) call = format("named barrier %d", thread.barrier_id);
            if (thread.state == State::AtMbarrier) call = text_of_mbarrier(thread.awaited, thread.parity);
            if (thread.state == State::AtWgmma) call = "wgmma.wait_group, for threads that did not come to the wgmma,";
            if (thread.state == State::AtRegisters) call = text_of_registers();
            const bool by_code = thread.state == State::AtWgmma;
            what = "wait in " + call + " at " + (by_code ? lines_of(thread.pc) : text_of(thread.where));
        }
        Group& group = groups[what];
        if (++group.count <= 8) group.threads += format(" %d", i);
        if (group.count == 9) group.threads += " ...";
    }
    std::string text = function_at(executor.launch->kernel) + ", " + block_name() + ": deadlock, no thread can run:";
    for (const auto& [what, group] : groups)
        text += format(" %d %s (%s);", group.count, what.c_str(), group.threads.c_str() + 1);
    text.pop_back();
    report(cudaErrorLaunchFailure, text);
}

void run_another(Thread& from) {
    Thread* const next = pick();
    if (!next) {
        report_deadlock();
        abandon_launch();
    }
    if (next == &from) {
        running = next;
        next->state = State::Running;
        return;
    }
    run(&from.stack_pointer, *next);
}

[[noreturn]] void thread_exit() {
    kernel_code = false;
    Executor& e = executor;
    Thread& thread = *running;
    for (const AsyncCopy& copy : thread.copies) {
        kernel_fault("a cp.async is never waited for: " + lines_of(copy.pc));
    }
    check_stores_at_exit();
    check_wgmmas_at_exit();
    if (e.live == 1) {
        check_copies_at_end();
        check_mbarriers_at_end();
    }
    thread.state = State::Done;
    e.exited[thread.warp()] |= 1u << thread.lane();
    if (--e.live == 0) {
        cuda_on_cpu_switch(&thread.stack_pointer, e.main_stack_pointer);
    }
    Thread* const next = pick();
    if (!next) {
        report_deadlock();
        abandon_launch();
    }
    run(&thread.stack_pointer, *next);
    std::abort();
}

void thread_entry() {
    const Launch& launch = *executor.launch;
    kernel_code = true;
    launch.call(launch.arguments.get());
    thread_exit();
}

void start_thread(int number, const dim3& block) {
    Thread& thread = executor.threads[number];
    const auto n = static_cast<unsigned>(number);
    thread.index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
    thread.number = number;
    thread.state = State::Ready;
    thread.copy_group = 0;
    thread.copies.clear();
    thread.stack = stack_of_thread(number);
    thread.stack_pointer = prepare(thread.stack, number, thread_entry);
    executor.ready[thread.warp()] |= 1u << thread.lane();
    executor.exited[thread.warp()] &= ~(1u << thread.lane());
}

void run_block(const dim3& block) {
    Executor& e = executor;
    e.thread_count = e.live = static_cast<int>(block.x * block.y * block.z);
    for (int warp = 0; warp < kMaxWarps; ++warp) e.ready[warp] = 0, e.exited[warp] = ~0u;
    for (int i = 0; i < e.thread_count; ++i) start_thread(i, block);
    e.policy = order == Order::Random ? static_cast<Policy>(random_bits() % 4) : Policy::Priorities;
    set_ranks();
    reset_barriers();
    reset_warp_operations();
    reset_async_work();
    reset_bulk_copies();
    reset_mbarriers();
    reset_registers();
    reset_wgmmas();
    poison_shared();
    race::begin_block();
    ++counters.blocks;
    counters.threads += static_cast<uint64_t>(e.thread_count);
    run(&e.main_stack_pointer, *pick());
    kernel_code = false;
    running = nullptr;
}

// The numbers of a launch's blocks, in the order in which they run.
std::vector<uint64_t> sequence_of(const Launch& launch) {
    std::vector<uint64_t> sequence;
    const dim3& grid = launch.grid;
    if (chooser) {
        sequence = chooser({function_at(launch.kernel), grid.x, grid.y, grid.z});
    } else {
        sequence.resize(uint64_t{grid.x} * grid.y * grid.z);
        std::iota(sequence.begin(), sequence.end(), uint64_t{0});
    }
    if (order == Order::Descending) std::reverse(sequence.begin(), sequence.end());
    for (size_t i = sequence.size(); order == Order::Random && i > 1; --i)
        std::swap(sequence[i - 1], sequence[random_bits() % i]);
    return sequence;
}

}  // namespace

void run_grid(const Launch& launch) {
    executor.launch = &launch;
    executor.failed = false;
    this_os_thread_executes = true;
    prepare_fault_handler();
    blockDim = launch.block;
    gridDim = launch.grid;
    begin_shared(launch.shared_bytes, whole_shared_limit(launch.kernel));
    race::begin_launch();
    ++counters.launches;
    const uint64_t columns = launch.grid.x, rows = launch.grid.y;
    for (const uint64_t block : sequence_of(launch)) {
        blockIdx = {static_cast<unsigned>(block % columns), static_cast<unsigned>(block / columns % rows),
                    static_cast<unsigned>(block / columns / rows)};
        run_block(launch.block);
        if (executor.failed) break;
    }
    this_os_thread_executes = false;
    executor.launch = nullptr;
}

bool in_kernel() { return this_os_thread_executes && running; }
const Launch& current_launch() { return *executor.launch; }

Thread& thread_of_block(int number) { return executor.threads[number]; }
int thread_count() { return executor.thread_count; }
int live_count() { return executor.live; }
unsigned exited_lanes(int warp) { return executor.exited[warp]; }

void suspend(Thread& thread, State state, const void* pc, const Where& where) {
    if (thread.state == State::Running) thread.state = state;  // Else somebody has woken it already.
    thread.pc = pc;
    thread.where = where;
    run_another(thread);
}

void wake(Thread& thread) {
    thread.state = State::Ready;
    executor.ready[thread.warp()] |= 1u << thread.lane();
    executor.ready_ranks |= 1u << executor.rank[thread.warp()];
}

void preempt() {
    if (order != Order::Random || !executor.ready_ranks || (random_bits() & 3)) return;
    const ExecutorScope scope;
    Thread& thread = self();
    wake(thread);
    run_another(thread);
}

void abandon_launch() {
    kernel_code = false;
    executor.failed = true;
    void* unused;
    cuda_on_cpu_switch(&unused, executor.main_stack_pointer);
    std::abort();
}

void kernel_fault(const std::string& text, cudaError_t error) {
    kernel_code = false;
    const uint3 thread = self().index;
    report(error, format("%s, %s, thread (%u,%u,%u): %s", function_at(executor.launch->kernel).c_str(),
                         block_name().c_str(), thread.x, thread.y, thread.z, text.c_str()));
    abandon_launch();
}

void set_block_chooser(BlockChooser wanted) { chooser = std::move(wanted); }

bool random_order() { return order == Order::Random; }
uint64_t current_seed() { return seed_value; }

void set_seed(uint64_t seed) {
    seed_value = seed;
    order = seed == 0 ? Order::Ascending : seed == 1 ? Order::Descending : Order::Random;
    random_state = seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull;
    for (int i = 0; i < 8; ++i) random_bits();
}

uint64_t seed_from_environment() {
    const char* text = std::getenv("LLMC_CUDA_SEED");
    return text ? std::strtoull(text, nullptr, 10) : 2;
}

Counts counts() {
    Counts result = counters;
    result.accesses = race::access_count();
    result.operations = executed_operations();
    result.algorithm_searches = algorithm_searches();
    return result;
}

}  // namespace cuda_on_cpu
