#include "llmc/train/choose_plan.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/plan/search.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace llmc {
namespace {

/// Bytes per second where nothing better is known: two channels of DDR5.
constexpr double kUsualBandwidth = 50e9;

DeviceProfile profile_of(const DeviceInfo& device) {
    const double fp32 = device.peak_flops_fp32 > 0 ? device.peak_flops_fp32 : 100e9;
    return {device.name,
            fp32,
            device.peak_flops_bf16 > 0 ? device.peak_flops_bf16 : fp32,
            device.bandwidth > 0 ? device.bandwidth : kUsualBandwidth,
            5e-6,
            0.8};
}

int64_t micro_batches(const Options& options, const BatchShape& shape) {
    return std::max<int64_t>(1, options.total_batch_size / shape.N());
}

PlanRequest request_for(const Options& options, const Model& model, int64_t B, const Backend& backend) {
    return plan_request(model, {B, options.seq_len}, dtype_of_option(options, backend), options.logits_chunk, backend);
}

[[noreturn]] void fail_too_large(const BatchShape& shape, DType dtype, int64_t limit, int64_t state_bytes,
                                 const SearchResult& nothing) {
    const int64_t smallest = state_bytes + nothing.smallest_bytes;
    fail(
        "--recompute=auto: {} is not enough for --batch-size={} and --seq-len={}; the smallest plan needs {} ({} of it "
        "for parameters and optimiser), bound by {}; raise --memory-budget to {}, or lower --{}{}",
        format_bytes(limit), shape.B, shape.T, format_bytes(smallest), format_bytes(state_bytes), nothing.binding_step,
        smallest, shape.B > 1 ? "batch-size" : "seq-len", dtype == DType::F32 ? ", or try --dtype=bf16" : "");
}

ChosenPlan search(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                  const Backend& backend) {
    const int64_t limit = memory_limit(options, backend.info());
    const int64_t norm_workspace = backend.global_norm_workspace(model.parameter_elements);
    const StateBytes state = state_bytes(model, request.dtype, request.shape.T, norm_workspace, true);
    SearchResult found = search_plan(model, request, times, limit - state.total());
    if (!found.found) fail_too_large(request.shape, request.dtype, limit, state.total(), found);
    ChosenPlan chosen;
    chosen.memory = with_memory(model, std::move(found.plan), backend);
    chosen.words = fmt::format("the fastest within {}: {}", format_bytes(limit), found.summary);
    return chosen;
}

ChosenPlan plan_of(const Options& options, const std::string& policy, const Model& model, const PlanRequest& request,
                   const OpTimes& times, const Backend& backend) {
    ChosenPlan chosen;
    if (policy == "auto") {
        chosen = search(options, model, request, times, backend);
    } else {
        const PolicyRow& row = find_policy(policy);
        chosen.memory = with_memory(model, make_training_plan(model, request, row), backend);
        chosen.words = row.description;
    }
    chosen.times = times;
    chosen.step_seconds =
        plan_seconds(times, chosen.memory.plan) * static_cast<double>(micro_batches(options, request.shape)) +
        times.optimizer;
    return chosen;
}

OpTimes estimated_times(const Options& options, const Model& model, const PlanRequest& request,
                        const Backend& backend) {
    const bool elsewhere = !options.device_profile.empty();
    return analytic_times(model, request.shape, request.dtype,
                          elsewhere ? find_device_profile(options.device_profile) : profile_of(backend.info()));
}

/// Micro-batches in sequences that divide the total batch and fit, by the smallest plan there is for them.
std::vector<PlanRequest> feasible_requests(const Options& options, const std::string& policy, const Model& model,
                                           const Backend& backend) {
    const int64_t limit = memory_limit(options, backend.info());
    const int64_t sequences = options.total_batch_size / options.seq_len;
    std::vector<PlanRequest> feasible;
    for (int64_t B = 1; B <= sequences; ++B) {
        if (sequences % B != 0) continue;
        const PlanRequest request = request_for(options, model, B, backend);
        const int64_t norm_workspace = backend.global_norm_workspace(model.parameter_elements);
        const int64_t state = state_bytes(model, request.dtype, request.shape.T, norm_workspace, true).total();
        const bool fits =
            policy == "auto"
                ? search_plan(model, request, estimated_times(options, model, request, backend), limit - state).found
                : state + make_layout(make_training_plan(model, request, find_policy(policy))).arena_bytes <= limit;
        if (!fits) break;  // A larger one needs more.
        feasible.push_back(request);
    }
    return feasible;
}

ChosenPlan choose_batch(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    std::vector<PlanRequest> requests = feasible_requests(options, policy, model, backend);
    // If nothing fits, the plan of one sequence says what is missing, or the caller does.
    if (requests.empty()) requests.push_back(request_for(options, model, 1, backend));
    std::vector<OpTimes> times;
    for (const PlanRequest& request : requests) times.push_back(operation_times(options, model, request, backend));
    const bool all_measured = std::all_of(times.begin(), times.end(), [](const OpTimes& t) { return t.measured; });
    std::optional<ChosenPlan> best;
    for (size_t i = 0; i < requests.size(); ++i) {
        if (!all_measured) times[i] = estimated_times(options, model, requests[i], backend);
        ChosenPlan chosen = plan_of(options, policy, model, requests[i], times[i], backend);
        if (!best || chosen.step_seconds < best->step_seconds) best = std::move(chosen);
    }
    return *best;
}

}  // namespace

DType dtype_of_option(const Options& options, const Backend& backend) {
    if (options.dtype == "auto") return backend.info().default_dtype;
    return options.dtype == "bf16" ? DType::BF16 : DType::F32;
}

int64_t memory_limit(const Options& options, const DeviceInfo& device) {
    if (options.memory_budget.empty()) return device.memory_available;
    const int64_t budget = parse_budget("--memory-budget", options.memory_budget, device.memory_total);
    if (options.command == Command::Train && !options.dry_run && budget > device.memory_total) {
        fail_usage("--memory-budget={}: this device has {} in all; lower it, or leave it out to use what is free",
                   options.memory_budget, format_bytes(device.memory_total));
    }
    return budget;
}

OpTimes operation_times(const Options& options, const Model& model, const PlanRequest& request, Backend& backend) {
    if (!options.device_profile.empty()) return estimated_times(options, model, request, backend);
    const std::string path =
        calibration_path(model, request.shape, request.dtype, request.logits_chunk_tokens, backend);
    OpTimes times;
    if (!options.calibrate && load_times(path, model, &times)) return times;
    if (!options.calibrate) return estimated_times(options, model, request, backend);
    times = measure_times(model, request.shape, request.dtype, request.logits_chunk_tokens, backend);
    save_times(path, times);
    spdlog::info("calibrated: operation times of this model at {} x {} tokens are kept in '{}'", request.shape.B,
                 request.shape.T, path);
    return times;
}

ChosenPlan choose_plan(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    if (options.batch_size == 0) return choose_batch(options, policy, model, backend);
    const PlanRequest request = request_for(options, model, options.batch_size, backend);
    return plan_of(options, policy, model, request, operation_times(options, model, request, backend), backend);
}

}  // namespace llmc
