#include "dev/cuda_on_cpu/mbarrier.h"

#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"

#include <map>
#include <vector>

namespace cuda_on_cpu {

namespace {

constexpr int kMostArrivals = (1 << 20) - 1;
constexpr int64_t kNever = -2;  // The phase before the first, which a fresh barrier takes as over, is -1.

struct Waiter {
    int thread, parity;
};

struct Barrier {
    int number = 0, expected = 0, pending = 0, initialiser = 0;
    int64_t bytes = 0, phase = 0;
    bool fenced = false;
    race::Clock gathering, over;  // What comes before the end of this phase, and of the last.
    std::vector<Waiter> waiters;
    std::vector<int64_t> had = std::vector<int64_t>(kMaxThreads, kNever);  // The last phase each thread saw over.
};
std::map<const void*, Barrier> barriers;

Barrier& find(const uint64_t* p, const char* what, const void* pc, const Where& where) {
    const auto found = barriers.find(p);
    if (found == barriers.end()) {
        kernel_fault(format("no mbarrier: %s of %p, which mbarrier.init has not made one, at %s", what,
                            static_cast<const void*>(p), lines_of(pc, where).c_str()));
    }
    return found->second;
}

// An access as an atomic operation: it races with what is not one.
void touch(uint64_t* p, const void* pc) { race::access(p, sizeof *p, race::Access::Atomic, pc); }

void end_phase_if_complete(Barrier& barrier) {
    if (barrier.pending != 0 || barrier.bytes != 0) return;
    barrier.over = barrier.gathering;
    barrier.gathering = {};
    barrier.pending = barrier.expected;
    const int64_t over = barrier.phase++;
    std::erase_if(barrier.waiters, [&](const Waiter& waiter) {
        if (waiter.parity != over % 2) return false;
        barrier.had[waiter.thread] = over;
        race::acquire(waiter.thread / kLanes, barrier.over);
        wake(thread_of_block(waiter.thread));
        return true;
    });
}

void add_bytes(Barrier& barrier, int bytes, const char* what, const std::string& place) {
    barrier.bytes += bytes;
    if (barrier.bytes > kMostArrivals || barrier.bytes < -kMostArrivals)
        kernel_fault(format("mbarrier %d: %lld bytes to come, more than 2^20 - 1, after %s at %s", barrier.number,
                            static_cast<long long>(barrier.bytes), what, place.c_str()));
}

void arrive(Barrier& barrier, const char* what, const void* pc, const Where& where) {
    if (barrier.pending == 0) {
        kernel_fault(format("too many arrivals: %s at mbarrier %d, whose phase %lld expects %d, at %s", what,
                            barrier.number, static_cast<long long>(barrier.phase), barrier.expected,
                            lines_of(pc, where).c_str()));
    }
    race::publish(barrier.gathering, self().warp());
    --barrier.pending;
    end_phase_if_complete(barrier);
}

}  // namespace

void mbarrier_init(uint64_t* p, int arrivals, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    if (reinterpret_cast<uintptr_t>(p) % sizeof *p || !end_of_shared_variable(p) || arrivals < 1 ||
        arrivals > kMostArrivals) {
        kernel_fault(
            format("mbarrier.init of %p for %d arrivals at %s: takes 8 bytes of shared memory, aligned to 8, "
                   "and 1 to 2^20 - 1 arrivals",
                   static_cast<void*>(p), arrivals, lines_of(pc, where).c_str()));
    }
    if (barriers.contains(p)) {
        kernel_fault(format("mbarrier.init of mbarrier %d, which is in use, at %s", barriers[p].number,
                            lines_of(pc, where).c_str()));
    }
    race::access(p, sizeof *p, race::Access::Write, pc);
    Barrier& barrier = barriers[p];
    barrier.number = static_cast<int>(barriers.size()) - 1;
    barrier.expected = barrier.pending = arrivals;
    barrier.initialiser = self().number;
}

void mbarrier_fence_init() {
    const ExecutorScope scope;
    for (auto& [p, barrier] : barriers) barrier.fenced = barrier.fenced || barrier.initialiser == self().number;
}

void mbarrier_arrive(uint64_t* p, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Barrier& barrier = find(p, "mbarrier.arrive", pc, where);
    touch(p, pc);
    preempt();
    arrive(barrier, "mbarrier.arrive", pc, where);
}

void mbarrier_arrive_expect(uint64_t* p, int bytes, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Barrier& barrier = find(p, "mbarrier.arrive.expect_tx", pc, where);
    touch(p, pc);
    preempt();
    add_bytes(barrier, bytes, "mbarrier.arrive.expect_tx", lines_of(pc, where));
    arrive(barrier, "mbarrier.arrive.expect_tx", pc, where);
}

void mbarrier_wait(uint64_t* p, int parity, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Barrier& barrier = find(p, "a wait", pc, where);
    Thread& thread = self();
    touch(p, pc);
    preempt();
    if (barrier.phase % 2 == parity) {
        barrier.waiters.push_back({thread.number, parity});
        thread.awaited = p;
        thread.parity = parity;
        suspend(thread, State::AtMbarrier, pc, where);
        return;
    }
    const int64_t over = barrier.phase - 1;
    if (barrier.had[thread.number] == over) {
        kernel_fault(
            format("a wait that does not wait: parity %d of mbarrier %d is that of phase %lld, which this "
                   "thread has seen over before, at %s",
                   parity, barrier.number, static_cast<long long>(over), lines_of(pc, where).c_str()));
    }
    barrier.had[thread.number] = over;
    race::acquire(thread.warp(), barrier.over);
}

int mbarrier_agent(const uint64_t* p, const void* pc, const Where& where) {
    const Barrier& barrier = find(p, "a bulk copy", pc, where);
    if (!barrier.fenced) {
        kernel_fault(
            format("mbarrier %d is used by a bulk copy, but its initialisation was not fenced "
                   "(fence.mbarrier_init), at %s",
                   barrier.number, lines_of(pc, where).c_str()));
    }
    return race::kFirstAgent + race::kWarpgroups + barrier.number % (race::kTransferAgents - 1);
}

void mbarrier_complete(const uint64_t* p, int bytes, const race::Clock& clock) {
    Barrier& barrier = barriers[p];
    barrier.gathering.join(clock);
    add_bytes(barrier, -bytes, "a bulk copy", "its end");
    end_phase_if_complete(barrier);
}

std::string text_of_mbarrier(const void* p, int parity) {
    const Barrier& barrier = barriers[p];
    return format("mbarrier %d for parity %d (phase %lld, %d of %d arrivals and %lld bytes to come)", barrier.number,
                  parity, static_cast<long long>(barrier.phase), barrier.pending, barrier.expected,
                  static_cast<long long>(barrier.bytes));
}

void check_mbarriers_at_end() {
    for (const auto& [p, barrier] : barriers) {
        if (barrier.bytes == 0) continue;
        kernel_fault(format("the block ends while mbarrier %d has %lld bytes to come in phase %lld", barrier.number,
                            static_cast<long long>(barrier.bytes), static_cast<long long>(barrier.phase)));
    }
}

void reset_mbarriers() { barriers.clear(); }

}  // namespace cuda_on_cpu
