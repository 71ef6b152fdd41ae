// What Backend::matmul_and_rope() is told, in the terms of the kernel that forms the product.
#pragma once

#include "llmc/backend/backend.h"
#include "llmc/backend/cuda/gemm_hopper.h"

#include <cstdint>

namespace llmc::cuda {

/// Tensors of the device.
inline HopperRope hopper_rope(const RopeRows& rows) {
    const auto& [table, shape, first, first_row] = rows;
    return {.table = table.as<const float>(),
            .documents = shape.documents ? shape.documents.as<const int32_t>() : nullptr,
            .more = first.on_device ? first.on_device.as<const int32_t>() : nullptr,
            .offset = first.offset,
            .T = static_cast<int>(shape.T),
            .first_row = static_cast<int>(first_row % shape.T),
            .head_size = static_cast<int>(shape.HD),
            .columns = static_cast<int>((shape.NH + shape.NKV) * shape.HD)};
}

}  // namespace llmc::cuda
