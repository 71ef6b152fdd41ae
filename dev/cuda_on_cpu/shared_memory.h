// A block's shared memory: static variables in one region, the dynamic array right before a guard page.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

/// The running block's variable known by `tag`; its type's size and alignment.
void* static_shared(const void* tag, size_t bytes, size_t alignment);

/// `alignment`: what the kernel asks for the array's shared address.
void* dynamic_shared(size_t alignment = 128);

/// Makes room for a launch and forgets the last one's variables. `limit`: static and dynamic bytes together.
void begin_shared(size_t dynamic_bytes, size_t limit);

/// Fills it with a pattern (NaN in every floating-point type).
void poison_shared();

/// All of shared memory with its gaps, for the checker.
char* shared_base();
constexpr size_t kSharedRegion = 512 << 10;

/// Addresses within shared memory, as descriptors have them (18 bits). The dynamic array begins at a multiple of what
/// was asked for, and no more. A kernel_fault outside of what can be named.
uint32_t shared_address(const void* p);
char* shared_pointer(uint32_t address);

/// Where the byte at an address lies under the swizzle of so many bytes (32, 64 or 128).
inline uint32_t swizzled(uint32_t address, int span) {
    return address ^ ((address >> 7 & static_cast<uint32_t>(span / 16 - 1)) << 4);
}

/// A variable of the launch, or the dynamic array.
struct SharedRange {
    const char* begin = nullptr;
    const char* end = nullptr;
    bool has(const void* p) const { return p >= begin && p < end; }
};
/// That which `p` lies in; empty if there is none.
SharedRange find_shared_range(const void* p);

/// The end of the variable that `p` lies in, or nullptr.
inline SharedRange last_shared_range;
inline const char* end_of_shared_variable(const void* p) {
    if (!last_shared_range.has(p)) last_shared_range = find_shared_range(p);
    return last_shared_range.end;
}

}  // namespace cuda_on_cpu
