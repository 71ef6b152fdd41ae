// Bulk copies (TMA): boxes of tensors, and plain ranges, between global and shared memory ("cp.async.bulk" and
// "cp.async.bulk.tensor" in the PTX ISA). A load's bytes arrive, at a random moment, at an mbarrier; a store's source
// is read before the wait for its group.
//
// Reported: misaligned or out-of-bounds targets and sources, a target or source in use, what threads wrote or read and
// did not make known to the asynchronous proxy (fence.proxy.async), boxes that are stored below 0, unwritten sources,
// the end of a thread or block with copies under way.
#pragma once

#include "dev/cuda_on_cpu/report.h"

#include <cuda.h>

#include <cstdint>
#include <initializer_list>

namespace cuda_on_cpu {

/// The box at `coordinates` (innermost first, as many as the map has dimensions): what lies outside is 0.
void tensor_load(void* shared, const CUtensorMap* map, uint64_t* barrier, std::initializer_list<int> coordinates,
                 const Where& where);
/// What lies outside is skipped.
void tensor_store(const CUtensorMap* map, const void* shared, std::initializer_list<int> coordinates,
                  const Where& where);

void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier, const Where& where);

/// fence.proxy.async by the calling thread.
void async_proxy_fence();

/// Of the calling thread's stores.
void bulk_commit();
void bulk_wait(int pending_groups);

/// Faults if the thread leaves stores behind, or the block copies.
void check_stores_at_exit();
void check_copies_at_end();
void reset_bulk_copies();

}  // namespace cuda_on_cpu
