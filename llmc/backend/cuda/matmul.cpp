// Matrix products by cuBLASLt, or a kernel of our own (gemm_hopper.h). Bias and residual enter the accumulator before
// it is rounded; weight gradients are accumulated in fp32 by beta = 1, or with the same algorithm written by beta = 0.
//
// The activation function, like the rotation of heads, is part of a forward product of our own alone. cuBLASLt could
// apply GELU to the accumulator; an activation that runs again starts from the rounded pre-activation, and would not
// give the same bits. What runs once, in the backward, may be part of the library's product: GELU's derivative of an
// input gradient, and, of a weight gradient, the sums of the bias's. SwiGLU's derivative is part of ours alone.
#include "llmc/backend/cuda/column_sum.h"
#include "llmc/backend/cuda/cuda_backend.h"
#include "llmc/backend/cuda/gemm_hopper.h"
#include "llmc/backend/cuda/gemm_shape.h"
#include "llmc/backend/cuda/hopper_rope.h"
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

/// Operands of both kinds of input gradient: d_x (N, IC) of d_out (N, OC) and weight (OC, IC), whose sizes are checked.
MatmulOperands of_input_gradient(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) {
    const int64_t N = d_out.shape[0], IC = weight.shape[1], OC = weight.shape[0];
    CHECK(d_out.shape[1] == OC && d_x.shape[0] == N && d_x.shape[1] == IC, N, IC, OC);
    CHECK(d_x.dtype == d_out.dtype, name_of(d_x.dtype), name_of(d_out.dtype));
    return {.d = d_x.data,
            .a = weight.data,
            .b = d_out.data,
            .workspace = workspace.data,
            .workspace_bytes = workspace.bytes()};
}

/// Operands of both kinds of forward product: out (N, OC) of x (N, IC) and weight (OC, IC), whose sizes are checked.
MatmulOperands of_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor workspace) {
    const int64_t N = x.shape[0], IC = weight.shape[1], OC = weight.shape[0];
    CHECK(x.shape[1] == IC && out.shape[0] == N && out.shape[1] == OC, N, IC, OC);
    CHECK(out.dtype == x.dtype, name_of(out.dtype), name_of(x.dtype));
    return {.d = out.data,
            .a = weight.data,
            .b = x.data,
            .of_epilogue = bias.data,
            .workspace = workspace.data,
            .workspace_bytes = workspace.bytes()};
}

GemmQuery forward(Tensor x, Tensor weight, Tensor bias, Tensor residual) {
    return {.kind = GemmKind::Forward,
            .dtype = x.dtype,
            .N = x.shape[0],
            .OC = weight.shape[0],
            .IC = weight.shape[1],
            .has_bias = bool{bias},
            .has_residual = bool{residual}};
}

GemmQuery input_gradient(GemmKind kind, Tensor d_out, Tensor weight) {
    return {.kind = kind, .dtype = d_out.dtype, .N = d_out.shape[0], .OC = weight.shape[0], .IC = weight.shape[1]};
}

}  // namespace

GemmShape gemm_shape(const GemmQuery& query) {
    const GemmKind kind = query.kind;
    const DType dtype = query.dtype;
    const int64_t N = query.N, OC = query.OC, IC = query.IC;
    switch (kind) {
        case GemmKind::ForwardAndGelu:
        case GemmKind::ForwardAndSwiglu:
        case GemmKind::ForwardAndRope:
        case GemmKind::Forward:
            return {.m = OC,
                    .n = N,
                    .k = IC,
                    .transpose_a = true,
                    .input = dtype,
                    .output = dtype,
                    .epilogue = query.has_bias ? Epilogue::Bias : Epilogue::None,
                    .adds_c = query.has_residual};
        case GemmKind::InputGradientAndSwiglu:
        case GemmKind::InputGradient:
        case GemmKind::InputGradientAndGelu:
            return {.m = IC,
                    .n = N,
                    .k = OC,
                    .input = dtype,
                    .output = dtype,
                    .epilogue = kind == GemmKind::InputGradientAndGelu ? Epilogue::GeluGradient : Epilogue::None};
        case GemmKind::WeightGradient:
        case GemmKind::WeightAndBiasGradient: break;
    }
    return {.m = IC,
            .n = OC,
            .k = N,
            .transpose_b = true,
            .input = dtype,
            .output = DType::F32,
            .epilogue = kind == GemmKind::WeightGradient ? Epilogue::None : Epilogue::BiasGradient,
            .adds_c = true};
}

