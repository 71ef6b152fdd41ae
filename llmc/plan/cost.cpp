#include "llmc/plan/cost.h"

#include "llmc/base/dynamic_map.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace llmc {

namespace {

/// Prices calls of operations at one shape.
class Pricing {
  public:
    Pricing(const Model& model, const BatchShape& shape, DType dtype, const DeviceProfile& profile)
        : model_(model), shape_(shape), dtype_(dtype), profile_(profile) {}

    double operator()(OpCall call) const {
        call.attention_backward_products = profile_.attention_backward_products;
        OpCost cost = op_cost(model_, call, shape_.T, size_of(dtype_));
        const bool is_library = call.kind == OpKind::Matmul || call.kind == OpKind::Classifier;
        double rate = (is_library ? profile_.product_flops(dtype_) : profile_.flops(dtype_)) * profile_.efficiency;
        if (call.kind == OpKind::Attention) {
            const bool backward = call.pass != Pass::Forward;
            const AttentionRate attention = profile_.attention_rate(dtype_, model_.config.HD, backward);
            rate = profile_.flops(dtype_) * attention.share;
            cost.flops *= 1 + attention.more_tokens / static_cast<double>(shape_.T);
        }
        return std::max(cost.flops / rate, moved(cost.bytes)) + profile_.launch_seconds;
    }

    double moved(double bytes) const { return bytes / (profile_.bandwidth * profile_.bandwidth_efficiency); }

  private:
    const Model& model_;
    BatchShape shape_;
    DType dtype_;
    const DeviceProfile& profile_;
};

}  // namespace

OpTimes times_by(const OpPrice& price, const Model& model, const BatchShape& shape, const TokensAtOnce& at_once) {
    /// Block after block, the last of which may be smaller.
    const auto in_blocks = [&](OpCall call) {
        const int64_t tokens = call.tokens, block = at_once.block;
        if (block == 0 || tokens <= block || !is_token_wise(call.kind)) return price(call);
        call.tokens = block;
        double seconds = static_cast<double>(tokens / block) * price(call);
        call.tokens = tokens % block;
        if (call.tokens > 0) seconds += price(call);
        return seconds;
    };
    const auto all_passes = [&](OpKind kind, int64_t tokens, const OpRow* row = nullptr) -> OpTimes::Row {
        OpCall call = {kind, Pass::Forward, row, tokens};
        const auto seconds = [&](Pass pass, bool only_bias = false) {
            call.pass = pass, call.only_bias = only_bias;
            return in_blocks(call);
        };
        if (!facts_of(kind).splits_backward) return {seconds(Pass::Forward), seconds(Pass::Backward)};
        return {seconds(Pass::Forward), seconds(Pass::BackwardInput), seconds(Pass::BackwardWeight),
                seconds(Pass::BackwardWeight, /*only_bias=*/true)};
    };
    OpTimes times;
    for (const OpRow& row : model.block) times.block.push_back(all_passes(row.kind, shape.N(), &row));
    times.embedding = all_passes(OpKind::Embedding, shape.N());
    times.final_norm = all_passes(model.norm, shape.N());
    times.scored_rows = all_passes(OpKind::ScoredRows, shape.N());
    times.dropout = all_passes(OpKind::Dropout, shape.N());
    times.tokens = shape.N();
    times.chunk_tokens = at_once.logits_chunk > 0 ? std::min(at_once.logits_chunk, shape.N()) : shape.N();
    times.classifier = all_passes(OpKind::Classifier, times.chunk_tokens);
    times.cross_entropy = all_passes(OpKind::CrossEntropy, times.chunk_tokens);
    times.loss_sum = price({OpKind::LossSum, Pass::Forward, nullptr, shape.N()});
    return times;
}

std::string uncalibrated(double usual_error) {
    if (usual_error <= 0) return "uncalibrated, error unknown";
    return fmt::format("uncalibrated, usually within {:.0f} %", 100 * usual_error);
}

std::string source_in_hindsight(const OpTimes& times, double error) {
    const size_t claim = times.source.find(", usually within ");
    const bool holds = claim == std::string::npos || std::abs(error) <= times.usual_error;
    return holds ? times.source : times.source.substr(0, claim);
}

OpTimes analytic_times(const Model& model, const BatchShape& shape, const Places& places, const DeviceProfile& profile,
                       const TokensAtOnce& at_once) {
    const Pricing price(model, shape, places.activations(), profile);
    OpTimes times = times_by(price, model, shape, at_once);
    const bool estimates = profile.estimates_attention(places.activations(), model.config.HD);
    times.source = fmt::format("analytic, {}; {}", profile.name,
                               estimates ? "uncalibrated, attention on Hopper's kernels estimated, not measured"
                                         : uncalibrated(profile.usual_error));
    times.usual_error = profile.usual_error;
    times.host_bandwidth = profile.host_bandwidth;
    times.link_bandwidth = profile.link_bandwidth;
    times.zeroing = times.square_sums = price.moved(sizeof(float));
    times.update = price.moved(places.update_bytes());
    times.unpacking = price.moved(1);
    times.begin_update = profile.launch_seconds;
    return times;
}

