// Device memory: allocations apart from each other between guard pages, filled with NaN, closed to the host.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

/// nullptr if the device's memory or the address range is exhausted. Aligned to 256 bytes like the real one, and as
/// close to the guard page behind it as that allows.
void* allocate_device(size_t bytes, int device);

/// False if `p` is no allocation.
bool free_device(void* p);

/// The whole range lies in one live allocation.
bool is_device_memory(const void* p, size_t bytes);
bool in_device_region(const void* p);
size_t allocated_bytes(int device);

void add_pinned(void* p, size_t bytes);
bool remove_pinned(void* p);
bool is_pinned(const void* p);

/// Device memory is accessible while one of these lives: kernels, copies and the libraries' stand-ins.
class DeviceAccess {
  public:
    DeviceAccess();
    ~DeviceAccess();
    DeviceAccess(const DeviceAccess&) = delete;
};

/// Turns access violations into reports: in a kernel a fault, on the host a line naming the place before the crash.
void prepare_fault_handler();

}  // namespace cuda_on_cpu
