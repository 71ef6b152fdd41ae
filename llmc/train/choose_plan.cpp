#include "llmc/train/choose_plan.h"

#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/plan/search.h"

#include <algorithm>

namespace llmc {
namespace {

/// Bytes per second where nothing better is known: two channels of DDR5.
constexpr double kUsualBandwidth = 50e9;

DeviceProfile profile_of(const DeviceInfo& device) {
    const double fp32 = device.peak_flops_fp32 > 0 ? device.peak_flops_fp32 : 100e9;
    return {device.name, fp32, device.peak_flops_bf16 > 0 ? device.peak_flops_bf16 : fp32, kUsualBandwidth, 5e-6, 0.8};
}

int64_t micro_batches(const Options& options) {
    return std::max<int64_t>(1, options.total_batch_size / (options.batch_size * options.seq_len));
}

ChosenPlan search(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                  const Backend& backend) {
    const int64_t limit = memory_limit(options, backend.info());
    const int64_t norm_workspace = backend.global_norm_workspace(model.parameter_elements);
    const StateBytes state = state_bytes(model, request.dtype, request.shape.T, norm_workspace, true);
    SearchResult found = search_plan(model, request, times, limit - state.total());
    if (!found.found) {
        fail(
            "--recompute=auto: {} is not enough for --batch-size={} and --seq-len={}; the smallest plan needs {} ({} "
            "of "
            "it for parameters and optimiser), bound by {}; raise --memory-budget to {}, or lower --batch-size{}",
            format_bytes(limit), options.batch_size, options.seq_len,
            format_bytes(state.total() + found.smallest_bytes), format_bytes(state.total()), found.binding_step,
            state.total() + found.smallest_bytes, request.dtype == DType::F32 ? ", or try --dtype=bf16" : "");
    }
    ChosenPlan chosen;
    chosen.memory = with_memory(model, std::move(found.plan), backend);
    chosen.words = fmt::format("the fastest within {}: {}", format_bytes(limit), found.summary);
    return chosen;
}

}  // namespace

int64_t memory_limit(const Options& options, const DeviceInfo& device) {
    if (options.memory_budget.empty()) return device.memory_available;
    return parse_budget("--memory-budget", options.memory_budget, device.memory_total);
}

OpTimes operation_times(const Options& options, const Model& model, const PlanRequest& request, Backend& backend) {
    if (!options.device_profile.empty()) {
        return analytic_times(model, request.shape, request.dtype, find_device_profile(options.device_profile));
    }
    const std::string path =
        calibration_path(model, request.shape, request.dtype, request.logits_chunk_tokens, backend);
    OpTimes times;
    if (!options.calibrate && load_times(path, model, &times)) return times;
    if (!options.calibrate) return analytic_times(model, request.shape, request.dtype, profile_of(backend.info()));
    times = measure_times(model, request.shape, request.dtype, request.logits_chunk_tokens, backend);
    save_times(path, times);
    spdlog::info("calibrated: operation times of this model and shape are kept in '{}'", path);
    return times;
}

ChosenPlan choose_plan(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    const BatchShape shape = {options.batch_size, options.seq_len};
    const PlanRequest request =
        plan_request(model, shape, options.dtype == "bf16" ? DType::BF16 : DType::F32, options.logits_chunk, backend);
    const OpTimes times = operation_times(options, model, request, backend);
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
        plan_seconds(times, chosen.memory.plan) * static_cast<double>(micro_batches(options)) + times.optimizer;
    return chosen;
}

}  // namespace llmc
