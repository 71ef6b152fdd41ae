// SIGSEGV and SIGBUS: a kernel's become a report and a sticky error; the host's name the place, then crash as ever.
#include "dev/cuda_on_cpu/fiber.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <execinfo.h>
#include <memory>
#include <ucontext.h>

namespace cuda_on_cpu {

namespace {

const void* fault_address = nullptr;
const void* fault_pc = nullptr;

// Goes on where the faulting thread stood, as if it had called this.
void fault_in_kernel() {
    kernel_code = false;
    kernel_fault(format("illegal access of %p (%s) at %s", fault_address,
                        is_device_memory(fault_address, 1) ? "device memory"
                        : is_on_a_stack(fault_address)     ? "a thread's local memory is used up"
                                                           : "not device memory",
                        lines_of(fault_pc).c_str()),
                 cudaErrorIllegalAddress);
}

void report_host_access() {
    void* frames[32];
    const int count = backtrace(frames, 32);
    std::string place = function_at(fault_pc) + " " + lines_of(static_cast<const char*>(fault_pc) + 1);
    for (int i = 2; i < count; ++i) {
        const std::string line = lines_of(frames[i]);
        if (line.rfind("0x", 0) != 0 || i < 6) place += "\n    " + line + " in " + function_at(frames[i]);
    }
    std::fprintf(stderr, "CUDA on the CPU: host code touches device memory at %p, in %s\n", fault_address,
                 place.c_str());
}

void on_fault(int signal_number, siginfo_t* info, void* context) {
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    fault_address = info->si_addr;
    fault_pc = reinterpret_cast<const void*>(registers[REG_RIP]);
    if (in_kernel()) {
        registers[REG_RSP] = ((registers[REG_RSP] - 256) & ~greg_t{15}) - 8;
        if (is_on_a_stack(fault_address)) registers[REG_RSP] = reinterpret_cast<greg_t>(self().stack.high) - 8;
        registers[REG_RIP] = reinterpret_cast<greg_t>(&fault_in_kernel);
        return;
    }
    if (in_device_region(fault_address)) report_host_access();
    std::signal(signal_number, SIG_DFL);  // The instruction is repeated, and ends the program.
}

}  // namespace

void prepare_fault_handler() {
    // A stack for the handler, of every OS thread that runs kernels: the fault may be that a stack is used up.
    constexpr size_t kBytes = 64 << 10;
    thread_local const std::unique_ptr<char[]> stack = [] {
        auto memory = std::make_unique<char[]>(kBytes);
        stack_t description{};
        description.ss_sp = memory.get();
        description.ss_size = kBytes;
        sigaltstack(&description, nullptr);
        return memory;
    }();
    static const bool installed = [] {
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
        return true;
    }();
    (void)installed;
    (void)stack;
}

}  // namespace cuda_on_cpu