int64_t CudaBackend::matmul_workspace(DType activations, int64_t N, int64_t OC, int64_t IC) const {
    return std::max(library_workspace(size_of(activations), N, OC, IC), column_sum_workspace(N, OC));
}

void CudaBackend::matmul_forward(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor workspace) {
    MatmulOperands operands = of_forward(out, x, weight, bias, workspace);
    operands.c = residual.data;
    matmuls_->run(gemm_shape(forward(x, weight, bias, residual)), operands, stream_);
}

void CudaBackend::matmul_backward_input(Tensor d_x, Tensor d_out, Tensor weight, Tensor workspace) {
    const MatmulOperands operands = of_input_gradient(d_x, d_out, weight, workspace);
    matmuls_->run(gemm_shape(input_gradient(GemmKind::InputGradient, d_out, weight)), operands, stream_);
}

void CudaBackend::matmul_backward_weight(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                         Tensor workspace) {
    if (d_bias) column_sums(stream_, d_bias, adds, d_out, workspace.data);
    if (!d_weight) return;
    const int64_t N = x.shape[0], IC = x.shape[1], OC = d_out.shape[1];
    CHECK(d_weight.shape[0] == OC && d_weight.shape[1] == IC && d_out.shape[0] == N, N, IC, OC);
    CHECK(d_weight.dtype == DType::F32, name_of(d_weight.dtype));
    matmuls_->run(gemm_shape({GemmKind::WeightGradient, x.dtype, N, OC, IC}),
                  {.d = d_weight.data,
                   .a = x.data,
                   .b = d_out.data,
                   .c = d_weight.data,
                   .ignores_c = !adds,
                   .workspace = workspace.data,
                   .workspace_bytes = workspace.bytes()},
                  stream_);
}

// ---- with more than the product -----------------------------------------------------------------------------------

namespace {

GemmQuery product_of(const FusionQuery& query, GemmKind kind) {
    return {.kind = kind, .dtype = query.dtype, .N = query.N, .OC = query.OC, .IC = query.IC};
}

/// Whether our own kernel forms the product and takes along an activation that the library does not.
bool own_gemm_applies(const FusionQuery& query) {
    constexpr int64_t kGateAndUp = 16;  // Rows of either are multiples of 16 bytes.
    const bool is_swiglu = query.activation == ActivationFunction::Swiglu;
    if (query.fusion == Fusion::InputGradientAndActivation)
        return is_swiglu && hopper_gemm_takes(gemm_shape(product_of(query, GemmKind::InputGradient)));
    const bool applies = is_swiglu ? query.OC % kGateAndUp == 0 : query.activation == ActivationFunction::Gelu;
    return applies && hopper_gemm_takes(gemm_shape(product_of(query, GemmKind::Forward)));
}

}  // namespace

/// In bf16 alone: what is trained in fp32 is there to be compared with.
FusionAnswer CudaBackend::fuses(const FusionQuery& query) const {
    constexpr int64_t kMultiple = 8;  // Of what GELU's derivative is taken at the library wants such rows.
    if (query.dtype != DType::BF16) return {};
    const int64_t of_library = library_workspace(size_of(query.dtype), query.N, query.OC, query.IC);
    // Without a device, what the library's documentation promises.
    const auto library_can = [&](GemmKind kind) {
        return matmuls_ == nullptr || matmuls_->can(matmuls_->key_of(gemm_shape(product_of(query, kind)), of_library));
    };
    if (offers_own_gemms_ && own_gemm_applies(query)) {
        // The workspace is part of what an algorithm is chosen by: that of the product alone.
        return {.fuses = true,
                .same_bits = true,
                .workspace_bytes = matmul_workspace(query.dtype, query.N, query.OC, query.IC)};
    }
    switch (query.fusion) {
        case Fusion::ActivationAndWeightGradient:
        case Fusion::MatmulAndActivation: break;
        case Fusion::InputGradientAndActivation:
            if (query.activation != ActivationFunction::Gelu || query.IC % kMultiple != 0) break;
            return {.fuses = library_can(GemmKind::InputGradientAndGelu),
                    .stores_between = false,
                    .workspace_bytes = of_library};
        case Fusion::WeightAndBiasGradient:
            return {.fuses = library_can(GemmKind::WeightAndBiasGradient),
                    .workspace_bytes = bias_gradient_bytes(query.OC) + of_library};
    }
    return {};
}

