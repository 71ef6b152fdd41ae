// The encoder of tensor maps is the driver's. It is asked for through the runtime, so that nothing links to libcuda.
#include "llmc/backend/cuda/tensor_map.h"

#include "llmc/backend/cuda/check.h"
#include "llmc/base/error.h"

#include <cuda_runtime_api.h>

namespace llmc::cuda {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode encoder() {
    static const Encode encode = [] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
        constexpr unsigned kSince = 12000;
        CUDA_CHECK(
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince, cudaEnableDefault, &result));
#else
        CUDA_CHECK(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &result));
#endif
        if (result != cudaDriverEntryPointSuccess || function == nullptr)
            fail("CUDA: the driver has no cuTensorMapEncodeTiled; update it");
        return reinterpret_cast<Encode>(function);
    }();
    return encode;
}

}  // namespace

CUtensorMap tensor_map(const TensorBoxes& boxes) {
    CUtensorMap map;
    const cuuint32_t element_strides[4] = {1, 1, 1, 1};
    const cuuint64_t sizes[4] = {boxes.sizes[0], boxes.sizes[1], boxes.sizes[2], boxes.sizes[3]};
    const cuuint64_t strides[3] = {boxes.strides[0], boxes.strides[1], boxes.strides[2]};
    const CUresult status =
        encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(boxes.data), sizes, strides, boxes.box,
                  element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        fail("CUDA: cuTensorMapEncodeTiled refused a map of {} x {} x {} x {} elements (error {})", sizes[0], sizes[1],
             sizes[2], sizes[3], static_cast<int>(status));
    return map;
}

}  // namespace llmc::cuda
