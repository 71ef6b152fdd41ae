// What the generator's parts (generate.cpp, generate_head.cpp) build a plan with: tensors and steps.
#pragma once

#include "llmc/model/trainable.h"
#include "llmc/plan/add_tensor.h"
#include "llmc/plan/generate.h"

#include <string>

namespace llmc {

/// A plan in the making.
struct PlanBuilder {
    const Model& model;
    const PlanRequest& request;
    const GradientPath path;
    Plan plan;

    PlanBuilder(const Model& of_model, const PlanRequest& of_request, const std::string& name)
        : model(of_model), request(of_request), path(of_model) {
        plan.policy = name;
        plan.shape = request.shape;
        plan.dtype = request.dtype();
        plan.parallel = request.parallel;
        plan.places = request.places;
        plan.block_tokens = request.block_tokens;
    }

    int layers() const { return static_cast<int>(model.config.L); }
    int64_t N() const { return request.shape.N(); }
    PlanTensor& tensor(int32_t id) { return plan.tensors[static_cast<size_t>(id)]; }

    int32_t new_tensor(const std::string& name, int layer, DType dtype, int64_t rows, int64_t cols, Consumer consumer) {
        return add_tensor(&plan, name, layer, dtype, rows, cols, consumer);
    }
    /// What the caller writes, numbers for every token.
    int32_t new_input(const char* name, int64_t cols = 1) {
        const int32_t id = new_tensor(name, -1, DType::I32, N(), cols, Consumer::Inputs);
        tensor(id).external = true;
        return id;
    }
    int32_t new_gradient(const std::string& of, int layer, int64_t cols) {
        return new_tensor("d_" + of, layer, plan.dtype, N(), cols, Consumer::Gradients);
    }

    Step& add_step(OpKind op, Pass pass, Phase phase, int layer, int row) {
        Step& step = plan.steps.emplace_back();
        step.op = op, step.pass = pass, step.phase = phase;
        step.layer = static_cast<int16_t>(layer), step.row = static_cast<int16_t>(row);
        return step;
    }
    /// Of the last step.
    int32_t add_workspace(int64_t bytes) {
        if (bytes == 0) return kNone;
        const int32_t id = new_tensor("workspace", plan.steps.back().layer, DType::U8, bytes, 1, Consumer::Workspace);
        plan.steps.back().operand(Slot::Workspace) = id;
        return id;
    }
};

}  // namespace llmc
