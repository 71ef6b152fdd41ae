// The CUDA runtime's functions about devices, kernels and errors.
#include "dev/cuda_on_cpu/control.h"
#include "dev/cuda_on_cpu/memory.h"
#include "dev/cuda_on_cpu/report.h"
#include "dev/cuda_on_cpu/runtime.h"
#include "dev/cuda_on_cpu/streams.h"
#include "dev/cuda_on_cpu/tensor_map.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace cuda_on_cpu {

namespace {

Machine machine_of_environment() {
    Machine machine;
    if (const char* text = std::getenv("LLMC_CUDA_CAPABILITY")) {
        machine.devices.front().compute_capability = std::atoi(text);
    }
    if (const char* text = std::getenv("LLMC_CUBLASLT_EPILOGUES")) {
        machine.devices.front().backward_epilogues = std::atoi(text) != 0;
    }
    return machine;
}

Machine pretended = machine_of_environment();
thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;
std::map<const void*, size_t> dynamic_limits;

constexpr size_t kWithoutAsking = 48 << 10;

const Device* device_at(int i) {
    return i >= 0 && i < static_cast<int>(pretended.devices.size()) ? &pretended.devices[static_cast<size_t>(i)]
                                                                    : nullptr;
}

// What a block may have at most: 227 KiB on sm_90, 163 on sm_80, 99 on sm_86 and sm_89.
size_t largest_shared(const Device& device) {
    const int capability = device.compute_capability;
    return static_cast<size_t>(capability >= 90 ? 227 : capability == 80 || capability == 87 ? 163 : 99) << 10;
}

/// Compiled for sm_90a alone.
bool is_for_hopper(const void* kernel) { return function_at(kernel).find("_hopper_kernel") != std::string::npos; }

}  // namespace

const Machine& machine() { return pretended; }

void set_machine(const Machine& next) {
    pretended = next;
    device_of_thread = 0;
}

cudaError_t finish(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

cudaError_t usable() {
    if (pretended.driver == Driver::Absent) return cudaErrorInsufficientDriver;
    if (pretended.driver == Driver::TooOld) return cudaErrorInsufficientDriver;
    if (pretended.devices.empty()) return cudaErrorNoDevice;
    return sticky_error();
}

int current_device() { return device_of_thread; }

size_t shared_limit(const void* kernel) {
    const auto found = dynamic_limits.find(kernel);
    return found == dynamic_limits.end() ? kWithoutAsking : found->second;
}

size_t whole_shared_limit(const void* kernel) {
    const Device* const device = device_at(current_device());
    return dynamic_limits.count(kernel) == 0 || device == nullptr ? kWithoutAsking : largest_shared(*device);
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 0;
    if (const cudaError_t error = usable()) return finish(error);
    *count = static_cast<int>(pretended.devices.size());
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (const cudaError_t error = usable()) return finish(error);
    if (!device_at(device)) return finish(cudaErrorInvalidDevice);
    device_of_thread = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = device_of_thread;
    return finish(usable());
}

cudaError_t cudaSetDeviceFlags(unsigned) { return finish(usable()); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int i) {
    if (const cudaError_t error = usable()) return finish(error);
    const Device* const device = device_at(i);
    if (!device) return finish(cudaErrorInvalidDevice);
    std::memset(properties, 0, sizeof *properties);
    std::strncpy(properties->name, device->name.c_str(), sizeof properties->name - 1);
    properties->totalGlobalMem = device->memory_bytes;
    properties->major = device->compute_capability / 10;
    properties->minor = device->compute_capability % 10;
    properties->multiProcessorCount = device->multiprocessors;
    properties->sharedMemPerBlock = kWithoutAsking;
    properties->sharedMemPerBlockOptin = largest_shared(*device);
    properties->sharedMemPerMultiprocessor = largest_shared(*device) + (1 << 10);
    properties->maxThreadsPerBlock = kMaxThreads;
    properties->maxThreadsPerMultiProcessor = 2 * kMaxThreads;
    properties->warpSize = kLanes;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->l2CacheSize = 50 << 20;
    properties->memoryBusWidth = 5120;
    properties->asyncEngineCount = 2;
    properties->ECCEnabled = 1;
    properties->pciBusID = i + 1;
    properties->unifiedAddressing = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int i) {
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, i)) return error;
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
        case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(properties.sharedMemPerBlock); break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = static_cast<int>(properties.sharedMemPerBlockOptin);
            break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = static_cast<int>(properties.sharedMemPerMultiprocessor);
            break;
        case cudaDevAttrMaxThreadsPerBlock: *value = properties.maxThreadsPerBlock; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = properties.maxThreadsPerMultiProcessor; break;
        case cudaDevAttrWarpSize: *value = properties.warpSize; break;
        case cudaDevAttrL2CacheSize: *value = properties.l2CacheSize; break;
        case cudaDevAttrGlobalMemoryBusWidth: *value = properties.memoryBusWidth; break;
        case cudaDevAttrClockRate: *value = 1500000; break;
        case cudaDevAttrMemoryClockRate: *value = 2600000; break;
        case cudaDevAttrEccEnabled: *value = properties.ECCEnabled; break;
        case cudaDevAttrAsyncEngineCount: *value = properties.asyncEngineCount; break;
        case cudaDevAttrUnifiedAddressing: *value = 1; break;
        case cudaDevAttrPciBusId: *value = properties.pciBusID; break;
        default: *value = 0; break;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int i) {
    if (const cudaError_t error = usable()) return finish(error);
    if (!device_at(i)) return finish(cudaErrorInvalidDevice);
    std::snprintf(text, static_cast<size_t>(bytes), "0000:%02x:00.0", i + 1);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = pretended.driver == Driver::Absent   ? 0
               : pretended.driver == Driver::TooOld ? 11080
                                                    : pretended.driver_version;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset() {
    clear_report();
    return cudaSuccess;
}

// ---- kernels ----

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<size_t>(value) > largest_shared(*device_at(current_device()))) {
        return finish(cudaErrorInvalidValue);
    }
    dynamic_limits[kernel] = std::max(static_cast<size_t>(value), kWithoutAsking);
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
    const Lock held = lock();
    if (const cudaError_t error = usable()) return finish(error);
    const Device& device = *device_at(current_device());
    const bool runs_hoppers = device.compute_capability == 90 && device.hopper_kernels;
    if (device.kernels < 0 || (!runs_hoppers && is_for_hopper(kernel))) return finish(cudaErrorNoKernelImageForDevice);
    std::memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = kMaxThreads;
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(shared_limit(kernel));
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = device.compute_capability;
    if (device.kernels > 0) attributes->ptxVersion = device.kernels;
    return cudaSuccess;
}

