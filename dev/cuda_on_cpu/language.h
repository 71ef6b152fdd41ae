// The device language for a host compiler: what nvcc supplies by itself, and the twins of
// llmc/backend/cuda/language.cuh (contracts are there). NVIDIA's headers give the types; without __CUDACC__ they
// declare nothing of what follows.
//
// Everything here is inlined into kernels, whose memory accesses are checked; what is done for a kernel is out of line.
#pragma once

#ifdef __CUDACC__
#error "this header is for host compilers"
#endif

#include "dev/cuda_on_cpu/async_copy.h"
#include "dev/cuda_on_cpu/barriers.h"
#include "dev/cuda_on_cpu/language_math.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/scheduler.h"
#include "dev/cuda_on_cpu/shared_memory.h"
#include "dev/cuda_on_cpu/streams.h"
#include "dev/cuda_on_cpu/warp_operations.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#undef __shared__
#define __shared__ static_assert(false, "use SHARED or DYNAMIC_SHARED");
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

#define CUDA_ON_CPU_INLINE inline __attribute__((always_inline))

#define SHARED(type, name)                 \
    static const char shared_tag_##name{}; \
    auto& name = *::cuda_on_cpu::shared_variable<std::type_identity_t<type>>(&shared_tag_##name)

#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::cuda_on_cpu::dynamic_shared())

constexpr int warpSize = 32;
using std::max;
using std::min;

namespace cuda_on_cpu {

template <typename T>
CUDA_ON_CPU_INLINE T* shared_variable(const void* tag) {
    return static_cast<T*>(static_shared(tag, sizeof(T), alignof(T) > 16 ? alignof(T) : 16));
}

template <typename T>
CUDA_ON_CPU_INLINE T shuffled(Shuffle kind, unsigned mask, T value, int argument, int width, const Where& where) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move up to 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = shuffle(kind, mask, bits, argument, width, where);
    __builtin_memcpy(static_cast<void*>(&value), &bits, sizeof value);
    return value;
}

// Only one thread runs at a time, and none is preempted in here. Out of line and unchecked, so that the checker sees
// one atomic operation rather than a read and a write.
template <typename T, typename Change>
__attribute__((noinline, no_sanitize_thread)) T atomic_change(T* p, Change change) {
    race::atomic_operation(p, sizeof(T), __builtin_return_address(0));
    const T before = *p;
    *p = change(before);
    return before;
}

}  // namespace cuda_on_cpu

#define HERE const ::cuda_on_cpu::Where& where = ::cuda_on_cpu::Where::current()

// ---- barriers and fences ---------------------------------------------------------------------

CUDA_ON_CPU_INLINE void __syncthreads(HERE) { ::cuda_on_cpu::block_barrier(0, ::cuda_on_cpu::Vote::None, where); }
CUDA_ON_CPU_INLINE int __syncthreads_count(int predicate, HERE) {
    return ::cuda_on_cpu::block_barrier(predicate, ::cuda_on_cpu::Vote::Count, where);
}
CUDA_ON_CPU_INLINE int __syncthreads_and(int predicate, HERE) {
    return ::cuda_on_cpu::block_barrier(predicate, ::cuda_on_cpu::Vote::And, where);
}
CUDA_ON_CPU_INLINE int __syncthreads_or(int predicate, HERE) {
    return ::cuda_on_cpu::block_barrier(predicate, ::cuda_on_cpu::Vote::Or, where);
}
CUDA_ON_CPU_INLINE void __syncwarp(unsigned mask = 0xffffffffu, HERE) { ::cuda_on_cpu::warp_barrier(mask, where); }
CUDA_ON_CPU_INLINE void __threadfence() { ::cuda_on_cpu::race::fence(); }
CUDA_ON_CPU_INLINE void __threadfence_block() {}
CUDA_ON_CPU_INLINE void __threadfence_system() { ::cuda_on_cpu::race::fence(); }
CUDA_ON_CPU_INLINE void __nanosleep(unsigned) { ::cuda_on_cpu::preempt(); }
[[noreturn]] inline void __trap() { ::cuda_on_cpu::kernel_fault("__trap() was called"); }

