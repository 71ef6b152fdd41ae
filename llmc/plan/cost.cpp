#include "llmc/plan/cost.h"

#include "llmc/base/error.h"

#include <algorithm>

namespace llmc {

const std::vector<DeviceProfile>& device_profiles() {
    // Dense matrix rates (fp32: TF32 off) and memory bandwidth from the makers' data sheets.
    static const std::vector<DeviceProfile> table = {
        {"a100", 19.5e12, 312e12, 2.04e12, 4e-6, 0.7},     {"h100", 67e12, 989e12, 3.35e12, 4e-6, 0.6},
        {"h200", 67e12, 989e12, 4.8e12, 4e-6, 0.6},        {"b200", 75e12, 2250e12, 8e12, 4e-6, 0.6},
        {"l40s", 91.6e12, 362e12, 0.864e12, 4e-6, 0.6},    {"rtx3090", 35.6e12, 71e12, 0.936e12, 4e-6, 0.7},
        {"rtx4090", 82.6e12, 165e12, 1.008e12, 4e-6, 0.7}, {"rtx5090", 104.8e12, 209e12, 1.792e12, 4e-6, 0.7},
    };
    return table;
}

const DeviceProfile& find_device_profile(const std::string& name) {
    std::string names;
    for (const DeviceProfile& profile : device_profiles()) {
        if (profile.name == name) return profile;
        names += (names.empty() ? "" : ", ") + profile.name;
    }
    fail_usage("--device-profile={}: no such profile; choose one of {}, or leave it out to plan for this machine", name,
               names);
}

namespace {

double seconds(const OpCost& cost, DType dtype, const DeviceProfile& profile) {
    const double rate = (dtype == DType::BF16 ? profile.flops_bf16 : profile.flops_fp32) * profile.efficiency;
    return std::max(cost.flops / rate, cost.bytes / profile.bandwidth) + profile.launch_seconds;
}

OpCost half(const OpCost& cost) { return {cost.flops / 2, cost.bytes / 2}; }

}  // namespace

OpTimes analytic_times(const Model& model, const BatchShape& shape, DType dtype, const DeviceProfile& profile) {
    const int64_t item = size_of(dtype);
    const auto timed = [&](const OpCost& cost) { return seconds(cost, dtype, profile); };
    OpTimes times;
    times.source = "analytic, " + profile.name;
    times.host_bandwidth = profile.host_bandwidth;
    for (const OpRow& row : model.block) {
        OpTimes::Row entry;
        entry.forward = timed(forward_cost(model, row, shape, item));
        const OpCost backward = backward_cost(model, row, shape, item);
        if (row.kind == OpKind::Matmul) {
            entry.backward = entry.backward_weight = timed(half(backward));
        } else {
            entry.backward = timed(backward);
        }
        times.block.push_back(entry);
    }
    const double stream = static_cast<double>(shape.N() * model.config.C * item);
    times.embedding = {timed({0, 2 * stream}), timed({0, 3 * stream}), 0};
    times.final_norm = {timed({0, 2 * stream}), timed({0, 3 * stream}), 0};
    times.classifier = timed(head_cost(model, shape, item, true));
    // Reads parameter, gradient and both moments, writes all but the gradient, and the gradient is zeroed and summed.
    times.optimizer = timed({0, 9.0 * 4 * static_cast<double>(model.parameter_elements)});
    return times;
}

double step_seconds(const OpTimes& times, const Step& step) {
    if (step.kind != StepKind::Compute) return 0;
    if (step.op == OpKind::Classifier) return times.classifier;
    const OpTimes::Row& row = step.row >= 0                  ? times.block[static_cast<size_t>(step.row)]
                              : step.op == OpKind::Embedding ? times.embedding
                                                             : times.final_norm;
    if (step.pass == Pass::Forward) return row.forward;
    return step.pass == Pass::BackwardWeight ? row.backward_weight : row.backward;
}

double plan_seconds(const OpTimes& times, const Plan& plan) {
    double now = 0, out_until = 0, in_until = 0;
    std::vector<double> copied(plan.tensors.size(), 0);  // When, by tensor.
    const auto begin = [&](int32_t tensor, double& busy_until) {
        const auto bytes = static_cast<double>(plan.tensors[static_cast<size_t>(tensor)].bytes);
        busy_until = std::max(now, busy_until) + bytes / times.host_bandwidth;
        copied[static_cast<size_t>(tensor)] = busy_until;
    };
    const auto wait = [&](int32_t tensor) { now = std::max(now, copied[static_cast<size_t>(tensor)]); };
    for (const Step& step : plan.steps) {
        switch (step.kind) {
            case StepKind::Compute: now += step_seconds(times, step); break;
            case StepKind::CopyOut: begin(step.operand(Slot::In), out_until); break;
            case StepKind::Fetch: begin(step.operand(Slot::Out), in_until); break;
            case StepKind::WaitCopyOut: wait(step.operand(Slot::In)); break;
            case StepKind::WaitFetch: wait(step.operand(Slot::Out)); break;
        }
    }
    return now;
}

}  // namespace llmc
