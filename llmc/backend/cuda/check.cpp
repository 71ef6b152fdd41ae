#include "llmc/backend/cuda/check.h"

#include "llmc/base/error.h"

#include <cstdlib>
#include <cxxabi.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace llmc::cuda {

namespace {

/// What failed on the device is reported by a later call, unless each launch waits.
const char* advice(cudaError_t status) {
    switch (status) {
        case cudaErrorIllegalAddress:
        case cudaErrorLaunchFailure:
        case cudaErrorMisalignedAddress:
        case cudaErrorECCUncorrectable:
        case cudaErrorHardwareStackError: return "; with CUDA_LAUNCH_BLOCKING=1 the operation is named";
        default: return "";
    }
}

/// "llmc::cuda::convert_kernel<float, float, 1>", without the namespace of its file (device.cuh).
std::string without_parameters(std::string name) {
    constexpr std::string_view kOfFile = "_kernels::", kResult = "void ";
    for (size_t at = name.find(kOfFile); at != std::string::npos; at = name.find(kOfFile)) {
        const size_t before = name.find_last_of(": <(,", at), begin = before == std::string::npos ? 0 : before + 1;
        name.erase(begin, at + kOfFile.size() - begin);
    }
    if (name.starts_with(kResult)) name.erase(0, kResult.size());
    return name.substr(0, name.find('('));
}

}  // namespace

void cuda_failed(const char* operation, cudaError_t status) {
    fail("CUDA: {} failed: {} ({}){}", without_parameters(operation), cudaGetErrorString(status),
         cudaGetErrorName(status), advice(status));
}

void launch_failed(const void* kernel, cudaError_t status) {
    const char* mangled = nullptr;
    if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || !mangled) mangled = "a kernel";
    int error = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(mangled, nullptr, nullptr, &error),
                                                           &std::free);
    fail("CUDA: the launch of {} failed: {} ({}){}", without_parameters(name ? name.get() : mangled),
         cudaGetErrorString(status), cudaGetErrorName(status), advice(status));
}

void allow_dynamic_shared(const void* kernel, size_t bytes) {
    constexpr size_t kWithoutAsking = 48 << 10;
    if (bytes <= kWithoutAsking) return;
    static std::mutex mutex;
    static std::map<std::pair<int, const void*>, size_t> allowed;
    int device = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    const std::lock_guard lock(mutex);
    size_t& most = allowed[{device, kernel}];
    if (bytes <= most) return;
    const auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
    const cudaError_t status = cudaFuncSetAttribute(kernel, limit, static_cast<int>(bytes));
    if (status != cudaSuccess) launch_failed(kernel, status);
    most = bytes;
}

}  // namespace llmc::cuda
