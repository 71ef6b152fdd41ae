#include "dev/cuda_on_cpu/fiber.h"

#include "dev/cuda_on_cpu/scheduler.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

// The six registers that a call must preserve; everything else the compiler saves around the call.
asm(R"(
.text
.globl cuda_on_cpu_switch
.type cuda_on_cpu_switch,@function
cuda_on_cpu_switch:
    .cfi_startproc
    endbr64
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");

namespace cuda_on_cpu {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStride = kStackBytes + kPage;

char* stacks() {
    static char* const memory = [] {
        void* p = mmap(nullptr, kMaxThreads * kStride, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            std::perror("CUDA on the CPU: memory for stacks");
            std::abort();
        }
        for (int i = 0; i < kMaxThreads; ++i) mprotect(static_cast<char*>(p) + i * kStride, kPage, PROT_NONE);
        return static_cast<char*>(p);
    }();
    return memory;
}

}  // namespace

Stack stack_of_thread(int thread) {
    char* const low = stacks() + thread * kStride + kPage;
    return {low, low + kStackBytes};
}

bool is_on_a_stack(const void* p) {
    const auto* address = static_cast<const char*>(p);
    return address >= stacks() && address < stacks() + kMaxThreads * kStride;
}

void* prepare(const Stack& stack, int thread, void (*entry)()) {
    // Tops at equal offsets would share their cache sets: a switch takes twice as long.
    const size_t colour = static_cast<size_t>(thread % 32) * 128;
    auto* top = reinterpret_cast<void**>(stack.high - colour);
    *--top = nullptr;  // Where `entry` would return to; it also makes the stack pointer 8 mod 16, as after a call.
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    return top;
}

}  // namespace cuda_on_cpu
