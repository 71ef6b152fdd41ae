// Matrix products on Hopper's own instructions, which take an activation along: what prepared_matmuls.cpp runs in place
// of cuBLASLt where it is told to (base/gemm_algorithms.h). Elements have the same bits however many multiprocessors
// there are and whatever the product takes along: the order of a sum depends on the product's sizes alone, and what an
// activation is applied to is rounded first.
#pragma once

#include "llmc/backend/cuda/tensor_map.h"
#include "llmc/base/gemm_algorithms.h"

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace llmc::cuda {

/// Of out (rows, columns) = left * right, row-major as all of them: how the operands lie, and the type of out.
enum class HopperKind : uint8_t {
    Forward,         ///< left (rows, depth), right (columns, depth): x, weight; bf16.
    InputGradient,   ///< left (rows, depth), right (depth, columns): d_out, weight; bf16.
    WeightGradient,  ///< left (depth, rows), right (depth, columns): d_out, x; fp32.
};

/// What else is made of the product, as it was rounded.
enum class Applied : uint8_t {
    Nothing,
    Gelu,            ///< activated (rows, columns) = its tanh form.
    Swiglu,          ///< activated (rows, columns / 2), of gates in the first half of the columns.
    Rope,            ///< Not beside the product but in its place: out itself is rotated.
    GeluGradient,    ///< activated (rows, columns) = gelu'(pre) * the product, which is not stored.
    SwigluGradient,  ///< activated and pre (rows, 2 columns): of gates and ups. The product is not stored.
};

/// Backend::rope() of the product: heads of head_size channels, of which those in the first `columns` columns turn; a
/// row has slot (first_row + row) % T, and position offset + *more + its slot - documents[row]. more and documents may
/// be null.
struct HopperRope {
    const float* table;  ///< (positions, head_size)
    const int32_t *documents, *more;
    int64_t offset;
    int T, first_row, head_size, columns;  ///< first_row < T.
};

/// out = residual + left * right + bias; the sum is rounded once. bias (columns) and residual, which may be out, may be
/// null. Addresses are multiples of 16 bytes.
struct HopperProduct {
    void* out;                 ///< Null where it is not stored.
    __nv_bfloat16* activated;  ///< Null if nothing is applied. May be pre.
    const __nv_bfloat16 *left, *right, *bias;
    const void* residual;      ///< As out.
    const __nv_bfloat16* pre;  ///< Of gradients: what the activation was applied to.
    int rows, columns, depth;
    float* workspace = nullptr;  ///< hopper_gemm_workspace() bytes.
    HopperRope rope = {};        ///< Of Applied::Rope.
};

/// Whether it forms such products, of operands at multiples of 16 bytes.
bool hopper_gemm_takes(const GemmShape& shape);
/// Whether it rotates the first `turning` channels of heads of so many: all of them, which tiles hold whole.
constexpr bool hopper_gemm_rotates(int64_t head_size, int64_t turning) {
    return turning == head_size && (head_size == 64 || head_size == 128);
}
/// Of one that it takes.
HopperKind hopper_kind(const GemmShape& shape);
/// Bytes that its parts' sums need: those of weight gradients of few tiles over many tokens, which are cut in up to
/// eight. As much as twice the operands at most, and 32 MiB.
int64_t hopper_gemm_workspace(const GemmShape& shape);

/// By so many blocks at most, one to a multiprocessor; results do not depend on it. Forward products take Gelu,
/// Swiglu and Rope (without a residual), input gradients GeluGradient and SwigluGradient.
void gemm_hopper(const HopperProduct& product, HopperKind kind, Applied applied, int multiprocessors,
                 cudaStream_t stream);

}  // namespace llmc::cuda
