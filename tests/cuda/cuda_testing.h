// What tests of the CUDA backend share. An operation runs on the CUDA backend (on a GPU, or its kernels executed on the
// CPU) and on the CPU backend, with the same operands. The CPU backend in fp32 is the truth; our error in bf16 may be
// at most twice that of the CPU backend in bf16, or of rounding alone, and in fp32 a few roundings.
#pragma once

#include "llmc/backend/cuda/cuda_backend.h"
#include "tests/backend/backend_testing.h"
#include "tests/cuda_on_cpu/seeds.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace llmc {

/// The device under test, made once.
inline Backend& cuda_backend() {
    static cuda::CudaBackend backend(0);
    return backend;
}

/// The same with attention on the kernels for compute capability 9.0, where it is that.
inline Backend& hopper_backend() {
    static cuda::CudaBackend backend(0);
    if (backend.why_no_hopper().empty()) backend.set_arithmetic({"", kHopperKernels, false});
    return backend;
}

/// The reference.
inline Backend& cpu_backend() {
    static cpu::CpuBackend backend(1);
    return backend;
}

/// Device copies of host buffers, each an allocation of its own: device(x) copies x over when it is first named.
/// fetch() waits and copies all of them back into the buffers.
class OnDevice {
  public:
    OnDevice() = default;
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    ~OnDevice() {
        for (const auto& [buffer, tensor] : tensors_) cuda_backend().release(tensor.data);
    }

    Tensor operator()(const TestBuffer& buffer) {
        const auto known = tensors_.find(&buffer);
        if (known != tensors_.end()) return known->second;
        Tensor tensor = buffer.tensor();
        const void* source = tensor.data;
        tensor.data = cuda_backend().allocate(std::max<int64_t>(tensor.bytes(), 1), "a test's tensor");
        cuda_backend().copy_to_device(tensor, source);
        tensors_.emplace(&buffer, tensor);
        return tensor;
    }

    void fetch() {
        cuda_backend().synchronize();
        for (const auto& [buffer, tensor] : tensors_) cuda_backend().copy_to_host(buffer->tensor().data, tensor);
    }

  private:
    std::map<const TestBuffer*, Tensor> tensors_;
};

/// operation(backend, tensor_of) on the CUDA backend, and the results back in the buffers; tensor_of(buffer) is the
/// tensor to use for a buffer.
template <typename Operation>
void run_on_cuda(const Operation& operation) {
    OnDevice device;
    operation(cuda_backend(), [&](const TestBuffer& buffer) { return device(buffer); });
    device.fetch();
}
template <typename Operation>
void run_on_cpu(const Operation& operation) {
    operation(cpu_backend(), [](const TestBuffer& buffer) { return buffer.tensor(); });
}

/// `run` gives the same bits under every schedule, and when it is repeated.
inline void expect_same_bits_at_every_seed(const std::function<std::vector<std::byte>()>& run) {
    std::vector<std::byte> expected;
    cuda::for_each_seed([&] {
        for (int repeat = 0; repeat < 2; ++repeat) {
            const std::vector<std::byte> bytes = run();
            if (expected.empty()) expected = bytes;
            EXPECT_TRUE(bytes == expected);
        }
    });
}

/// What rounding a right result to the type may cost: half a unit in the last place at the largest magnitude. A result
/// of the CPU that happens to lie closer at all of the few largest elements is no better an algorithm.
inline double rounding_error(DType dtype, const Values& exact) {
    const double largest = largest_magnitude(exact);
    if (largest == 0) return 0;
    const int bits = dtype == DType::BF16 ? 8 : 24;
    return std::ldexp(1.0, std::ilogb(largest) - bits);
}

/// The most that our error may be where that of the CPU in the same type is so large.
inline double allowed_error(DType dtype, const Values& exact, double cpu_error) {
    return 2 * std::max(cpu_error, rounding_error(dtype, exact));
}

/// `ours` (fp32 or bf16) against the CPU backend's result in the same type and in fp32 (the truth). `roundings` is how
/// many units in the last place of fp32, at the largest magnitude, an honest order of summation may differ by.
inline void expect_as_good_as_cpu(const TestBuffer& ours, const TestBuffer& cpu_same_type, const TestBuffer& truth,
                                  double roundings = 16) {
    const Values exact = truth.values();
    const double slack = roundings * 0x1p-24 * largest_magnitude(exact);
    const double cpu_error = largest_error(cpu_same_type.values(), exact);
    EXPECT_LE(largest_error(ours.values(), exact), allowed_error(ours.dtype(), exact, cpu_error) + slack);
    EXPECT_TRUE(ours.intact());
}

/// The same values in another type: operands of the truth are the rounded ones of the operation under test.
inline TestBuffer converted(DType dtype, const TestBuffer& buffer) {
    const Tensor shape = buffer.tensor();
    TestBuffer result(dtype, shape.shape[0], shape.shape[1], shape.shape[2]);
    result.set(buffer.values());
    return result;
}

}  // namespace llmc
