// LLaMA 2 and 3 (Touvron et al. 2023; Dubey et al. 2024): rotary positions, pre-norm RMSNorm blocks, SwiGLU,
// grouped-query attention, no biases, tied or untied head. Compare with gpt2.cpp, line by line. Initialisation:
// N(0, 0.02), and 0.02/sqrt(2L) for projections into the residual stream, as for GPT-2.
#include "llmc/model/builder.h"

namespace llmc {

Model make_llama(const ModelConfig& config) {
    const int64_t C = config.C, QKV = config.QKV(), ATT = config.attention_columns(), F = config.F;
    ModelBuilder b(config);

    // Parameters of a layer, (out, in).
    const int ln1_w = b.layer_vector("ln1_weight", C, Init::Ones);
    const int qkv_w = b.layer_matrix("qkv_weight", QKV, C, b.stddev());
    const int att_w = b.layer_matrix("att_proj_weight", C, ATT, b.residual_stddev());
    const int ln2_w = b.layer_vector("ln2_weight", C, Init::Ones);
    const int gate_up_w = b.layer_matrix("gate_up_weight", 2 * F, C, b.stddev());
    const int proj_w = b.layer_matrix("fc_proj_weight", C, F, b.residual_stddev());

    // Activations of a layer, (N, columns). qkv holds rotated queries and keys.
    const int x = b.activation("x", C, ActivationRole::LayerInput);
    const int ln1_out = b.activation("ln1_out", C, ActivationRole::NormOut);
    const int ln1_rstd = b.activation("ln1_rstd", 1, ActivationRole::Stat);
    const int qkv = b.activation("qkv", QKV, ActivationRole::MatmulOut);
    const int att_out = b.activation("att_out", ATT, ActivationRole::AttentionOut);
    const int att_lse = b.activation("att_lse", config.NH, ActivationRole::AttentionStat);
    const int x_mid = b.activation("x_mid", C, ActivationRole::MidResidual);
    const int ln2_out = b.activation("ln2_out", C, ActivationRole::NormOut);
    const int ln2_rstd = b.activation("ln2_rstd", 1, ActivationRole::Stat);
    const int gate_up = b.activation("gate_up", 2 * F, ActivationRole::PreActivation);
    const int act_out = b.activation("act_out", F, ActivationRole::ActivationOut);

    // Operations of a block, in forward order.
    // clang-format off
    b.op({.kind = OpKind::RmsNorm, .name = "ln1", .in = x, .out = ln1_out, .stat1 = ln1_rstd, .weight = ln1_w});
    b.op({.kind = OpKind::Matmul, .name = "qkv", .in = ln1_out, .out = qkv, .weight = qkv_w, .rope = true});
    b.op({.kind = OpKind::Attention, .name = "att", .in = qkv, .out = att_out, .stat0 = att_lse});
    b.op({.kind = OpKind::Matmul, .name = "att_proj", .in = att_out, .residual = x, .out = x_mid, .weight = att_w});
    b.op({.kind = OpKind::RmsNorm, .name = "ln2", .in = x_mid, .out = ln2_out, .stat1 = ln2_rstd, .weight = ln2_w});
    b.op({.kind = OpKind::Matmul, .name = "gate_up", .in = ln2_out, .out = gate_up, .weight = gate_up_w});
    b.op({.kind = OpKind::Swiglu, .name = "swiglu", .in = gate_up, .out = act_out});
    b.op({.kind = OpKind::Matmul, .name = "fc_proj", .in = act_out, .residual = x_mid,
          .out = kLayerOutput, .weight = proj_w});
    // clang-format on

    return b.finish(/*learned_positions=*/false, /*norm_bias=*/false);
}

}  // namespace llmc
