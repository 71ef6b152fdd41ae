#include "llmc/plan/cost.h"

#include "llmc/base/error.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llmc {

const std::vector<DeviceProfile>& device_profiles() {
    // Dense matrix rates (fp32: TF32 off) and memory bandwidth from the makers' data sheets; so are the links, one way:
    // NVLink or PCIe 4 inside a host, and the network adapters of the makers' own machines, by card.
    constexpr double kPcie = 25e9, kNetwork = 12.5e9;
    static const std::vector<DeviceProfile> table = {
        {"a100", 19.5e12, 312e12, 2.04e12, 4e-6, 0.7, kPcie, 300e9, 25e9},
        {"h100", 67e12, 989e12, 3.35e12, 4e-6, 0.6, kPcie, 450e9, 50e9},
        {"h200", 67e12, 989e12, 4.8e12, 4e-6, 0.6, kPcie, 450e9, 50e9},
        {"b200", 75e12, 2250e12, 8e12, 4e-6, 0.6, kPcie, 900e9, 50e9},
        {"l40s", 91.6e12, 362e12, 0.864e12, 4e-6, 0.6, kPcie, kPcie, kNetwork},
        {"rtx3090", 35.6e12, 71e12, 0.936e12, 4e-6, 0.7, kPcie, kPcie, kNetwork},
        {"rtx4090", 82.6e12, 165e12, 1.008e12, 4e-6, 0.7, kPcie, kPcie, kNetwork},
        {"rtx5090", 104.8e12, 209e12, 1.792e12, 4e-6, 0.7, kPcie, kPcie, kNetwork},
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
    times.link_bandwidth = profile.link_bandwidth;
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

namespace {

/// Bytes that a rank sends in a step.
int64_t sent_bytes(const Plan& plan, const Step& step) {
    const int64_t others = (plan.parallel.ranks - 1) * plan.partition.bucket(step.bucket).piece;
    return others * size_of(step.kind == StepKind::Gather ? plan.dtype : DType::F32);
}

double seconds_to_send(const OpTimes& times, int64_t bytes) {
    return static_cast<double>(bytes) / times.link_bandwidth + times.link_latency;
}

/// Operations one after the other, and what runs beside them.
class Clock {
  public:
    Clock(const OpTimes& times, const Plan& plan, bool reduces)
        : times_(times),
          plan_(plan),
          reduces_(reduces),
          moved_(plan.tensors.size(), 0),
          reduced_(plan.partition.buckets.size(), 0) {}

    double seconds() const { return now_; }

    void run(const Step& step) {
        const int32_t in = step.operand(Slot::In), out = step.operand(Slot::Out);
        const int32_t parameters = step.operand(Slot::Parameters);
        switch (step.kind) {
            case StepKind::Compute: now_ += step_seconds(times_, step); break;
            case StepKind::ZeroGradients: break;
            case StepKind::CopyOut: moved(in) = begin(copy_seconds(in), &out_until_); break;
            case StepKind::Fetch: moved(out) = begin(copy_seconds(out), &in_until_); break;
            case StepKind::Gather:
                moved(parameters) = begin(transfer_seconds(times_, plan_, step), &link_until_);
                break;
            case StepKind::Reduce:
            case StepKind::Share:
                if (reduces_) reduced(step) = begin(transfer_seconds(times_, plan_, step), &link_until_);
                break;
            case StepKind::WaitCopyOut: wait(moved(in)); break;
            case StepKind::WaitFetch: wait(moved(out)); break;
            case StepKind::WaitGather: wait(moved(parameters)); break;
            case StepKind::WaitReduce:
            case StepKind::WaitShare: wait(reduced(step)); break;
        }
    }

  private:
    /// When it will be over.
    double begin(double seconds, double* busy_until) const {
        return *busy_until = std::max(now_, *busy_until) + seconds;
    }
    void wait(double until) { now_ = std::max(now_, until); }
    double copy_seconds(int32_t tensor) const {
        return static_cast<double>(plan_.tensors[static_cast<size_t>(tensor)].bytes) / times_.host_bandwidth;
    }
    double& moved(int32_t tensor) { return moved_[static_cast<size_t>(tensor)]; }
    double& reduced(const Step& step) { return reduced_[static_cast<size_t>(step.bucket)]; }

    const OpTimes& times_;
    const Plan& plan_;
    const bool reduces_;
    double now_ = 0, out_until_ = 0, in_until_ = 0, link_until_ = 0;
    std::vector<double> moved_;    ///< By tensor, when it is copied or gathered.
    std::vector<double> reduced_;  ///< By bucket, when it is reduced, or shared.
};

}  // namespace

double transfer_seconds(const OpTimes& times, const Plan& plan, const Step& step) {
    return seconds_to_send(times, sent_bytes(plan, step));
}

double plan_seconds(const OpTimes& times, const Plan& plan, bool reduces) {
    Clock clock(times, plan, reduces);
    for (const Step& step : plan.steps) clock.run(step);
    return clock.seconds();
}

double update_gather_seconds(const OpTimes& times, const Plan& plan) {
    if (plan.parallel.zero != 1 && plan.parallel.zero != 2) return 0;
    double seconds = 0;
    for (const Bucket& bucket : plan.partition.buckets) {
        seconds += seconds_to_send(times, (plan.parallel.ranks - 1) * bucket.piece * size_of(plan.dtype));
    }
    return seconds;
}

double update_seconds(const OpTimes& times, const Plan& plan, const Parallel& parallel) {
    const double others = plan_seconds(times, plan, parallel.reduces_every_micro_batch());
    const double optimizer = parallel.zero >= 1 ? times.optimizer / parallel.ranks : times.optimizer;
    return static_cast<double>(parallel.micro_batches - 1) * others + plan_seconds(times, plan) + optimizer +
           update_gather_seconds(times, plan);
}

int64_t communication_bytes(const Plan& plan, bool reduces) {
    int64_t bytes = 0;
    for (const Step& step : plan.steps) {
        const bool of_gradients = step.kind == StepKind::Reduce || step.kind == StepKind::Share;
        const bool sends = step.kind == StepKind::Gather || (of_gradients && reduces);
        if (sends) bytes += sent_bytes(plan, step);
    }
    return bytes;
}

double bandwidth_to_hide(OpTimes times, const Plan& plan, double slack) {
    constexpr double kLeast = 1, kMost = 1e15;  // Bytes per second.
    if (communication_bytes(plan) == 0) return 0;
    const auto seconds_at = [&](double bandwidth) {
        times.link_bandwidth = bandwidth;
        return plan_seconds(times, plan);
    };
    const double latency = std::exchange(times.link_latency, 0);
    const double limit = (1 + slack) * seconds_at(INFINITY);
    times.link_latency = latency;
    if (seconds_at(kMost) > limit) return INFINITY;
    double low = std::log(kLeast), high = std::log(kMost);
    while (high - low > 1e-6) {
        const double middle = (low + high) / 2;
        (seconds_at(std::exp(middle)) <= limit ? high : low) = middle;
    }
    return std::exp(high);
}

}  // namespace llmc
