// Matrix products by cuBLASLt. Our tensors are row-major, the library counts columns: a row-major (rows, cols) is a
// column-major (cols, rows), so every product is computed as its transpose, with the operands exchanged. Bias and
// residual enter the accumulator before it is rounded; weight gradients are accumulated in fp32 by beta = 1, or with
// the same algorithm written by beta = 0.
//
// The activation function is not part of the product. cuBLASLt could apply GELU to the accumulator; an activation that
// runs again starts from the rounded pre-activation, and would not give the same bits.
#include "llmc/backend/cuda/column_sum.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/prepared_matmuls.h"

#include <algorithm>

namespace llmc::cuda {
namespace {

/// What the library is given for partial sums: 32 MiB, which its largest algorithms ask for, but no more than twice
/// the product's operands, since a small product has no use for it.
int64_t library_workspace(int64_t item, int64_t N, int64_t OC, int64_t IC) {
    constexpr int64_t kMost = 32 << 20, kLeast = 1 << 16;
    return std::clamp((N * (OC + IC) + OC * IC) * item * 2, kLeast, kMost);
}

}  // namespace

int64_t CudaBackend::matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const {
    return std::max(library_workspace(size_of(activations), N, OC, IC), column_sum_workspace(N, OC));
}

void CudaBackend::matmul_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor workspace) {
    const int64_t N = x.shape[0], IC = weight.shape[1], OC = weight.shape[0];
    CHECK(x.shape[1] == IC && out.shape[0] == N && out.shape[1] == OC, N, IC, OC);
    const MatmulShape shape = {.m = OC,
                               .n = N,
                               .k = IC,
                               .transpose_a = true,
                               .input = x.dtype,
                               .output = out.dtype,
                               .has_bias = bool{bias},
                               .adds_c = bool{residual}};
    matmuls_->run(shape,
                  {out.data, weight.data, x.data, bias.data, residual.data, false, workspace.data, workspace.bytes()},
                  stream_);
}

void CudaBackend::matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) {
    const int64_t N = d_out.shape[0], IC = weight.shape[1], OC = weight.shape[0];
    CHECK(d_out.shape[1] == OC && d_x.shape[0] == N && d_x.shape[1] == IC, N, IC, OC);
    const MatmulShape shape = {.m = IC, .n = N, .k = OC, .input = d_out.dtype, .output = d_x.dtype};
    matmuls_->run(shape,
                  {d_x.data, weight.data, d_out.data, nullptr, nullptr, false, workspace.data, workspace.bytes()},
                  stream_);
}

void CudaBackend::matmul_backward_weight(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                         Tensor workspace) {
    if (d_bias) column_sums(stream_, d_bias, adds, d_out, workspace.data);
    if (!d_weight) return;
    const int64_t N = x.shape[0], IC = x.shape[1], OC = d_out.shape[1];
    CHECK(d_weight.shape[0] == OC && d_weight.shape[1] == IC && d_out.shape[0] == N, N, IC, OC);
    const MatmulShape shape = {
        .m = IC, .n = OC, .k = N, .transpose_b = true, .input = x.dtype, .output = d_weight.dtype, .adds_c = true};
    matmuls_->run(shape,
                  {d_weight.data, x.data, d_out.data, nullptr, d_weight.data, !adds, workspace.data, workspace.bytes()},
                  stream_);
}

}  // namespace llmc::cuda
