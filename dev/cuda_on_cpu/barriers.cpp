#include "dev/cuda_on_cpu/barriers.h"

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <vector>

namespace cuda_on_cpu {

namespace {

struct BlockBarrier {
    int arrived, holding;  // Threads that came, and those of them whose predicate held.
    int result_arrived, result_holding;
    Where where;
    const void* pc;
    int first;
};
BlockBarrier barrier;

struct NamedBarrier {
    std::vector<int> waiting;
    int expected = 0, arrived = 0;
};
NamedBarrier named[16];

}  // namespace

void reset_barriers() {
    barrier.arrived = barrier.holding = 0;
    for (NamedBarrier& one : named) one = {};
}

int block_barrier(int predicate, Vote vote, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Thread& thread = self();
    if (barrier.arrived == 0) {
        barrier.where = where;
        barrier.pc = pc;
        barrier.first = thread.number;
    } else if (!same_place(barrier.where, where)) {
        kernel_fault(format("barrier in divergent code: __syncthreads at %s, while thread %d waits in the one at %s",
                            lines_of(pc, where).c_str(), barrier.first, lines_of(barrier.pc, barrier.where).c_str()));
    }
    if (live_count() != thread_count()) {
        kernel_fault(format("barrier in divergent code: __syncthreads at %s after %d threads of the block have exited",
                            lines_of(pc, where).c_str(), thread_count() - live_count()));
    }
    ++barrier.arrived;
    barrier.holding += predicate != 0;
    if (barrier.arrived == thread_count()) {
        barrier.result_arrived = barrier.arrived;
        barrier.result_holding = barrier.holding;
        barrier.arrived = barrier.holding = 0;
        race::block_barrier();
        for (int i = 0; i < thread_count(); ++i) wake(thread_of_block(i));
    }
    suspend(thread, State::AtBarrier, pc, where);
    switch (vote) {
        case Vote::None: return 0;
        case Vote::Count: return barrier.result_holding;
        case Vote::And: return barrier.result_holding == barrier.result_arrived;
        case Vote::Or: return barrier.result_holding > 0;
    }
    return 0;
}

void named_barrier(int id, int threads, bool wait, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Thread& thread = self();
    if (id < 1 || id > 15 || threads <= 0 || threads % kLanes != 0) {
        kernel_fault(format("named barrier %d for %d threads at %s: ids are 1 to 15, counts multiples of 32", id,
                            threads, lines_of(pc, where).c_str()));
    }
    NamedBarrier& one = named[id];
    if (one.arrived == 0) one.expected = threads;
    if (one.expected != threads) {
        kernel_fault(format("named barrier %d at %s is for %d threads, others came for %d", id,
                            lines_of(pc, where).c_str(), threads, one.expected));
    }
    ++one.arrived;
    race::arrived(id, thread.warp());
    thread.barrier_id = id;
    if (wait) one.waiting.push_back(thread.number);
    if (one.arrived == threads) {
        for (const int number : one.waiting) {
            race::released(id, number / kLanes);
            wake(thread_of_block(number));
        }
        race::completed(id);
        one.waiting.clear();
        one.arrived = 0;
    }
    if (wait) suspend(thread, State::AtNamedBarrier, pc, where);
}

}  // namespace cuda_on_cpu
