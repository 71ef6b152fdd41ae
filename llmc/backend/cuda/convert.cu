// Conversion between fp32 and bf16: element by element, at the speed of memory. A thread takes four elements, so that
// neighbours read and write without gaps in both types.
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/elements.cuh"

namespace llmc::cuda {
inline namespace convert_kernels {

constexpr int kGroup = 4;

template <typename Out, typename In, int kSize>
__global__ void convert_kernel(int64_t count, Out* out, const In* x) {
    const int64_t i = group_begin<kSize>();
    if (i >= count) return;
    const Group<In, kSize> in = load_group_streaming<kSize>(x + i);
    Group<Out, kSize> result;
#pragma unroll
    for (int k = 0; k < kSize; ++k) result[k] = from_float<Out>(to_float(in[k]));
    store_group(out + i, result);
}

template <typename Out, typename In>
void convert_all(cudaStream_t stream, Tensor out, Tensor x) {
    launch_elementwise<kGroup>(convert_kernel<Out, In, kGroup>, convert_kernel<Out, In, 1>, stream, x.count(),
                               elements_of<Out>(out), elements_of<const In>(x));
}

}  // namespace convert_kernels

void CudaBackend::convert(Tensor out, Tensor x) {
    CHECK(out.count() == x.count(), out.count(), x.count());
    if (x.count() == 0) return;
    if (out.dtype == x.dtype) {
        CUDA_CHECK(
            cudaMemcpyAsync(out.data, x.data, static_cast<size_t>(x.bytes()), cudaMemcpyDeviceToDevice, stream_));
    } else if (out.dtype == DType::BF16) {
        convert_all<bf16, float>(stream_, out, x);
    } else {
        convert_all<float, bf16>(stream_, out, x);
    }
}

cudaError_t CudaBackend::try_kernels(int* code, int* ptx) {
    cudaFuncAttributes attributes = {};
    const cudaError_t status =
        cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(convert_kernel<float, bf16, 1>));
    *code = attributes.binaryVersion;
    *ptx = attributes.ptxVersion;
    return status;
}

}  // namespace llmc::cuda
