// Attention on Hopper's own instructions: what attention.cu and attention_backward.cu call instead of their portable
// kernels where the device has compute capability 9.0. Operands as there; bf16, heads of 64 or 128 channels, rows
// aligned to 16 bytes.
#pragma once

#include "llmc/backend/cuda/attention_heads.cuh"

#include <cuda_runtime_api.h>

#include <cstdint>

namespace llmc::cuda {

/// Which kernels a call of attention in bf16 takes, in either pass; `hopper` is the backend's choice. Their grids have
/// the tiles of a sequence, of 128 rows or more, in the second dimension.
inline bool runs_on_hopper(bool hopper, const AttentionSizes& sizes) {
    constexpr int kSmallestTile = 128;
    return hopper && sizes.aligned && hopper_kernels_take(DType::BF16, sizes.HD) &&
           sizes.T <= kMaxGridRows * kSmallestTile;
}

void attention_forward_hopper(bf16* out, float* lse, const bf16* qkv, const AttentionSizes& sizes, int64_t B,
                              cudaStream_t stream);

/// After the statistics of attention_backward.cu: dK and dV of some heads, then dQ.
void attention_backward_hopper(const HeadGradients<bf16>& gradients, const bf16* d_out, const bf16* qkv,
                               const float2* rows, const AttentionSizes& sizes, int64_t B, cudaStream_t stream);

}  // namespace llmc::cuda
