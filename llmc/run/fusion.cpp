#include "llmc/run/fusion.h"

#include "llmc/base/check.h"

#include <algorithm>

namespace llmc {
namespace {

bool is_activation(OpKind kind) { return kind == OpKind::Gelu || kind == OpKind::GeluExact || kind == OpKind::Swiglu; }

/// What is asked about a run, but for N.
struct Candidate {
    FusionQuery query;
    std::vector<FusedPart> parts;
};

const ParameterRow& weight_of(const Model& model, const OpRow& matmul) {
    return model.parameters[static_cast<size_t>(model.parameter_index(0, matmul.weight))];
}

Candidate candidate(const Model& model, Fusion fusion, const OpRow& matmul, std::vector<FusedPart> parts) {
    const ParameterRow& weight = weight_of(model, matmul);
    return {{.fusion = fusion, .OC = weight.rows, .IC = weight.cols}, std::move(parts)};
}

/// A matmul and the activation of what it gives. Where an adapter stands between them no plan has such a run.
Candidate of_forward(const Model& model, int activation) {
    const OpRow& op = model.block[static_cast<size_t>(activation)];
    const int before = model.producer(op.in);
    const OpRow& matmul = model.block[static_cast<size_t>(before)];
    // An activation moves what it is applied to and its result, of which the result is left.
    const float share = op.kind == OpKind::Swiglu ? 1.0f / 3 : 0.5f;
    Candidate found = candidate(model, Fusion::MatmulAndActivation, matmul,
                                {{matmul.kind, Pass::Forward, before}, {op.kind, Pass::Forward, activation, share}});
    found.query.activation = activation_of(op.kind);
    return found;
}

/// A matmul's input gradient and the backward of the activation before it.
Candidate of_input_gradient(const Model& model, int row) {
    const OpRow& matmul = model.block[static_cast<size_t>(row)];
    const int before = model.producer(matmul.in);
    const OpRow& activation = model.block[static_cast<size_t>(before)];
    // An activation's backward reads its result's gradient and what it was applied to, and writes the gradient of that:
    // what the product writes and it would read is left out.
    const float share = activation.kind == OpKind::Swiglu ? 3.0f / 5 : 1.0f / 3;
    Candidate found =
        candidate(model, Fusion::InputGradientAndActivation, matmul,
                  {{matmul.kind, Pass::BackwardInput, row}, {activation.kind, Pass::Backward, before, share}});
    found.query.activation = activation_of(activation.kind);
    return found;
}

/// Those that a block has, whatever the backend says to them. Measured times are by their order (OpTimes::fused): what
/// only some runs have comes last.
std::vector<Candidate> candidates(const Model& model) {
    std::vector<Candidate> all, of_some;
    for (int row = 0; row < static_cast<int>(model.block.size()); ++row) {
        const OpRow& op = model.block[static_cast<size_t>(row)];
        if (is_activation(op.kind)) {
            of_some.push_back(of_forward(model, row));
            const int before = model.producer(op.in);
            const OpRow& matmul = model.block[static_cast<size_t>(before)];
            if (matmul.bias == kNone) continue;
            all.push_back(candidate(model, Fusion::ActivationAndWeightGradient, matmul,
                                    {{op.kind, Pass::Backward, row}, {matmul.kind, Pass::BackwardWeight, before}}));
            all.back().query.activation = activation_of(op.kind);
        }
        if (op.kind != OpKind::Matmul) continue;
        const int before = model.producer(op.in);
        if (before >= 0 && is_activation(model.block[static_cast<size_t>(before)].kind)) {
            const bool is_swiglu = model.block[static_cast<size_t>(before)].kind == OpKind::Swiglu;
            (is_swiglu ? of_some : all).push_back(of_input_gradient(model, row));
        }
        if (op.bias != kNone) {
            all.push_back(candidate(model, Fusion::WeightAndBiasGradient, op, {{op.kind, Pass::BackwardWeight, row}}));
        }
    }
    all.insert(all.end(), of_some.begin(), of_some.end());
    return all;
}

/// For blocks of so many tokens, of so many in all: what is left for the last block is fused as the others are.
FusionAnswer answer_of(FusionQuery query, int64_t tokens, int64_t block, const Backend& backend) {
    query.N = block;
    FusionAnswer answer = backend.fuses(query);
    query.N = tokens % block;
    if (!answer.fuses || query.N == 0) return answer;
    const FusionAnswer of_last = backend.fuses(query);
    answer.fuses = of_last.fuses;
    answer.workspace_bytes = std::max(answer.workspace_bytes, of_last.workspace_bytes);
    return answer;
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
    for (Candidate& each : candidates(model)) {
        each.query.dtype = dtype;
        const FusionAnswer answer = answer_of(each.query, shape.N(), block, backend);
        if (!answer.fuses) continue;
        runs.push_back({.fusion = each.query.fusion,
                        .parts = std::move(each.parts),
                        .same_bits = answer.same_bits,
                        .stores_between = answer.stores_between,
                        .workspace_bytes = answer.workspace_bytes});
    }
    return runs;
}

}  // namespace llmc
