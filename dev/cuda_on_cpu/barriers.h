// __syncthreads and its voting forms, and named barriers (bar.sync, bar.arrive).
#pragma once

#include "dev/cuda_on_cpu/report.h"

namespace cuda_on_cpu {

enum class Vote { None, Count, And, Or };

/// All threads of the block must come to the same barrier, and none may have exited.
int block_barrier(int predicate, Vote vote, const Where& where);

void named_barrier(int id, int threads, bool wait, const Where& where);

}  // namespace cuda_on_cpu
