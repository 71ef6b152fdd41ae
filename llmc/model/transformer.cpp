// The table of a model, from its features. GPT-2 (Radford et al. 2019) and LLaMA (Touvron et al. 2023; Dubey et al.
// 2024) side by side; the other families are between them, or LLaMA with a part more (model/family.cpp):
//
//             GPT-2                                    LLaMA
//   ln1       LayerNorm                                RMSNorm
//   qkv       with bias                                without; rotated
//   qk_norm                                            (Qwen3: RMSNorm of each query and key head, then rotated)
//   att       causal                                   causal, grouped queries (Mistral, Phi-3, ...: with a window)
//   att_proj  with bias, + x                           without, + x
//   ln2       LayerNorm                                RMSNorm
//   fc        F columns, bias                          gate_up: 2F columns
//   act       GELU                                     SwiGLU
//   fc_proj   with bias, + x_mid                       without, + x_mid
//
// Initialisation: N(0, 0.02); projections into the residual stream are scaled by 1/sqrt(2L), since 2L of them add up
// in it.
#include "llmc/model/builder.h"

namespace llmc {
namespace {

OpKind kind_of(NormKind norm) {
    switch (norm) {
        case NormKind::LayerNorm: return OpKind::LayerNorm;
        case NormKind::RmsNorm: return OpKind::RmsNorm;
    }
    return OpKind::LayerNorm;
}

OpKind kind_of(Activation activation) {
    switch (activation) {
        case Activation::GeluTanh: return OpKind::Gelu;
        case Activation::GeluExact: return OpKind::GeluExact;
        case Activation::Swiglu: return OpKind::Swiglu;
    }
    return OpKind::Gelu;
}

}  // namespace

Model make_model(const ModelConfig& config) {
    validate(config);
    const Features& has = config.features;
    const int64_t C = config.C, QKV = config.QKV(), ATT = config.attention_columns(), HD = config.HD;
    const bool mean = has.norm == NormKind::LayerNorm, gate = has.activation == Activation::Swiglu;
    const int64_t F = config.F, FC = gate ? 2 * F : F;
    const std::string fc_name = gate ? "gate_up" : "fc";
    ModelBuilder b(config);
    const bool apart = row_of(config.family).separate_projections;
    const int64_t KV = config.NKV * HD;
    const auto qkv_parts = apart ? ModelBuilder::Parts{config.NH * HD, KV, KV} : ModelBuilder::Parts{};
    const auto fc_parts = apart && gate ? ModelBuilder::Parts{F, F} : ModelBuilder::Parts{};

    // Parameters of a layer, (out, in). What the model does not have is kNone.
    const int ln1_w = b.layer_vector("ln1_weight", C, Init::Ones);
    const int ln1_b = b.layer_vector_if(mean, "ln1_bias", C, Init::Zeros);
    const int qkv_w = b.layer_matrix("qkv_weight", QKV, C, b.stddev(), qkv_parts);
    const int qkv_b = b.layer_vector_if(has.qkv_bias, "qkv_bias", QKV, Init::Zeros, qkv_parts);
    const int q_norm_w = b.layer_vector_if(has.qk_norm, "q_norm_weight", HD, Init::Ones);
    const int k_norm_w = b.layer_vector_if(has.qk_norm, "k_norm_weight", HD, Init::Ones);
    const int att_w = b.layer_matrix("att_proj_weight", C, ATT, b.residual_stddev());
    const int att_b = b.layer_vector_if(has.att_proj_bias, "att_proj_bias", C, Init::Zeros);
    const int ln2_w = b.layer_vector("ln2_weight", C, Init::Ones);
    const int ln2_b = b.layer_vector_if(mean, "ln2_bias", C, Init::Zeros);
    const int fc_w = b.layer_matrix(fc_name + "_weight", FC, C, b.stddev(), fc_parts);
    const int fc_b = b.layer_vector_if(has.mlp_bias, fc_name + "_bias", FC, Init::Zeros, fc_parts);
    const int proj_w = b.layer_matrix("fc_proj_weight", C, F, b.residual_stddev());
    const int proj_b = b.layer_vector_if(has.mlp_bias, "fc_proj_bias", C, Init::Zeros);

    // Activations of a layer, (N, columns). Attention reads rotated queries and keys.
    const int x = b.activation("x", C, ActivationRole::LayerInput);
    const int ln1_out = b.activation("ln1_out", C, ActivationRole::NormOut);
    const int ln1_mean = b.activation_if(mean, "ln1_mean", 1, ActivationRole::Stat);
    const int ln1_rstd = b.activation("ln1_rstd", 1, ActivationRole::Stat);
    const int qkv = b.activation("qkv", QKV, ActivationRole::MatmulOut);
    const int qkv_normed = b.activation_if(has.qk_norm, "qkv_normed", QKV, ActivationRole::NormOut);
    const int qk_rstd = b.activation_if(has.qk_norm, "qk_rstd", config.NH + config.NKV, ActivationRole::Stat);
    const int att_out = b.activation("att_out", ATT, ActivationRole::AttentionOut);
    const int att_lse = b.activation("att_lse", config.NH, ActivationRole::AttentionStat);
    const int x_mid = b.activation("x_mid", C, ActivationRole::MidResidual);
    const int ln2_out = b.activation("ln2_out", C, ActivationRole::NormOut);
    const int ln2_mean = b.activation_if(mean, "ln2_mean", 1, ActivationRole::Stat);
    const int ln2_rstd = b.activation("ln2_rstd", 1, ActivationRole::Stat);
    const int fc_out = b.activation(gate ? "gate_up" : "fc_out", FC, ActivationRole::PreActivation);
    const int act_out = b.activation("act_out", F, ActivationRole::ActivationOut);

    // Operations of a block, in forward order.
    const OpKind norm = kind_of(has.norm), act = kind_of(has.activation);
    const int att_in = has.qk_norm ? qkv_normed : qkv;
    // clang-format off
    b.op({.kind = norm, .name = "ln1", .in = x,
          .out = ln1_out, .stat0 = ln1_mean, .stat1 = ln1_rstd, .weight = ln1_w, .bias = ln1_b});
    b.op({.kind = OpKind::Matmul, .name = "qkv", .in = ln1_out, .out = qkv, .weight = qkv_w, .bias = qkv_b,
          .rope = config.is_rotary() && !has.qk_norm});
    if (has.qk_norm) {
        b.op({.kind = OpKind::HeadNorm, .name = "qk_norm", .in = qkv, .out = qkv_normed, .stat1 = qk_rstd,
              .weight = q_norm_w, .bias = k_norm_w, .rope = config.is_rotary()});
    }
    b.op({.kind = OpKind::Attention, .name = "att", .in = att_in, .out = att_out, .stat0 = att_lse});
    b.op({.kind = OpKind::Matmul, .name = "att_proj", .in = att_out, .residual = x,
          .out = x_mid, .weight = att_w, .bias = att_b});
    b.op({.kind = norm, .name = "ln2", .in = x_mid,
          .out = ln2_out, .stat0 = ln2_mean, .stat1 = ln2_rstd, .weight = ln2_w, .bias = ln2_b});
    b.op({.kind = OpKind::Matmul, .name = fc_name, .in = ln2_out, .out = fc_out, .weight = fc_w, .bias = fc_b});
    b.op({.kind = act, .name = gate ? "swiglu" : "gelu", .in = fc_out, .out = act_out});
    b.op({.kind = OpKind::Matmul, .name = "fc_proj", .in = act_out, .residual = x_mid,
          .out = kLayerOutput, .weight = proj_w, .bias = proj_b});
    // clang-format on

    return b.finish(/*learned_positions=*/!config.is_rotary(), /*norm_bias=*/mean);
}

}  // namespace llmc
