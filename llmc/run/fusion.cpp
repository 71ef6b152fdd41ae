#include "llmc/run/fusion.h"

#include "llmc/base/check.h"

#include <algorithm>

namespace llmc {
namespace {

bool is_activation(OpKind kind) { return kind == OpKind::Gelu || kind == OpKind::GeluExact || kind == OpKind::Swiglu; }

FusedRun fused_run(const FusionQuery& query, const FusionAnswer& answer, std::vector<FusedPart> parts) {
    return {.fusion = query.fusion,
            .parts = std::move(parts),
            .same_bits = answer.same_bits,
            .stores_between = answer.stores_between,
            .workspace_bytes = answer.workspace_bytes};
}

}  // namespace

ActivationFunction activation_of(OpKind kind) {
    CHECK(is_activation(kind), name_of(kind));
    return kind == OpKind::Gelu        ? ActivationFunction::Gelu
           : kind == OpKind::GeluExact ? ActivationFunction::GeluExact
                                       : ActivationFunction::Swiglu;
}

std::vector<FusedRun> fused_runs(const Model& model, const BatchShape& shape, int64_t block_tokens, DType dtype,
                                 const Backend& backend) {
    const int64_t block = block_tokens > 0 ? std::min(block_tokens, shape.N()) : shape.N();
    std::vector<FusedRun> runs;
    for (int act = 0; act < static_cast<int>(model.block.size()); ++act) {
        const OpRow& activation = model.block[static_cast<size_t>(act)];
        if (!is_activation(activation.kind)) continue;
        const int before = model.producer(activation.in);
        const OpRow& matmul = model.block[static_cast<size_t>(before)];
        if (matmul.bias == kNone) continue;
        const ParameterRow& weight = model.parameters[static_cast<size_t>(model.parameter_index(0, matmul.weight))];
        FusionQuery query = {.fusion = Fusion::ActivationAndWeightGradient,
                             .activation = activation_of(activation.kind),
                             .dtype = dtype,
                             .N = block,
                             .OC = weight.rows,
                             .IC = weight.cols};
        FusionAnswer answer = backend.fuses(query);
        if (!answer.fuses) continue;
        query.N = shape.N() % block;  // What is left for the last block is fused as the others are.
        if (query.N > 0)
            answer.workspace_bytes = std::max(answer.workspace_bytes, backend.fuses(query).workspace_bytes);
        runs.push_back(fused_run(
            query, answer, {{activation.kind, Pass::Backward, act}, {matmul.kind, Pass::BackwardWeight, before}}));
    }
    return runs;
}

}  // namespace llmc
