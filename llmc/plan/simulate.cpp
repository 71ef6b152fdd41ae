#include "llmc/plan/simulate.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llmc {

int32_t storage_of(const Plan& plan, int32_t tensor) {
    while (plan.tensors[static_cast<size_t>(tensor)].alias >= 0)
        tensor = plan.tensors[static_cast<size_t>(tensor)].alias;
    return tensor;
}

std::vector<Lifetime> lifetimes(const Plan& plan) {
    const int steps = static_cast<int>(plan.steps.size());
    std::vector<Lifetime> result(plan.tensors.size(), Lifetime{steps, -1});
    for (int i = 0; i < steps; ++i) {
        for (const Step& part : parts_of(plan.steps[static_cast<size_t>(i)])) {
            for (const int32_t tensor : part.operands) {
                if (tensor < 0) continue;
                Lifetime& life = result[static_cast<size_t>(storage_of(plan, tensor))];
                life.first = std::min(life.first, i);
                life.last = std::max(life.last, i);
            }
        }
    }
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        if (plan.tensors[i].external) result[i].first = 0;
        if (plan.tensors[i].output) result[i].last = steps - 1;
    }
    return result;
}

namespace {

int64_t sum(const std::array<int64_t, kNumConsumers>& bytes, std::initializer_list<Consumer> consumers) {
    int64_t total = 0;
    for (const Consumer consumer : consumers) total += bytes[static_cast<size_t>(consumer)];
    return total;
}

void simulate_memory(const Plan& plan, Simulation* result) {
    const std::vector<Lifetime> lives = lifetimes(plan);
    const size_t steps = plan.steps.size();
    std::vector<std::array<int64_t, kNumConsumers>> change(steps + 1);
    for (auto& row : change) row.fill(0);
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
        if (lives[i].last < lives[i].first) continue;
        const auto consumer = static_cast<size_t>(plan.tensors[i].consumer);
        change[static_cast<size_t>(lives[i].first)][consumer] += plan.tensors[i].bytes;
        change[static_cast<size_t>(lives[i].last) + 1][consumer] -= plan.tensors[i].bytes;
    }
    std::array<int64_t, kNumConsumers> live = {};
    result->live_bytes.resize(steps);
    for (size_t step = 0; step < steps; ++step) {
        int64_t total = 0;
        for (size_t consumer = 0; consumer < kNumConsumers; ++consumer)
            total += live[consumer] += change[step][consumer];
        result->live_bytes[step] = total;
        if (total > result->peak_bytes) {
            result->peak_bytes = total;
            result->peak_step = static_cast<int>(step);
            result->by_consumer = live;
        }
        const int64_t layers = sum(live, {Consumer::Boundaries, Consumer::LayerInternals});
        const int64_t others =
            sum(live, {Consumer::HeadActivations, Consumer::Gradients, Consumer::Logits, Consumer::KeyValueCache});
        result->layer_activation_bytes = std::max(result->layer_activation_bytes, layers);
        result->activation_bytes = std::max(result->activation_bytes, layers + others);
    }
}

}  // namespace

namespace {

OpCost fused_cost(const Model& model, const Plan& plan, const Step& step, int attention_backward_products) {
    OpCost cost;
    for (const Step& part : step.parts) {
        const OpCost of_part = step_cost(model, plan, part, attention_backward_products);
        cost.flops += of_part.flops;
        cost.bytes += of_part.bytes;
    }
    return cost;
}

}  // namespace

OpCost step_cost(const Model& model, const Plan& plan, const Step& step, int attention_backward_products) {
    const auto elements = static_cast<double>(step.elements);
    switch (step.kind) {
        case StepKind::Compute: break;
        case StepKind::Fused: return fused_cost(model, plan, step, attention_backward_products);
        case StepKind::ZeroGradients:
        case StepKind::SquareSums:
            return {0, elements * static_cast<double>(size_of(plan.places.format(Buffer::Gradients)))};
        case StepKind::AddGradients:
            return {0, elements * static_cast<double>(size_of(DType::F32) +
                                                      2 * size_of(plan.places.format(Buffer::Gradients)))};
        case StepKind::Update: return {0, elements * plan.places.update_bytes()};
        case StepKind::Unpack: return {0, elements};
        default: return {};
    }
    OpCall call = {.kind = step.op, .pass = step.pass, .tokens = plan.shape.N()};
    if (step.row >= 0) call.row = &model.block[static_cast<size_t>(step.row)];
    if (step.is_of_chunk()) call.tokens = std::max<int64_t>(1, step.tokens);
    if (step.is_of_tile()) call.tokens = step.tokens;
    call.attention_backward_products = attention_backward_products;
    call.only_bias = step.is_only_bias();
    OpCost cost = op_cost(model, call, plan.shape.T, size_of(plan.dtype));
    cost.bytes += elements;
    return cost;
}

