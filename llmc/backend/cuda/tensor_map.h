// Tensor maps for bulk copies (TMA), made on the host and given to kernels as `const __grid_constant__ CUtensorMap`.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace llmc::cuda {

/// A bf16 tensor of four dimensions, innermost first, whose innermost elements follow each other; boxes of
/// {64, box[1], box[2], box[3]} elements land in shared memory as rows of 128 bytes under the swizzle of 128 bytes.
struct TensorBoxes {
    const void* data;     ///< Aligned to 16 bytes.
    uint64_t sizes[4];    ///< In elements, at least 1.
    uint64_t strides[3];  ///< In bytes, of dimensions 1 to 3; multiples of 16.
    uint32_t box[4];
};

/// Fails, naming the driver's error, if there can be no such map.
CUtensorMap tensor_map(const TensorBoxes& boxes);

}  // namespace llmc::cuda
