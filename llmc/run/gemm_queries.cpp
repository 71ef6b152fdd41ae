#include "llmc/run/gemm_queries.h"

#include "llmc/plan/communicate.h"

#include <algorithm>
#include <set>

namespace llmc {
namespace {

GemmKind kind_of(const Plan& plan, const Step& step) {
    if (step.kind == StepKind::Fused) {
        const bool is_swiglu = step.parts.back().op == OpKind::Swiglu;
        switch (plan.fusions[static_cast<size_t>(step.fusion)].fusion) {
            case Fusion::ActivationAndWeightGradient: return GemmKind::WeightGradient;
            case Fusion::InputGradientAndActivation:
                return is_swiglu ? GemmKind::InputGradientAndSwiglu : GemmKind::InputGradientAndGelu;
            case Fusion::WeightAndBiasGradient: return GemmKind::WeightAndBiasGradient;
            case Fusion::MatmulAndActivation: break;
        }
        return is_swiglu ? GemmKind::ForwardAndSwiglu : GemmKind::ForwardAndGelu;
    }
    if (step.pass == Pass::Forward) return GemmKind::Forward;
    return step.pass == Pass::BackwardInput ? GemmKind::InputGradient : GemmKind::WeightGradient;
}

/// Of a step of layers its blocks, of which the last may be smaller; of the classifier's its chunk.
std::vector<int64_t> tokens_at_once(const Plan& plan, const Step& step) {
    if (step.is_of_chunk()) return {step.tokens};
    const int64_t tokens = step.is_of_tile() ? step.tokens : plan.shape.N();
    const int64_t block = plan.block_tokens > 0 ? std::min(plan.block_tokens, tokens) : tokens;
    if (tokens % block == 0) return {block};
    return {block, tokens % block};
}

void note_rope(const ModelConfig& config, const Step& step, GemmQuery* query) {
    const bool turns_whole_heads = step.rope && config.rotary_columns() == config.HD;
    if (query->kind != GemmKind::Forward || !turns_whole_heads) return;
    query->kind = GemmKind::ForwardAndRope;
    query->head_size = config.HD;
    query->rotated_columns = (config.NH + config.NKV) * config.HD;
}

}  // namespace

std::vector<GemmQuery> gemm_queries(const Model& model, const Plan& plan) {
    std::set<GemmQuery> queries;
    for (const Step& step : plan.steps) {
        for (const Step& part : parts_of(step)) {
            const bool is_product = part.kind == StepKind::Compute && !part.is_only_bias() &&
                                    (part.op == OpKind::Matmul || part.op == OpKind::Classifier);
            const int index = is_product ? parameters_of(model, part)[0] : kNone;
            if (index < 0) continue;
            const ParameterRow& weight = model.parameters[static_cast<size_t>(index)];
            const int32_t workspace = step.operand(Slot::Workspace) >= 0 ? step.operand(Slot::Workspace)
                                                                         : parts_of(step)[0].operand(Slot::Workspace);
            GemmQuery query = {.kind = kind_of(plan, step), .dtype = plan.dtype, .OC = weight.rows, .IC = weight.cols};
            query.has_bias = part.pass == Pass::Forward && parameters_of(model, part)[1] >= 0;
            query.has_residual = part.pass == Pass::Forward && part.operand(Slot::Residual) >= 0;
            note_rope(model.config, part, &query);
            if (workspace >= 0) query.workspace_bytes = plan.tensor(workspace).rows * plan.tensor(workspace).cols;
            for (const int64_t tokens : tokens_at_once(plan, part)) {
                query.N = tokens;
                queries.insert(query);
            }
        }
    }
    return {queries.begin(), queries.end()};
}

}  // namespace llmc