double& time_of(OpTimes& times, const Step& step) {
    switch (step.kind) {
        case StepKind::Fused:
            times.fused.resize(std::max(times.fused.size(), static_cast<size_t>(step.fusion) + 1));
            return times.fused[static_cast<size_t>(step.fusion)];
        case StepKind::ZeroGradients:
        case StepKind::AddGradients: return times.zeroing;
        case StepKind::SquareSums: return times.square_sums;
        case StepKind::Unpack: return times.unpacking;
        case StepKind::BeginUpdate: return times.begin_update;
        case StepKind::Update: return times.update;
        default: break;
    }
    if (step.op == OpKind::LossSum) return times.loss_sum;
    OpTimes::Row& row = step.row >= 0                     ? times.block[static_cast<size_t>(step.row)]
                        : step.op == OpKind::Embedding    ? times.embedding
                        : step.op == OpKind::ScoredRows   ? times.scored_rows
                        : step.op == OpKind::Dropout      ? times.dropout
                        : step.op == OpKind::Classifier   ? times.classifier
                        : step.op == OpKind::CrossEntropy ? times.cross_entropy
                                                          : times.final_norm;
    if (step.pass == Pass::Forward) return row.forward;
    if (step.is_only_bias()) return row.backward_bias;
    return step.pass == Pass::BackwardWeight ? row.backward_weight : row.backward;
}

double units_of(const OpTimes& times, const Step& step) {
    if (step.kind == StepKind::BeginUpdate) return 1;
    if (step.is_of_tile()) return static_cast<double>(step.tokens) / static_cast<double>(times.tokens);
    if (step.kind == StepKind::Fused) return 1;
    if (step.kind == StepKind::AddGradients) return 2 * static_cast<double>(step.elements);  // 8 bytes, not 4.
    if (step.kind != StepKind::Compute) return static_cast<double>(step.elements);
    if (!step.is_of_chunk()) return 1;
    return static_cast<double>(std::max<int64_t>(1, step.tokens)) / static_cast<double>(times.chunk_tokens);
}

namespace {

double fused_seconds(const OpTimes& times, const Step& step) {
    const auto fusion = static_cast<size_t>(step.fusion);
    if (fusion < times.fused.size() && times.fused[fusion] > 0) return units_of(times, step) * times.fused[fusion];
    double seconds = 0;
    for (const Step& part : step.parts) seconds += part.share * step_seconds(times, part);
    return seconds;
}

}  // namespace

double step_seconds(const OpTimes& times, const Step& step) {
    switch (step.kind) {
        case StepKind::Fused: return fused_seconds(times, step);
        case StepKind::Compute:
            return units_of(times, step) * time_of(const_cast<OpTimes&>(times), step) +
                   static_cast<double>(step.elements) * times.unpacking;
        case StepKind::Unpack:
        case StepKind::ZeroGradients:
        case StepKind::AddGradients:
        case StepKind::SquareSums:
        case StepKind::BeginUpdate:
        case StepKind::Update: return units_of(times, step) * time_of(const_cast<OpTimes&>(times), step);
        default: return 0;
    }
}

namespace {

/// Bytes that a rank sends in a step.
int64_t sent_bytes(const Plan& plan, const Step& step) {
    const Buffer buffer = step.kind == StepKind::Gather ? step.buffer : Buffer::Gradients;
    const int64_t others = (plan.parallel.ranks - 1) * plan.partition_of(buffer).bucket(step.bucket).piece;
    return others * size_of(step.kind == StepKind::Reduce ? DType::F32 : plan.places.format(buffer));
}

double seconds_to_send(const OpTimes& times, int64_t bytes) {
    return static_cast<double>(bytes) / times.link_bandwidth + times.link_latency;
}

/// Operations one after the other, and what runs beside them.
class Clock {
  public:
    Clock(const OpTimes& times, const Plan& plan)
        : times_(times), plan_(plan), moved_(plan.tensors.size(), 0), sent_(plan.partition.buckets.size(), 0) {}

    double seconds() const { return now_; }

