#include "dev/cuda_on_cpu/tensor_map.h"

#include "dev/cuda_on_cpu/report.h"

#include <cstring>

namespace cuda_on_cpu {

namespace {

/// 0 for what is not modelled.
int bytes_of(CUtensorMapDataType type) {
    switch (type) {
        case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
        case CU_TENSOR_MAP_DATA_TYPE_UINT16:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
        case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
        case CU_TENSOR_MAP_DATA_TYPE_UINT32:
        case CU_TENSOR_MAP_DATA_TYPE_INT32:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT32: return 4;
        case CU_TENSOR_MAP_DATA_TYPE_UINT64:
        case CU_TENSOR_MAP_DATA_TYPE_INT64:
        case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
        default: return 0;
    }
}

int span_of(CUtensorMapSwizzle swizzle) {
    switch (swizzle) {
        case CU_TENSOR_MAP_SWIZZLE_NONE: return 0;
        case CU_TENSOR_MAP_SWIZZLE_32B: return 32;
        case CU_TENSOR_MAP_SWIZZLE_64B: return 64;
        case CU_TENSOR_MAP_SWIZZLE_128B: return 128;
        default: return -1;
    }
}

}  // namespace

int TensorMap::box_bytes() const {
    int bytes = element_bytes;
    for (int i = 0; i < rank; ++i) bytes *= box[i];
    return bytes;
}

std::string tensor_map_problem(CUtensorMapDataType type, unsigned rank, const void* base, const uint64_t* sizes,
                               const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                               CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle) {
    const auto element = static_cast<unsigned>(bytes_of(type));
    const int span = span_of(swizzle);
    if (element == 0 || span < 0 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return "type, swizzle or interleave";
    if (rank < 1 || rank > 5) return format("rank %u: 1 to 5", rank);
    if (base == nullptr || reinterpret_cast<uintptr_t>(base) % 16) return "the address is no multiple of 16";
    for (unsigned i = 0; i < rank; ++i) {
        if (sizes[i] < 1 || sizes[i] > uint64_t{1} << 32) return format("size of dimension %u: 1 to 2^32", i);
        if (box[i] < 1 || box[i] > 256) return format("box side %u is %u: 1 to 256", i, box[i]);
        if (element_strides[i] != 1)
            return format("element stride %u is %u: only 1 is modelled", i, element_strides[i]);
        if (i + 1 < rank && (strides[i] % 16 || strides[i] >= uint64_t{1} << 40))
            return format("stride %u is %llu: multiples of 16 below 2^40", i,
                          static_cast<unsigned long long>(strides[i]));
    }
    const unsigned inner = box[0] * element;
    if (inner % 16) return format("the box's rows have %u bytes: multiples of 16", inner);
    if (span > 0 && inner > static_cast<unsigned>(span))
        return format("the box's rows have %u bytes, more than the swizzle's %d", inner, span);
    return "";
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base, const cuuint64_t* sizes,
                      const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* element_strides,
                      CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                      CUtensorMapFloatOOBfill fill) {
    const std::string problem =
        tensor_map_problem(type, rank, base, reinterpret_cast<const uint64_t*>(sizes),
                           reinterpret_cast<const uint64_t*>(strides), box, element_strides, interleave, swizzle);
    const bool aligned = reinterpret_cast<uintptr_t>(map) % 64 == 0;
    if (!problem.empty() || !aligned || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) return CUDA_ERROR_INVALID_VALUE;
    TensorMap made{};
    made.mark = TensorMap::kMark;
    made.base = static_cast<char*>(base);
    made.rank = static_cast<uint8_t>(rank);
    made.type = static_cast<uint8_t>(type);
    made.element_bytes = static_cast<uint8_t>(bytes_of(type));
    made.swizzle_bytes = static_cast<uint8_t>(span_of(swizzle));
    for (unsigned i = 0; i < rank; ++i) {
        made.last[i] = static_cast<uint32_t>(sizes[i] - 1);
        made.box[i] = static_cast<uint16_t>(box[i]);
        if (i + 1 < rank) made.strides[i] = strides[i];
    }
    std::memset(map, 0, sizeof *map);
    std::memcpy(map, &made, sizeof made);
    return CUDA_SUCCESS;
}

const TensorMap& decode(const CUtensorMap* encoded, const std::string& place) {
    const auto& map = *reinterpret_cast<const TensorMap*>(encoded);
    if (reinterpret_cast<uintptr_t>(encoded) % 64 || map.mark != TensorMap::kMark)
        kernel_fault(format("no tensor map at %p, or not aligned to 64 bytes, at %s", static_cast<const void*>(encoded),
                            place.c_str()));
    return map;
}

}  // namespace cuda_on_cpu
