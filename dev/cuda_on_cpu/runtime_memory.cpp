// The CUDA runtime's functions about memory.
#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/race_checker.h"
#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/streams.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace cuda_on_cpu {

namespace {

int failing_allocation = 0;

size_t free_bytes() {
    const Device& device = machine().devices[static_cast<size_t>(current_device())];
    const size_t taken = device.used_by_others + allocated_bytes(current_device());
    return taken < device.memory_bytes ? device.memory_bytes - taken : 0;
}

// The direction must be what the pointers are, and the ranges must be inside allocations.
cudaError_t check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    const bool to_device = in_device_region(to), from_device = in_device_region(from);
    const bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind != cudaMemcpyDefault && (says_to != to_device || says_from != from_device)) return cudaErrorInvalidValue;
    if (to_device && !is_device_memory(to, bytes)) return cudaErrorInvalidValue;
    if (from_device && !is_device_memory(from, bytes)) return cudaErrorInvalidValue;
    return cudaSuccess;
}

}  // namespace

void fail_allocation(int n) { failing_allocation = n; }

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

extern "C" {

cudaError_t cudaMalloc(void** p, size_t bytes) {
    const Lock held = lock();
    *p = nullptr;
    if (const cudaError_t error = usable()) return finish(error);
    if (captures_under_way() > 0) return finish(cudaErrorStreamCaptureUnsupported);
    if (bytes == 0) return cudaSuccess;
    if (failing_allocation > 0 && --failing_allocation == 0) return finish(cudaErrorMemoryAllocation);
    if (bytes > free_bytes()) return finish(cudaErrorMemoryAllocation);
    *p = allocate_device(bytes, current_device());
    return *p ? cudaSuccess : finish(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* p) {
    const Lock held = lock();
    if (!p) return finish(usable());
    wait_for_everything();
    if (!free_device(p)) return finish(cudaErrorInvalidValue);
    return finish(usable());
}

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
    const Lock held = lock();
    *p = nullptr;
    if (const cudaError_t error = usable()) return finish(error);
    constexpr size_t kPage = 4096;
    *p = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
    if (!*p) return finish(cudaErrorMemoryAllocation);
    add_pinned(*p, bytes);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaHostAlloc(p, bytes, cudaHostAllocDefault); }

cudaError_t cudaFreeHost(void* p) {
    const Lock held = lock();
    if (!p) return cudaSuccess;
    wait_for_everything();
    if (!remove_pinned(p)) return finish(cudaErrorInvalidValue);
    std::free(p);
    return finish(usable());
}

cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
    const Lock held = lock();
    add_pinned(p, bytes);
    return finish(usable());
}

cudaError_t cudaHostUnregister(void* p) {
    const Lock held = lock();
    wait_for_everything();
    return remove_pinned(p) ? cudaSuccess : finish(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    *available = free_bytes();
    *total = machine().devices[static_cast<size_t>(current_device())].memory_bytes;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
    const Lock held = lock();
    std::memset(attributes, 0, sizeof *attributes);
    attributes->type = in_device_region(p) ? cudaMemoryTypeDevice
                       : is_pinned(p)      ? cudaMemoryTypeHost
                                           : cudaMemoryTypeUnregistered;
    attributes->device = current_device();
    return finish(usable());
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (bytes == 0) return cudaSuccess;
    if (const cudaError_t error = check_copy(to, from, bytes, kind)) return finish(error);
    const bool pageable_source = !in_device_region(from) && !is_pinned(from);
    const bool pageable_target = !in_device_region(to) && !is_pinned(to);
    if (pageable_target && is_capturing(stream)) return finish(cudaErrorStreamCaptureUnsupported);
    if (pageable_source && !is_capturing(stream)) {  // Staged: the caller may change it when we return.
        const std::shared_ptr<char[]> staged(new char[bytes]);
        std::memcpy(staged.get(), from, bytes);
        enqueue(stream, [=] {
            std::memcpy(to, staged.get(), bytes);
            race::written(to, bytes);
        });
        return cudaSuccess;
    }
    enqueue(stream, [=] {
        std::memcpy(to, from, bytes);
        race::written(to, bytes);
    });
    if (pageable_target) wait_for_stream(stream);
    return finish(sticky_error());
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    const Lock held = lock();
    if (captures_under_way() > 0) return finish(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr)) return error;
    wait_for_stream(nullptr);
    return finish(sticky_error());
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (bytes == 0) return cudaSuccess;
    if (!is_device_memory(to, bytes)) return finish(cudaErrorInvalidValue);
    enqueue(stream, [=] {
        std::memset(to, value, bytes);
        race::written(to, bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }
}
