// What the parts of the CUDA runtime's stand-in share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace cuda_on_cpu {

/// Why no call can succeed: no driver, an old one, no device, or an earlier fault.
cudaError_t usable();

/// Remembers an error for cudaGetLastError, and returns it.
cudaError_t finish(cudaError_t error);

/// Static and dynamic shared memory that a launch of the kernel may use.
size_t shared_limit(const void* kernel);

uint64_t executed_operations();

}  // namespace cuda_on_cpu
