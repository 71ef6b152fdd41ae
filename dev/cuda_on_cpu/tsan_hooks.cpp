// The functions that -fsanitize=thread has the kernels call, in place of libtsan's.
#include "dev/cuda_on_cpu/race_cells.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

namespace {

using race::Access;

inline void checked(const void* p, size_t bytes, Access kind, const void* pc) {
    if (kernel_code) race::access(p, bytes, kind, pc);
}

[[noreturn, gnu::noinline]] void misaligned(const void* p, size_t bytes, Access kind, const void* pc) {
    kernel_fault(format("misaligned access: %s of %zu bytes at %p, at %s", kind == Access::Read ? "read" : "write",
                        bytes, p, lines_of(pc).c_str()),
                 cudaErrorMisalignedAddress);
}

// An access that the source says is aligned, such as one through a float4*.
template <Access kind, size_t bytes>
inline void checked_aligned(const void* p, const void* pc) {
    if (!kernel_code) return;
    if (reinterpret_cast<uintptr_t>(p) % bytes) misaligned(p, bytes, kind, pc);
    if (self().stack.has(p) && !race::watch_registers) return;
    race::access_aligned<kind, bytes>(static_cast<const char*>(p), pc);
}

}  // namespace

}  // namespace cuda_on_cpu

using cuda_on_cpu::checked, cuda_on_cpu::checked_aligned, cuda_on_cpu::race::Access;

#define CALLER __builtin_return_address(0)
#define HOOKS(bytes)                                                                               \
    void __tsan_read##bytes(void* p) { checked_aligned<Access::Read, bytes>(p, CALLER); }          \
    void __tsan_write##bytes(void* p) { checked_aligned<Access::Write, bytes>(p, CALLER); }        \
    void __tsan_unaligned_read##bytes(void* p) { checked(p, bytes, Access::Read, CALLER); }        \
    void __tsan_unaligned_write##bytes(void* p) { checked(p, bytes, Access::Write, CALLER); }      \
    void __tsan_volatile_read##bytes(void* p) { checked_aligned<Access::Read, bytes>(p, CALLER); } \
    void __tsan_volatile_write##bytes(void* p) { checked_aligned<Access::Write, bytes>(p, CALLER); }

// Atomic operations of host code in the kernels' files, such as a shared_ptr's.
#define ATOMIC_HOOKS(bits, T)                                                                                        \
    T __tsan_atomic##bits##_load(const T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }                   \
    void __tsan_atomic##bits##_store(T* p, T value, int) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }           \
    T __tsan_atomic##bits##_exchange(T* p, T value, int) { return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST); } \
    T __tsan_atomic##bits##_fetch_add(T* p, T value, int) { return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); } \
    T __tsan_atomic##bits##_fetch_sub(T* p, T value, int) { return __atomic_fetch_sub(p, value, __ATOMIC_SEQ_CST); } \
    int __tsan_atomic##bits##_compare_exchange_strong(T* p, T* expected, T value, int, int) {                        \
        return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);           \
    }                                                                                                                \
    int __tsan_atomic##bits##_compare_exchange_weak(T* p, T* expected, T value, int, int) {                          \
        return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);           \
    }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_read_range(void* p, unsigned long bytes) { checked(p, bytes, Access::Read, CALLER); }
void __tsan_write_range(void* p, unsigned long bytes) { checked(p, bytes, Access::Write, CALLER); }
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
ATOMIC_HOOKS(8, uint8_t)
ATOMIC_HOOKS(16, uint16_t)
ATOMIC_HOOKS(32, uint32_t)
ATOMIC_HOOKS(64, uint64_t)
}
