#include "dev/cuda_on_cpu/register_pool.h"

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <algorithm>

namespace cuda_on_cpu {

namespace {

constexpr int kFile = 65536, kUnit = 8, kFewest = 24, kMost = 256, kThreads = 128;  // Threads of a warpgroup.

struct Group {
    int registers = 0, wanted = 0, arrived = 0;
    bool waits = false;
};
Group groups[kMaxThreads / kThreads];
int pool = 0;  // Registers, for each of a warpgroup's 128 threads, that nobody has.

/// What each thread of a block of so many has when it starts.
int at_entry() { return std::min(255, kFile / thread_count()) / kUnit * kUnit; }

void serve(int g) {
    Group& group = groups[g];
    if (!group.waits || group.wanted - group.registers > pool) return;
    pool -= group.wanted - group.registers;
    group.registers = group.wanted;
    group.waits = false;
    group.arrived = 0;
    for (int i = 0; i < kThreads; ++i) wake(thread_of_block(g * kThreads + i));
}

}  // namespace

void set_registers(int count, bool increase, const Where& where) {
    const void* const pc = __builtin_return_address(0);
    const ExecutorScope scope;
    const std::string name = format("setmaxnreg.%s %d", increase ? "inc" : "dec", count);
    const auto refuse = [&](const std::string& why) {
        kernel_fault(name + ": " + why + ", at " + lines_of(pc, where));
    };
    const int g = self().number / kThreads;
    Group& group = groups[g];
    if (thread_count() % kThreads) refuse("the block's threads are no whole warpgroups");
    if (count < kFewest || count > kMost || count % kUnit) refuse("24 to 256, a multiple of 8");
    if (group.registers == 0) group.registers = at_entry();
    if (group.arrived > 0 && group.wanted != count) refuse("others of the warpgroup ask for another count");
    if (increase && count < group.registers) refuse(format("fewer than the %d there are", group.registers));
    if (!increase && count > group.registers) refuse(format("more than the %d there are", group.registers));
    group.wanted = count;
    group.waits = ++group.arrived == kThreads;
    Thread& thread = self();
    if (group.waits) {
        for (int other = 0; other < thread_count() / kThreads; ++other) {
            serve((g + other) % (thread_count() / kThreads));  // The pool may have grown by this one.
        }
    }
    suspend(thread, State::AtRegisters, pc, where);
}

std::string text_of_registers() { return format("setmaxnreg (%d registers a thread are free)", pool); }

void reset_registers() {
    pool = 0;
    for (Group& group : groups) group = {};
}

}  // namespace cuda_on_cpu
