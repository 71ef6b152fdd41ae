// mbarriers: phases, arrivals and bytes to come, as in the PTX ISA ("mbarrier").
//
// Reported: more arrivals than a phase expects, use without or before the initialisation being fenced, initialisation
// of one that exists, a wait that passes for a phase that the thread has had already, bytes or arrivals that never come
// (a deadlock, with each barrier's state), bytes left over at the end of a block.
#pragma once

#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"

#include <cstdint>
#include <string>

namespace cuda_on_cpu {

/// The thread's mbarrier at `p`, aligned to 8 bytes in shared memory.
void mbarrier_init(uint64_t* p, int arrivals, const Where& where);
void mbarrier_fence_init();
void mbarrier_arrive(uint64_t* p, const Where& where);
void mbarrier_arrive_expect(uint64_t* p, int bytes, const Where& where);
/// Returns when the phase of that parity is over.
void mbarrier_wait(uint64_t* p, int parity, const Where& where);

/// For bulk copies: the agent of those that report to the barrier, and their bytes as they arrive.
int mbarrier_agent(const uint64_t* p, const void* pc, const Where& where);
void mbarrier_complete(const uint64_t* p, int bytes, const race::Clock& clock);

/// Of one that threads wait at: its phase, and what it waits for.
std::string text_of_mbarrier(const void* p, int parity);

/// Faults if one is left with bytes to come.
void check_mbarriers_at_end();
void reset_mbarriers();

}  // namespace cuda_on_cpu