cudaError_t cudaFuncGetName(const char** name, const void* kernel) {
    static std::map<const void*, std::string> names;
    const Lock held = lock();
    *name = (names[kernel] = function_at(kernel)).c_str();
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads, size_t shared_bytes) {
    if (const cudaError_t error = usable()) return finish(error);
    const size_t by_shared = shared_bytes ? largest_shared(*device_at(current_device())) / shared_bytes : 32;
    *blocks =
        static_cast<int>(std::min({by_shared, size_t{2 * kMaxThreads} / static_cast<size_t>(threads), size_t{32}}));
    return cudaSuccess;
}

// ---- the driver's functions ----

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
    if (const cudaError_t error = usable()) return finish(error);
    const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
    *function = known ? reinterpret_cast<void*>(&encode_tiled) : nullptr;
    if (result) *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

// ---- errors ----

cudaError_t cudaGetLastError() {
    const cudaError_t error = sticky_error() != cudaSuccess ? sticky_error() : last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError() { return sticky_error() != cudaSuccess ? sticky_error() : last_error; }

#define ERRORS(X)                                                                                     \
    X(cudaSuccess, "no error")                                                                        \
    X(cudaErrorInvalidValue, "invalid argument")                                                      \
    X(cudaErrorMemoryAllocation, "out of memory")                                                     \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                \
    X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                           \
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")    \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                        \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                               \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                      \
    X(cudaErrorNotReady, "device not ready")                                                          \
    X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                            \
    X(cudaErrorMisalignedAddress, "misaligned address")                                               \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                           \
    X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                              \
    X(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered")                               \
    X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")    \
    X(cudaErrorIllegalState, "the operation cannot be performed in the present state")                \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")          \
    X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")   \
    X(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences") \
    X(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began")        \
    X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                           \
    X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")     \
    X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")

const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define NAME(value, text) \
    case value: return #value;
        ERRORS(NAME)
        default: return "cudaErrorUnknown";
    }
}

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
#define TEXT(value, text) \
    case value: return text;
        ERRORS(TEXT)
        default: return "unknown error";
    }
}
}