double step_flops(const Model& model, const Plan& plan, const Step& step) {
    const PassFacts& backward = facts_of(OpKind::Attention, Pass::Backward);
    return step_cost(model, plan, step, backward.products).flops;
}

Simulation simulate(const Model& model, const Plan& plan) {
    Simulation result;
    simulate_memory(plan, &result);
    for (const Step& step : plan.steps) {
        const double flops = step_flops(model, plan, step);
        const bool forward = step.pass == Pass::Forward, repeated = step.phase == Phase::Recompute;
        (repeated ? result.recompute_flops : forward ? result.forward_flops : result.backward_flops) += flops;
    }
    return result;
}

namespace {

const char* words_of(StepKind kind) {
    switch (kind) {
        case StepKind::Compute:
        case StepKind::Fused: return "";
        case StepKind::Unpack: return "unpack";
        case StepKind::CopyOut: return "copy out of";
        case StepKind::WaitCopyOut: return "wait for copy out of";
        case StepKind::Fetch: return "fetch of";
        case StepKind::WaitFetch: return "wait for fetch of";
        case StepKind::ZeroGradients: return "zero gradients";
        case StepKind::AddGradients: return "add gradients";
        case StepKind::Reduce: return "reduce gradients";
        case StepKind::WaitReduce: return "wait for gradients";
        case StepKind::Share: return "share gradients";
        case StepKind::WaitShare: return "wait for all gradients";
        case StepKind::FoldGradients: return "gradients into the tree of sums";
        case StepKind::Gather: return "gather parameters";
        case StepKind::WaitGather: return "wait for parameters";
        case StepKind::SquareSums: return "sums of squares";
        case StepKind::GatherSums: return "gather sums of squares";
        case StepKind::BeginUpdate: return "norm of the gradients";
        case StepKind::Update: return "update";
    }
    return "?";
}

}  // namespace

std::string describe_step(const Model& model, const Step& step) {
    const std::string where = step.layer >= 0 ? fmt::format("layer {}, ", step.layer) : "";
    if (step.is_copy_of_state()) {
        const char* elsewhere = step.bucket == 0 ? "embedding, " : "head, ";
        return fmt::format("{}{} {}", step.layer >= 0 ? where : elsewhere, words_of(step.kind), name_of(step.buffer));
    }
    if (step.is_of_bucket()) {
        const char* elsewhere = step.bucket < 0 ? "" : step.bucket == 0 ? "embedding, " : "head, ";
        return fmt::format("{}{}", step.layer >= 0 ? where : elsewhere, words_of(step.kind));
    }
    if (step.kind == StepKind::Fused) {
        std::string parts;
        for (Step part : step.parts) {
            part.layer = -1;
            parts += (parts.empty() ? "" : " + ") + describe_step(model, part);
        }
        // One operation in one pass, where it usually takes two.
        return where + (step.parts.size() == 1 ? "in one pass, " : "") + parts;
    }
    if (step.kind == StepKind::Unpack) {
        const std::string& row = model.parameters[static_cast<size_t>(step.parameter)].name;
        return fmt::format("{}{} {}", where, words_of(step.kind), row.substr(row.rfind('.') + 1));
    }
    if (step.kind != StepKind::Compute) {
        return fmt::format("{}{} {}", where, words_of(step.kind), model.activations[kLayerInput].name);
    }
    std::string name(name_of(step.op));
    if (step.row >= 0) name = model.block[static_cast<size_t>(step.row)].name;
    if (step.row < 0 && step.op == model.norm) name = "lnf";
    if (step.op == OpKind::CrossEntropy || step.op == OpKind::LossSum) return name;
    constexpr const char* kPasses[] = {"forward of", "backward of", "weight gradient of", "input gradient of"};
    const char* pass = step.phase == Phase::Recompute ? "repeated" : kPasses[static_cast<int>(step.pass)];
    return fmt::format("{}{} {}", where, pass, name);
}

}  // namespace llmc
