// Fibers: one stack and one saved stack pointer for each CUDA thread of a block. x86-64, System V ABI.
#pragma once

#if !defined(__x86_64__)
#error "CUDA on the CPU: the fibers are written for x86-64 only"
#endif

#include <cstddef>

namespace cuda_on_cpu {

/// Saves the caller's registers and stack pointer to *save and goes on where `load` was saved.
extern "C" void cuda_on_cpu_switch(void** save, void* load);

constexpr size_t kStackBytes = 64 << 10;

struct Stack {
    char* low = nullptr;
    char* high = nullptr;  ///< kStackBytes above.
    bool has(const void* p) const { return static_cast<size_t>(static_cast<const char*>(p) - low) < kStackBytes; }
};

/// Stacks for all threads of a block, each above a guard page; made once and used for every block.
Stack stack_of_thread(int thread);
bool is_on_a_stack(const void* p);

/// A stack pointer to switch to: `entry` begins on `stack`. It must not return.
void* prepare(const Stack& stack, int thread, void (*entry)());

}  // namespace cuda_on_cpu
