// The device itself: which one, what it can do, its memory, copies, and time.
#include "llmc/backend/cuda/device.h"

#include "llmc/backend/cuda/check.h"
#include "llmc/backend/cuda/cublaslt.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/prepared_matmuls.h"
#include "llmc/backend/cuda/recordings.h"
#include "llmc/backend/cuda/staging.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"

#include <algorithm>
#include <cstring>

namespace llmc::cuda {
namespace {

/// Oldest architecture with bf16 tensor cores and cp.async, which the kernels need.
constexpr int kOldestMajor = 8;

/// The one that has kernels of its own, as 10 * major + minor.
constexpr int kHopper = 90;

/// Bytes left to CUDA for what it loads when it is first used: our kernels, the library's, graphs.
constexpr int64_t kModules = 256 << 20;

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
    return value;
}

std::string driver_problem(cudaError_t status) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    const auto version = [](int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); };
    if (status == cudaErrorNoDevice) return "no NVIDIA GPU was found (or CUDA_VISIBLE_DEVICES hides it)";
    if (driver == 0) return "there is no NVIDIA driver";
    if (status == cudaErrorInsufficientDriver) {
        return fmt::format("the NVIDIA driver is too old: it knows CUDA {}, this build needs {}; update the driver",
                           version(driver), version(runtime));
    }
    return cudaGetErrorString(status);
}

/// Dense matrix FLOPs per clock and multiprocessor, by architecture, and the clock up to which data sheets count them.
struct MatrixRate {
    int capability;  ///< 10 * major + minor.
    double bf16, fp32, highest_hertz;
    bool halved_on_geforce = false;
};
constexpr MatrixRate kMatrixRates[] = {
    {80, 2048, 128, 1.41e9}, {86, 1024, 256, 2.6e9, true}, {87, 1024, 256, 2.6e9},   {89, 1024, 256, 2.6e9, true},
    {90, 4096, 256, 1.83e9}, {100, 8192, 256, 1.85e9},     {103, 8192, 256, 1.85e9}, {120, 1024, 256, 2.6e9, true},
};

}  // namespace

std::string why_unusable(int index) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
        cudaGetLastError();  // It is answered; the next call shall not report it again.
        return driver_problem(count == 0 && status == cudaSuccess ? cudaErrorNoDevice : status);
    }
    if (index >= count) {
        return fmt::format("this machine has {} GPU{}, counted from 0", count, count == 1 ? "" : "s");
    }
    const int major = attribute(cudaDevAttrComputeCapabilityMajor, index);
    const int minor = attribute(cudaDevAttrComputeCapabilityMinor, index);
    if (major < kOldestMajor) {
        return fmt::format("it has compute capability {}.{}, the kernels need {}.0 (Ampere) or newer", major, minor,
                           kOldestMajor);
    }
    return cublaslt().problem;
}

std::string bus_address(int index) {
    char text[32] = {};
    CUDA_CHECK(cudaDeviceGetPCIBusId(text, sizeof(text), index));
    return text;
}

CudaBackend::CudaBackend(int index) : device_(index) {
    const std::string reason = why_unusable(index);
    if (!reason.empty()) fail_usage("--device=cuda:{}: {}; or use --device=cpu", index, reason);
    CUDA_CHECK(cudaSetDevice(index));
    int code = 0, ptx = 0;
    const cudaError_t status = try_kernels(&code, &ptx);
    if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction) {
        const int major = attribute(cudaDevAttrComputeCapabilityMajor, index);
        const int minor = attribute(cudaDevAttrComputeCapabilityMinor, index);
        fail(
            "--device=cuda:{}: the card needs kernels for compute capability {}{}, this build has them for {}; build "
            "it "
            "with make GPU_ARCH={}{}, or use --device=cpu",
            index, major, minor, LLMC_GPU_ARCH, major, minor);
    }
    CUDA_CHECK(status);
    // Of PTX the driver has made code for this very card.
    kernels_ = code == ptx ? fmt::format("for sm_{}", code) : fmt::format("from PTX of compute_{}", ptx);
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    size_t available = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&available, &total));
    held_at_start_ = static_cast<int64_t>(total - available);
    multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, index);
    matmuls_ = std::make_unique<PreparedMatmuls>(multiprocessors_);
    recordings_ = std::make_unique<Recordings>(stream_);
    staging_ = std::make_unique<Staging>(stream_);
}

CudaBackend::CudaBackend(PlanningOnly) : device_(-1) {}

CudaBackend::~CudaBackend() {
    if (stream_ == nullptr) return;
    cudaStreamSynchronize(stream_);  // Errors have been reported where they arose, or nobody is left to act on them.
    recordings_.reset();
    staging_.reset();
    matmuls_.reset();
    cudaStreamDestroy(stream_);
}

