// The twins of llmc/backend/cuda/language_hopper.cuh for a host compiler; contracts are there.
#pragma once

#include "dev/cuda_on_cpu/bulk_copy.h"
#include "dev/cuda_on_cpu/language.h"
#include "dev/cuda_on_cpu/mbarrier.h"
#include "dev/cuda_on_cpu/register_pool.h"
#include "dev/cuda_on_cpu/wgmma.h"

#include <cuda.h>

#include <cstdint>

#define DYNAMIC_TILES(type, name) type* const name = static_cast<type*>(::cuda_on_cpu::dynamic_shared(1024))

#define HERE const ::cuda_on_cpu::Where& where = ::cuda_on_cpu::Where::current()

namespace llmc::cuda {

inline uint32_t shared_address(const void* p) { return ::cuda_on_cpu::shared_address(p); }

CUDA_ON_CPU_INLINE void barrier_init(uint64_t* barrier, int arrivals, HERE) {
    ::cuda_on_cpu::mbarrier_init(barrier, arrivals, where);
}
CUDA_ON_CPU_INLINE void barrier_fence_init() { ::cuda_on_cpu::mbarrier_fence_init(); }
CUDA_ON_CPU_INLINE void barrier_arrive(uint64_t* barrier, HERE) { ::cuda_on_cpu::mbarrier_arrive(barrier, where); }
CUDA_ON_CPU_INLINE void barrier_arrive_expect(uint64_t* barrier, int bytes, HERE) {
    ::cuda_on_cpu::mbarrier_arrive_expect(barrier, bytes, where);
}
CUDA_ON_CPU_INLINE void barrier_wait(uint64_t* barrier, int parity, HERE) {
    ::cuda_on_cpu::mbarrier_wait(barrier, parity, where);
}

CUDA_ON_CPU_INLINE void fence_async_proxy() { ::cuda_on_cpu::async_proxy_fence(); }
CUDA_ON_CPU_INLINE void tensor_load(void* shared, const CUtensorMap* map, uint64_t* barrier, int c0, int c1, int c2,
                                    int c3, HERE) {
    ::cuda_on_cpu::tensor_load(shared, map, barrier, {c0, c1, c2, c3}, where);
}
CUDA_ON_CPU_INLINE void tensor_store(const CUtensorMap* map, const void* shared, int c0, int c1, int c2, int c3, HERE) {
    ::cuda_on_cpu::tensor_store(map, shared, {c0, c1, c2, c3}, where);
}
CUDA_ON_CPU_INLINE void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier, HERE) {
    ::cuda_on_cpu::bulk_load(shared, global, bytes, barrier, where);
}
CUDA_ON_CPU_INLINE void bulk_commit() { ::cuda_on_cpu::bulk_commit(); }
template <int kPending>
CUDA_ON_CPU_INLINE void bulk_wait_read() {
    ::cuda_on_cpu::bulk_wait(kPending);
}

template <typename... Registers>
CUDA_ON_CPU_INLINE void wgmma_fence(Registers&...) {
    ::cuda_on_cpu::wgmma_fence();
}
CUDA_ON_CPU_INLINE void wgmma_commit() { ::cuda_on_cpu::wgmma_commit(); }
template <int kPending, typename... Registers>
CUDA_ON_CPU_INLINE void wgmma_wait(Registers&...) {
    ::cuda_on_cpu::wgmma_wait(kPending);
}

template <int kN, bool kAMnMajor, bool kBMnMajor>
CUDA_ON_CPU_INLINE void wgmma(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate, HERE) {
    ::cuda_on_cpu::wgmma(d, nullptr, a, b, {kN, false, kAMnMajor, kBMnMajor}, accumulate, where);
}
template <int kN, bool kBMnMajor>
CUDA_ON_CPU_INLINE void wgmma(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, HERE) {
    ::cuda_on_cpu::wgmma(d, a, 0, b, {kN, true, false, kBMnMajor}, accumulate, where);
}

template <int kCount>
CUDA_ON_CPU_INLINE void give_registers(HERE) {
    ::cuda_on_cpu::set_registers(kCount, false, where);
}
template <int kCount>
CUDA_ON_CPU_INLINE void take_registers(HERE) {
    ::cuda_on_cpu::set_registers(kCount, true, where);
}

}  // namespace llmc::cuda

#undef HERE