// ---- warps --------------------------------------------------------------------------------------

template <typename T>
CUDA_ON_CPU_INLINE T __shfl_sync(unsigned mask, T value, int lane, int width = 32, HERE) {
    return ::cuda_on_cpu::shuffled(::cuda_on_cpu::Shuffle::Index, mask, value, lane, width, where);
}
template <typename T>
CUDA_ON_CPU_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, HERE) {
    return ::cuda_on_cpu::shuffled(::cuda_on_cpu::Shuffle::Up, mask, value, static_cast<int>(delta), width, where);
}
template <typename T>
CUDA_ON_CPU_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, HERE) {
    return ::cuda_on_cpu::shuffled(::cuda_on_cpu::Shuffle::Down, mask, value, static_cast<int>(delta), width, where);
}
template <typename T>
CUDA_ON_CPU_INLINE T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, HERE) {
    return ::cuda_on_cpu::shuffled(::cuda_on_cpu::Shuffle::Xor, mask, value, bits, width, where);
}
CUDA_ON_CPU_INLINE unsigned __ballot_sync(unsigned mask, int predicate, HERE) {
    return ::cuda_on_cpu::ballot(mask, predicate, "__ballot_sync", where);
}
CUDA_ON_CPU_INLINE int __any_sync(unsigned mask, int predicate, HERE) {
    return ::cuda_on_cpu::ballot(mask, predicate, "__any_sync", where) != 0;
}
CUDA_ON_CPU_INLINE int __all_sync(unsigned mask, int predicate, HERE) {
    return ::cuda_on_cpu::ballot(mask, predicate, "__all_sync", where) == mask;
}
template <typename T>
CUDA_ON_CPU_INLINE T __reduce_add_sync(unsigned mask, T value, HERE) {
    return static_cast<T>(::cuda_on_cpu::reduce(::cuda_on_cpu::Reduction::Add, mask, static_cast<unsigned>(value),
                                                std::is_signed_v<T>, where));
}
template <typename T>
CUDA_ON_CPU_INLINE T __reduce_min_sync(unsigned mask, T value, HERE) {
    return static_cast<T>(::cuda_on_cpu::reduce(::cuda_on_cpu::Reduction::Min, mask, static_cast<unsigned>(value),
                                                std::is_signed_v<T>, where));
}
template <typename T>
CUDA_ON_CPU_INLINE T __reduce_max_sync(unsigned mask, T value, HERE) {
    return static_cast<T>(::cuda_on_cpu::reduce(::cuda_on_cpu::Reduction::Max, mask, static_cast<unsigned>(value),
                                                std::is_signed_v<T>, where));
}
CUDA_ON_CPU_INLINE unsigned __reduce_or_sync(unsigned mask, unsigned value, HERE) {
    return ::cuda_on_cpu::reduce(::cuda_on_cpu::Reduction::Or, mask, value, false, where);
}
CUDA_ON_CPU_INLINE unsigned __reduce_and_sync(unsigned mask, unsigned value, HERE) {
    return ::cuda_on_cpu::reduce(::cuda_on_cpu::Reduction::And, mask, value, false, where);
}

// ---- memory ---------------------------------------------------------------------------------------

