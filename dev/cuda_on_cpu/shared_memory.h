// A block's shared memory: static variables in one region, the dynamic array right before a guard page.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

/// The running block's variable known by `tag`; its type's size and alignment.
void* static_shared(const void* tag, size_t bytes, size_t alignment);
void* dynamic_shared();

/// Makes room for a launch and forgets the last one's variables. `limit`: static and dynamic bytes together.
void begin_shared(size_t dynamic_bytes, size_t limit);

/// Fills it with a pattern (NaN in every floating-point type).
void poison_shared();

/// All of shared memory with its gaps, for the checker.
char* shared_base();
constexpr size_t kSharedRegion = 512 << 10;

/// The end of the variable that `p` lies in, or nullptr.
const char* end_of_shared_variable(const void* p);

}  // namespace cuda_on_cpu
