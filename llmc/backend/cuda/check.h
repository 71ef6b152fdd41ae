// CUDA_CHECK(call): ends the run with the operation's name and CUDA's words when a call of the CUDA runtime fails.
#pragma once

#include <cuda_runtime_api.h>

namespace llmc::cuda {

/// Fails with "CUDA: `operation` failed: what CUDA says". Of an expression, the name before its parenthesis is shown.
[[noreturn]] void cuda_failed(const char* operation, cudaError_t status);

/// The same for the launch of `kernel`, by its name.
[[noreturn]] void launch_failed(const void* kernel, cudaError_t status);

/// Lets `kernel` use `bytes` of dynamic shared memory; more than 48 KiB have to be asked for once per device.
void allow_dynamic_shared(const void* kernel, size_t bytes);

}  // namespace llmc::cuda

#define CUDA_CHECK(call)                                                                                           \
    do {                                                                                                           \
        if (const cudaError_t status_ = (call); status_ != cudaSuccess) ::llmc::cuda::cuda_failed(#call, status_); \
    } while (false)
