// What the parts of the CUDA runtime's stand-in share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace cuda_on_cpu {

/// Why no call can succeed: no driver, an old one, no device, or an earlier fault.
cudaError_t usable();

/// Remembers an error for cudaGetLastError, and returns it.
cudaError_t finish(cudaError_t error);

/// Dynamic shared memory that a launch of the kernel may have: what cudaFuncSetAttribute() was asked for.
size_t shared_limit(const void* kernel);
/// Static and dynamic shared memory together: of a kernel that was asked for more, all that a block can have.
size_t whole_shared_limit(const void* kernel);

uint64_t executed_operations();

/// Events of whatever is executed after this are so much later.
void pretend_to_take(double milliseconds);

}  // namespace cuda_on_cpu
