// cp.async: each copy happens at a random moment between its issue and the wait for its group.
#pragma once

namespace cuda_on_cpu {

/// 16 bytes from global to shared memory, or 16 zero bytes.
void async_copy(void* to, const void* from, bool zero);
void async_commit();
void async_wait(int pending_groups);

}  // namespace cuda_on_cpu