    void run(const Step& step) {
        const int32_t in = step.operand(Slot::In), out = step.operand(Slot::Out);
        const int32_t parameters = step.operand(slot_of(step.buffer));
        switch (step.kind) {
            case StepKind::CopyOut: moved(in) = begin(copy_seconds(step), &out_until_); break;
            case StepKind::Fetch: moved(out) = begin(copy_seconds(step), &in_until_); break;
            case StepKind::Gather:
                sent(step) = begin(transfer_seconds(times_, plan_, step), &link_until_);
                if (parameters >= 0) moved(parameters) = sent(step);
                break;
            case StepKind::Reduce:
            case StepKind::Share: sent(step) = begin(transfer_seconds(times_, plan_, step), &link_until_); break;
            case StepKind::GatherSums: now_ += times_.link_latency; break;
            case StepKind::WaitCopyOut: wait(moved(in)); break;
            case StepKind::WaitFetch: wait(moved(out)); break;
            case StepKind::WaitGather: wait(parameters >= 0 ? moved(parameters) : sent(step)); break;
            case StepKind::WaitReduce:
            case StepKind::WaitShare: wait(sent(step)); break;
            default: now_ += step_seconds(times_, step); break;
        }
    }

  private:
    /// When it will be over.
    double begin(double seconds, double* busy_until) const {
        return *busy_until = std::max(now_, *busy_until) + seconds;
    }
    void wait(double until) { now_ = std::max(now_, until); }
    double copy_seconds(const Step& step) const {
        return static_cast<double>(copied_bytes(plan_, step)) / times_.host_bandwidth;
    }
    double& moved(int32_t tensor) { return moved_[static_cast<size_t>(tensor)]; }
    double& sent(const Step& step) { return sent_[static_cast<size_t>(step.bucket)]; }

    const OpTimes& times_;
    const Plan& plan_;
    double now_ = 0, out_until_ = 0, in_until_ = 0, link_until_ = 0;
    std::vector<double> moved_;  ///< By tensor, when it is copied or gathered.
    std::vector<double> sent_;   ///< By bucket, when it is reduced, shared or gathered.
};

}  // namespace

int64_t copied_bytes(const Plan& plan, const Step& step) {
    if (step.kind != StepKind::CopyOut && step.kind != StepKind::Fetch) return 0;
    if (!step.is_copy_of_state()) return plan.tensor(step.copied()).bytes;
    const DType format = plan.places.format(step.buffer);
    const int64_t scales =
        format == DType::U8 && step.buffer != Buffer::Frozen ? step.elements / kStateBlock * size_of(DType::F32) : 0;
    return step.elements * size_of(format) + scales;
}

double transfer_seconds(const OpTimes& times, const Plan& plan, const Step& step) {
    return seconds_to_send(times, sent_bytes(plan, step));
}

Turn only_turn(const Plan& plan) { return {.pending = plan.delays_update()}; }

double plan_seconds(const OpTimes& times, const Plan& plan, Turn turn) {
    Clock clock(times, plan);
    for (const Step& step : plan.steps) {
        if (runs(step, turn)) clock.run(step);
    }
    return clock.seconds();
}

namespace {

/// Adds up what `of_turn` says of the micro-batches of an update: the first, those between, the last.
template <typename OfTurn>
auto over_update(const Plan& plan, OfTurn of_turn) {
    const int64_t count = plan.parallel.micro_batches;
    if (count == 1) return of_turn(only_turn(plan));
    auto sum = of_turn(Turn{.first = true, .last = false, .pending = plan.delays_update()}) +
               of_turn(Turn{.first = false, .last = true});
    using Sum = decltype(sum);
    if (count > 2) sum += static_cast<Sum>(count - 2) * of_turn(Turn{.first = false, .last = false});
    return sum;
}

}  // namespace

HostTraffic host_traffic_per_update(const Plan& plan) {
    const auto of_kind = [&](StepKind kind) {
        return over_update(plan, [&](Turn turn) {
            int64_t bytes = 0;
            for (const Step& step : plan.steps) {
                if (step.kind == kind && runs(step, turn)) bytes += copied_bytes(plan, step);
            }
            return bytes;
        });
    };
    return {of_kind(StepKind::Fetch), of_kind(StepKind::CopyOut)};
}

double update_seconds(const OpTimes& times, const Plan& plan) {
    return over_update(plan, [&](Turn turn) { return plan_seconds(times, plan, turn); });
}

int64_t communication_bytes(const Plan& plan, Turn turn) {
    int64_t bytes = 0;
    for (const Step& step : plan.steps) {
        const bool sends =
            step.kind == StepKind::Gather || step.kind == StepKind::Reduce || step.kind == StepKind::Share;
        if (sends && runs(step, turn)) bytes += sent_bytes(plan, step);
    }
    return bytes;
}

int64_t communication_bytes_per_update(const Plan& plan) {
    return over_update(plan, [&](Turn turn) { return communication_bytes(plan, turn); });
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
