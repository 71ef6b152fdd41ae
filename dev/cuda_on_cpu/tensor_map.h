// Tensor maps: the driver's encoder, with the limits that its documentation states, and what a map says.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <string>

namespace cuda_on_cpu {

struct TensorMap {
    static constexpr uint64_t kMark = 0x70616d726f736e74;
    uint64_t mark;
    char* base;
    uint64_t strides[4];  ///< In bytes, from the second dimension on.
    uint32_t last[5];     ///< Of each dimension, its size less 1.
    uint16_t box[5];
    uint8_t rank, element_bytes, type, swizzle_bytes;  ///< swizzle_bytes: 0 or the span.

    int box_bytes() const;
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

/// The map in `encoded`; faults if it is none.
const TensorMap& decode(const CUtensorMap* encoded, const std::string& place);

/// Why such a map is refused; empty if it is not.
std::string tensor_map_problem(CUtensorMapDataType type, unsigned rank, const void* base, const uint64_t* sizes,
                               const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                               CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle);

/// The function that cudaGetDriverEntryPointByVersion gives for cuTensorMapEncodeTiled.
CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base, const cuuint64_t* sizes,
                      const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* element_strides,
                      CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                      CUtensorMapFloatOOBfill fill);

}  // namespace cuda_on_cpu
