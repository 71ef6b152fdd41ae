// Work that goes on beside the threads of a block (bulk copies, wgmma): each happens at a random moment between its
// issue and the first wait that needs it. With seed 0 it happens at once, with seed 1 as late as it can.
#pragma once

#include <cstdint>
#include <functional>

namespace cuda_on_cpu {

/// Works of one queue (0 to 7) happen in the order of their issue; those without (-1), in any.
uint64_t start_async_work(int queue, std::function<void()> run);

/// Has it happen, and what comes before it in its queue, unless it has already.
void finish_async_work(uint64_t ticket);

/// Has one that is pending happen; false if none is.
bool progress_async_work();
bool async_work_is_pending();

void reset_async_work();

}  // namespace cuda_on_cpu
