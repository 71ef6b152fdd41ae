// GPT-2 (Radford et al. 2019): learned positions, pre-norm LayerNorm blocks, tanh GELU, biases everywhere, tied head.
// Compare with llama.cpp, line by line. Initialisation: N(0, 0.02); projections into the residual stream are scaled by
// 1/sqrt(2L), since 2L of them add up in it.
#include "llmc/model/builder.h"

namespace llmc {

Model make_gpt2(const ModelConfig& config) {
    const int64_t C = config.C, QKV = config.QKV(), ATT = config.attention_columns(), F = config.F;
    ModelBuilder b(config);

    // Parameters of a layer, (out, in).
    const int ln1_w = b.layer_vector("ln1_weight", C, Init::Ones);
    const int ln1_b = b.layer_vector("ln1_bias", C, Init::Zeros);
    const int qkv_w = b.layer_matrix("qkv_weight", QKV, C, b.stddev());
    const int qkv_b = b.layer_vector("qkv_bias", QKV, Init::Zeros);
    const int att_w = b.layer_matrix("att_proj_weight", C, ATT, b.residual_stddev());
    const int att_b = b.layer_vector("att_proj_bias", C, Init::Zeros);
    const int ln2_w = b.layer_vector("ln2_weight", C, Init::Ones);
    const int ln2_b = b.layer_vector("ln2_bias", C, Init::Zeros);
    const int fc_w = b.layer_matrix("fc_weight", F, C, b.stddev());
    const int fc_b = b.layer_vector("fc_bias", F, Init::Zeros);
    const int proj_w = b.layer_matrix("fc_proj_weight", C, F, b.residual_stddev());
    const int proj_b = b.layer_vector("fc_proj_bias", C, Init::Zeros);

    // Activations of a layer, (N, columns).
    const int x = b.activation("x", C, ActivationRole::LayerInput);
    const int ln1_out = b.activation("ln1_out", C, ActivationRole::NormOut);
    const int ln1_mean = b.activation("ln1_mean", 1, ActivationRole::Stat);
    const int ln1_rstd = b.activation("ln1_rstd", 1, ActivationRole::Stat);
    const int qkv = b.activation("qkv", QKV, ActivationRole::MatmulOut);
    const int att_out = b.activation("att_out", ATT, ActivationRole::AttentionOut);
    const int att_lse = b.activation("att_lse", config.NH, ActivationRole::AttentionStat);
    const int x_mid = b.activation("x_mid", C, ActivationRole::MidResidual);
    const int ln2_out = b.activation("ln2_out", C, ActivationRole::NormOut);
    const int ln2_mean = b.activation("ln2_mean", 1, ActivationRole::Stat);
    const int ln2_rstd = b.activation("ln2_rstd", 1, ActivationRole::Stat);
    const int fc_out = b.activation("fc_out", F, ActivationRole::PreActivation);
    const int act_out = b.activation("act_out", F, ActivationRole::ActivationOut);

    // Operations of a block, in forward order.
    // clang-format off
    b.op({.kind = OpKind::LayerNorm, .name = "ln1", .in = x,
          .out = ln1_out, .stat0 = ln1_mean, .stat1 = ln1_rstd, .weight = ln1_w, .bias = ln1_b});
    b.op({.kind = OpKind::Matmul, .name = "qkv", .in = ln1_out, .out = qkv, .weight = qkv_w, .bias = qkv_b});
    b.op({.kind = OpKind::Attention, .name = "att", .in = qkv, .out = att_out, .stat0 = att_lse});
    b.op({.kind = OpKind::Matmul, .name = "att_proj", .in = att_out, .residual = x,
          .out = x_mid, .weight = att_w, .bias = att_b});
    b.op({.kind = OpKind::LayerNorm, .name = "ln2", .in = x_mid,
          .out = ln2_out, .stat0 = ln2_mean, .stat1 = ln2_rstd, .weight = ln2_w, .bias = ln2_b});
    b.op({.kind = OpKind::Matmul, .name = "fc", .in = ln2_out, .out = fc_out, .weight = fc_w, .bias = fc_b});
    b.op({.kind = OpKind::Gelu, .name = "gelu", .in = fc_out, .out = act_out});
    b.op({.kind = OpKind::Matmul, .name = "fc_proj", .in = act_out, .residual = x_mid,
          .out = kLayerOutput, .weight = proj_w, .bias = proj_b});
    // clang-format on

    return b.finish(/*learned_positions=*/true, /*norm_bias=*/true);
}

}  // namespace llmc
