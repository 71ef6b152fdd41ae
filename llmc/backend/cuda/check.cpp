#include "llmc/backend/cuda/check.h"

#include "llmc/base/error.h"

#include <cstdlib>
#include <cxxabi.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace llmc::cuda {

void cuda_failed(const char* operation, cudaError_t status) {
    const std::string text = operation;
    fail("CUDA: {} failed: {} ({})", text.substr(0, text.find('(')), cudaGetErrorString(status),
         cudaGetErrorName(status));
}

void launch_failed(const void* kernel, cudaError_t status) {
    const char* mangled = nullptr;
    if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || !mangled) mangled = "a kernel";
    int error = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(mangled, nullptr, nullptr, &error),
                                                           &std::free);
    const std::string launched = name ? name.get() : mangled;
    fail("CUDA: the launch of {} failed: {} ({})", launched.substr(0, launched.find('(')), cudaGetErrorString(status),
         cudaGetErrorName(status));
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