template <typename T>
CUDA_ON_CPU_INLINE T atomicAdd(T* p, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [value](T x) { return static_cast<T>(x + value); });
}
template <typename T>
CUDA_ON_CPU_INLINE T atomicMax(T* p, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [value](T x) { return x < value ? value : x; });
}
template <typename T>
CUDA_ON_CPU_INLINE T atomicMin(T* p, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [value](T x) { return value < x ? value : x; });
}
template <typename T>
CUDA_ON_CPU_INLINE T atomicOr(T* p, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [value](T x) { return x | value; });
}
template <typename T>
CUDA_ON_CPU_INLINE T atomicAnd(T* p, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [value](T x) { return x & value; });
}
template <typename T>
CUDA_ON_CPU_INLINE T atomicExch(T* p, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [value](T) { return value; });
}
template <typename T>
CUDA_ON_CPU_INLINE T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    return ::cuda_on_cpu::atomic_change(p, [expected, value](T x) { return x == expected ? value : x; });
}
CUDA_ON_CPU_INLINE unsigned atomicInc(unsigned* p, unsigned last) {
    return ::cuda_on_cpu::atomic_change(p, [last](unsigned x) { return x >= last ? 0u : x + 1; });
}

template <typename T>
CUDA_ON_CPU_INLINE T __ldg(const T* p) {
    return *p;
}
template <typename T>
CUDA_ON_CPU_INLINE T __ldcs(const T* p) {
    return *p;
}
template <typename T>
CUDA_ON_CPU_INLINE T __ldcg(const T* p) {
    return *p;
}
template <typename T>
CUDA_ON_CPU_INLINE T __ldca(const T* p) {
    return *p;
}
template <typename T>
CUDA_ON_CPU_INLINE void __stcs(T* p, std::type_identity_t<T> value) {
    *p = value;
}
template <typename T>
CUDA_ON_CPU_INLINE void __stcg(T* p, std::type_identity_t<T> value) {
    *p = value;
}

// ---- the twins of language.cuh ---------------------------------------------------------------------

namespace llmc::cuda {

template <typename... Parameters, typename... Arguments>
cudaError_t start_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                         Arguments&&... arguments) {
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<std::decay_t<Parameters>...> values;
    };
    auto call = std::make_shared<Call>(
        Call{kernel, {static_cast<std::decay_t<Parameters>>(std::forward<Arguments>(arguments))...}});
    const auto start = [](void* p) {
        const Call& started = *static_cast<const Call*>(p);
        std::apply(started.kernel, started.values);
    };
    return ::cuda_on_cpu::submit(
        {reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, std::move(call), sizeof(Call), start},
        stream);
}

CUDA_ON_CPU_INLINE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4],
                                     HERE) {
    ::cuda_on_cpu::mma_m16n8k16(d, a, b, c, where);
}
CUDA_ON_CPU_INLINE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], HERE) {
    ::cuda_on_cpu::mma_m16n8k16(d, a, b, d, where);
}

CUDA_ON_CPU_INLINE void ldmatrix_x4(uint32_t (&r)[4], const void* row, HERE) {
    ::cuda_on_cpu::ldmatrix(r, 4, false, row, where);
}
CUDA_ON_CPU_INLINE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, HERE) {
    ::cuda_on_cpu::ldmatrix(r, 4, true, row, where);
}

CUDA_ON_CPU_INLINE void cp_async_16(void* shared, const void* global) {
    ::cuda_on_cpu::async_copy(shared, global, false);
}
CUDA_ON_CPU_INLINE void cp_async_16_or_zero(void* shared, const void* global, bool valid) {
    ::cuda_on_cpu::async_copy(shared, global, !valid);
}
CUDA_ON_CPU_INLINE void cp_async_commit() { ::cuda_on_cpu::async_commit(); }
template <int kPending>
CUDA_ON_CPU_INLINE void cp_async_wait() {
    ::cuda_on_cpu::async_wait(kPending);
}

CUDA_ON_CPU_INLINE void named_barrier_sync(int id, int threads, HERE) {
    ::cuda_on_cpu::named_barrier(id, threads, true, where);
}
CUDA_ON_CPU_INLINE void named_barrier_arrive(int id, int threads, HERE) {
    ::cuda_on_cpu::named_barrier(id, threads, false, where);
}

CUDA_ON_CPU_INLINE float exp2_approx(float x) { return exp2f(x); }

}  // namespace llmc::cuda

#undef HERE
