// wgmma: matrix products of a warpgroup whose operands lie in shared memory, described by descriptors, and in registers
// ("wgmma.mma_async" in the PTX ISA). m64nNk16, bf16 operands, fp32 sums.
//
// A product happens at a random moment between its issue by the last of the 128 threads and the wait; until then its
// sums read as NaN. Reported: threads that differ in place, descriptors or the predicate; registers touched between a
// wgmma.fence and the product, or before its wait; sums of another shape without a fence; tiles misaligned, out of
// bounds, in flight, written by others or not made known to the asynchronous proxy; products never waited for.
#pragma once

#include "dev/cuda_on_cpu/report.h"

#include <cstdint>

namespace cuda_on_cpu {

struct WgmmaShape {
    int n;
    bool a_in_registers;
    bool a_mn_major, b_mn_major;
};

/// d: the thread's n / 2 sums. a_registers: its 4 registers of A, or null and a descriptor.
void wgmma(float* d, const uint32_t* a_registers, uint64_t a, uint64_t b, const WgmmaShape& shape, bool accumulate,
           const Where& where);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending_groups);

/// Faults if the thread leaves products behind.
void check_wgmmas_at_exit();
void reset_wgmmas();

}  // namespace cuda_on_cpu