void CudaBackend::matmul_and_activation(ActivationFunction activation, Tensor act_out, Tensor out, Tensor x,
                                        Tensor weight, Tensor bias, Tensor workspace) {
    const bool is_gelu = activation == ActivationFunction::Gelu;
    CHECK(is_gelu || activation == ActivationFunction::Swiglu, static_cast<int>(activation));
    CHECK(act_out.count() * (is_gelu ? 1 : 2) == out.count(), act_out.count(), out.count());
    MatmulOperands operands = of_forward(out, x, weight, bias, workspace);
    operands.applied = is_gelu ? Applied::Gelu : Applied::Swiglu;
    operands.activated = act_out.data;
    if (matmuls_->run(gemm_shape(forward(x, weight, bias, {})), operands, stream_)) return;
    is_gelu ? gelu_forward(act_out, out) : swiglu_forward(act_out, out);
}

void CudaBackend::matmul_and_rope(Tensor out, Tensor x, Tensor weight, Tensor bias, Tensor workspace,
                                  const RopeRows& rows) {
    const auto& [table, shape, first, first_row] = rows;
    CHECK(out.shape[1] == shape.qkv_columns(), out.shape[1], shape.qkv_columns());
    CHECK(first.offset >= 0 && first.offset + shape.T <= table.shape[0], first.offset, shape.T, table.shape[0]);
    MatmulOperands operands = of_forward(out, x, weight, bias, workspace);
    if (hopper_gemm_rotates(shape.HD, table.shape[1])) {
        operands.applied = Applied::Rope;
        operands.rope = hopper_rope(rows);
    }
    const bool is_done = matmuls_->run(gemm_shape(forward(x, weight, bias, {})), operands, stream_);
    if (!is_done || operands.applied == Applied::Nothing) rope_rows(out, rows, /*inverse=*/false);
}

void CudaBackend::input_gradient_and_activation(ActivationFunction activation, Tensor d_pre, Tensor d_act, Tensor d_out,
                                                Tensor weight, Tensor pre, Tensor workspace) {
    const bool is_gelu = activation == ActivationFunction::Gelu;
    CHECK(is_gelu || activation == ActivationFunction::Swiglu, static_cast<int>(activation));
    CHECK(pre.shape == d_pre.shape && pre.dtype == d_pre.dtype, d_pre.shape[0], d_pre.shape[1]);
    if (is_gelu) {
        MatmulOperands operands = of_input_gradient(d_pre, d_out, weight, workspace);
        operands.of_epilogue = pre.data;
        matmuls_->run(gemm_shape(input_gradient(GemmKind::InputGradientAndGelu, d_out, weight)), operands, stream_);
        return;
    }
    CHECK(d_pre.count() == 2 * d_act.count(), d_pre.count(), d_act.count());
    MatmulOperands operands = of_input_gradient(d_act, d_out, weight, workspace);
    operands.applied = Applied::SwigluGradient;
    operands.activated = d_pre.data;
    operands.pre = pre.data;
    const GemmQuery product = input_gradient(GemmKind::InputGradientAndSwiglu, d_out, weight);
    if (!matmuls_->run(gemm_shape(product), operands, stream_)) swiglu_backward(d_pre, d_act, pre);
}

/// The library overwrites: where the bias's gradient is added, and where nobody wants it, it goes into the workspace.
void CudaBackend::weight_and_bias_gradient(Tensor d_weight, Tensor d_bias, bool adds, Tensor d_out, Tensor x,
                                           Tensor workspace) {
    const int64_t N = x.shape[0], IC = x.shape[1], OC = d_out.shape[1];
    CHECK(d_weight.shape[0] == OC && d_weight.shape[1] == IC && d_out.shape[0] == N, N, IC, OC);
    CHECK(d_weight.dtype == DType::F32 && (!d_bias || d_bias.count() == OC), d_bias.count(), OC);
    const GemmQuery product = {.kind = GemmKind::WeightAndBiasGradient,
                               .dtype = x.dtype,
                               .N = N,
                               .OC = OC,
                               .IC = IC,
                               .workspace_bytes = workspace.bytes()};
    const Tensor apart(DType::F32, workspace.data, OC);
    matmuls_->run(gemm_shape(product),
                  {.d = d_weight.data,
                   .a = x.data,
                   .b = d_out.data,
                   .of_epilogue = d_bias && !adds ? d_bias.data : apart.data,
                   .c = d_weight.data,
                   .ignores_c = !adds,
                   .workspace = static_cast<char*>(workspace.data) + bias_gradient_bytes(OC),
                   .workspace_bytes = library_bytes(product)},
                  stream_);
    if (d_bias && adds) add(d_bias, apart);
}

}  // namespace llmc::cuda
