#include "dev/cuda_on_cpu/async_copy.h"

#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"

#include <cstring>

namespace cuda_on_cpu {

namespace {

constexpr int kBytes = 16;

void perform(const AsyncCopy& copy) {
    if (copy.zero) {
        std::memset(copy.to, 0, kBytes);
    } else {
        std::memcpy(copy.to, copy.from, kBytes);
    }
}

}  // namespace

void async_copy(void* to, const void* from, bool zero) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    Thread& thread = self();
    if (reinterpret_cast<uintptr_t>(to) % kBytes || (!zero && reinterpret_cast<uintptr_t>(from) % kBytes)) {
        kernel_fault(format("misaligned access: cp.async from %p to %p, not multiples of 16, at %s", from, to,
                            lines_of(pc).c_str()));
    }
    if (!end_of_shared_variable(to)) {
        kernel_fault(
            format("out of bounds: cp.async to %p, which is not in shared memory, at %s", to, lines_of(pc).c_str()));
    }
    if (!zero && !in_device_region(from)) {
        kernel_fault(format("out of bounds: cp.async from %p, which is not in global memory, at %s", from,
                            lines_of(pc).c_str()));
    }
    if (!zero) race::access(from, kBytes, race::Access::Read, pc);
    race::copy_issued(to, kBytes, pc);
    thread.copies.push_back({to, from, zero, thread.copy_group, pc});
    if (random_order() && (random_bits() & 1)) perform(thread.copies.back());
}

void async_commit() {
    const ExecutorScope scope;
    ++self().copy_group;
}

void async_wait(int pending_groups) {
    const ExecutorScope scope;
    Thread& thread = self();
    const int last = thread.copy_group - pending_groups;  // Groups before this one must be complete.
    std::erase_if(thread.copies, [last](const AsyncCopy& copy) {
        if (copy.group >= last) return false;
        perform(copy);
        race::copy_done(copy.to, kBytes, copy.pc);
        return true;
    });
}

}  // namespace cuda_on_cpu
