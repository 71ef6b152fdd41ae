#include "dev/cuda_on_cpu/barriers.h"

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <cstring>

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

bool same(const Where& a, const Where& b) {
    return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

void reset_barriers() { barrier.arrived = barrier.holding = 0; }

int block_barrier(int predicate, Vote vote, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Thread& thread = self();
    if (barrier.arrived == 0) {
        barrier.where = where;
        barrier.pc = pc;
        barrier.first = thread.number;
    } else if (!same(barrier.where, where)) {
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

}  // namespace cuda_on_cpu