DeviceInfo CudaBackend::info() const {
    DeviceInfo info;
    info.supports_bf16 = true;
    info.default_dtype = DType::BF16;
    info.arithmetic = {.cpu_products = "", .kernels = hopper_ ? kHopperKernels : kPortableKernels, .tf32 = tf32_};
    info.attention_backward_products = 7;  // The scores and their gradient are made for dK, dV and again for dQ.
    if (device_ < 0) {
        info.name = "a CUDA device";
        info.kind = "sm_90";
        return info;
    }
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device_));
    info.name = fmt::format("{}, sm_{}{}, kernels {}{}", properties.name, properties.major, properties.minor, kernels_,
                            hopper_ ? ", attention for sm_90a" : "") +
                (tf32_ ? ", fp32 products in TF32" : "");
    size_t available = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&available, &total));
    info.memory_total = static_cast<int64_t>(total);
    info.memory_available = std::max<int64_t>(0, static_cast<int64_t>(available) - kModules);
    info.memory_held = held_at_start_;
    const int capability = 10 * properties.major + properties.minor;
    info.kind = fmt::format("sm_{}", capability);
    const double hertz = 1e3 * attribute(cudaDevAttrClockRate, device_);
    for (const MatrixRate& rate : kMatrixRates) {
        if (rate.capability != capability) continue;
        const double per_clock = multiprocessors_ * std::min(hertz, rate.highest_hertz);
        // Of the architectures that both kinds of card have, those for games sum up in fp32 at half the rate.
        const bool halved = rate.halved_on_geforce && info.name.find("GeForce") != std::string::npos;
        info.peak_flops_bf16 = (halved ? 0.5 : 1.0) * rate.bf16 * per_clock;
        info.peak_flops_fp32 = rate.fp32 * per_clock;
    }
    // Two transfers a clock, over a bus whose width is in bits.
    info.bandwidth =
        2e3 * attribute(cudaDevAttrMemoryClockRate, device_) * attribute(cudaDevAttrGlobalMemoryBusWidth, device_) / 8;
    return info;
}

void CudaBackend::set_arithmetic(const Arithmetic& arithmetic) {
    hopper_ = arithmetic.kernels == kHopperKernels;
    tf32_ = arithmetic.tf32;
    if (matmuls_ != nullptr) matmuls_->set_tf32(tf32_);
}

std::string CudaBackend::why_no_hopper() const {
    if (device_ < 0) return "there is no GPU here";
    const int major = attribute(cudaDevAttrComputeCapabilityMajor, device_);
    const int minor = attribute(cudaDevAttrComputeCapabilityMinor, device_);
    if (10 * major + minor != kHopper) return fmt::format("its compute capability is {}.{}, not 9.0", major, minor);
    return can_load_hopper_kernels() ? "" : "this build has no kernels for sm_90a";
}

std::string CudaBackend::why_unsupported(const AttentionShape& shape) const {
    constexpr int64_t kLargestHead = 128;
    if (shape.HD <= kLargestHead) return "";
    return fmt::format("the CUDA kernels take heads of up to {} channels, not {}; use more heads, or --device=cpu",
                       kLargestHead, shape.HD);
}

void* CudaBackend::allocate(int64_t bytes, const std::string& what) {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        size_t available = 0, total = 0;
        CUDA_CHECK(cudaMemGetInfo(&available, &total));
        fail(
            "not enough memory on the GPU: {} needs {}, {} of {} is free; other programs and CUDA itself hold {} "
            "(nvidia-smi lists them); free some, or lower --batch-size",
            what, format_bytes(bytes), format_bytes(static_cast<int64_t>(available)),
            format_bytes(static_cast<int64_t>(total)), format_bytes(held_at_start_));
    }
    CUDA_CHECK(status);
    CUDA_CHECK(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_));
    return memory;
}

void CudaBackend::release(void* memory) {
    if (memory == nullptr) return;
    cudaStreamSynchronize(stream_);  // Called by destructors, perhaps because of an error that has been reported.
    cudaFree(memory);
}

void CudaBackend::copy_to_device(Tensor destination, const void* source) {
    if (is_host_memory(destination.data)) {
        synchronize();
        std::memcpy(destination.data, source, static_cast<size_t>(destination.bytes()));
        return;
    }
    staging_->copy(destination.data, source, destination.bytes());
}

void CudaBackend::copy_to_host(void* destination, Tensor source) {
    if (is_host_memory(source.data)) {
        synchronize();
        std::memcpy(destination, source.data, static_cast<size_t>(source.bytes()));
        return;
    }
    CUDA_CHECK(cudaMemcpyAsync(destination, source.data, static_cast<size_t>(source.bytes()), cudaMemcpyDeviceToHost,
                               stream_));
    CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void CudaBackend::zero(Tensor out) {
    CUDA_CHECK(cudaMemsetAsync(out.data, 0, static_cast<size_t>(out.bytes()), stream_));
}

void CudaBackend::synchronize() { CUDA_CHECK(cudaStreamSynchronize(stream_)); }

TimeMark CudaBackend::mark() {
    cudaEvent_t event = nullptr;
    CUDA_CHECK(cudaEventCreate(&event));
    CUDA_CHECK(cudaEventRecord(event, stream_));
    return {0, std::shared_ptr<void>(event, [](void* owned) { cudaEventDestroy(static_cast<cudaEvent_t>(owned)); })};
}

double CudaBackend::seconds_between(const TimeMark& first, const TimeMark& second) {
    float milliseconds = 0;
    auto* last = static_cast<cudaEvent_t>(second.event.get());
    CUDA_CHECK(cudaEventSynchronize(last));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(first.event.get()), last));
    return milliseconds * 1e-3;
}

}  // namespace llmc::cuda
