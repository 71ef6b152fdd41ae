#include "llmc/train/choose_plan.h"

#include "llmc/plan/formats.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/logits_chunk.h"
#include "llmc/plan/probed_times.h"
#include "llmc/plan/search.h"
#include "llmc/run/fusion.h"
#include "llmc/run/probe.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <vector>

namespace llmc {
namespace {

/// Where nothing better is known: FLOP/s of a core with AVX2 and of its bf16 dot products, and bytes per second of two
/// channels of DDR5. Searches go by these rates rather than by a probe, so that they find the same plan every time.
constexpr double kUsualFlops = 100e9, kUsualBandwidth = 50e9;

/// Of a GPU by its name, what nothing measures: its links, and what our kernels reach on it. Of one that is in no
/// table: over PCI Express, and as on the others.
void assume_known(DeviceProfile* profile) {
    const auto take_rates = [&](const DeviceProfile& known) {
        profile->efficiency = known.efficiency;
        profile->attention_forward = known.attention_forward;
        profile->attention_backward = known.attention_backward;
        profile->attention_overhead = known.attention_overhead;
        profile->bandwidth_efficiency = known.bandwidth_efficiency;
        profile->launch_seconds = known.launch_seconds;
    };
    take_rates(find_device_profile("h100"));
    profile->link_bandwidth = 25e9;
    profile->node_bandwidth = 12.5e9;
    std::string name = profile->name;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const DeviceProfile& known : device_profiles()) {
        if (name.find(known.name) == std::string::npos) continue;
        take_rates(known);
        profile->usual_error = known.usual_error;
        profile->link_bandwidth = known.link_bandwidth;
        profile->node_bandwidth = known.node_bandwidth;
    }
}

DeviceProfile profile_of(const Backend& backend) {
    const DeviceInfo device = backend.info();
    DeviceProfile profile;
    profile.name = device.name;
    profile.flops_fp32 = kUsualFlops * device.workers;
    profile.flops_bf16 = device.supports_bf16 ? 2 * profile.flops_fp32 : profile.flops_fp32;
    if (backend.on_gpu() && device.peak_flops_fp32 > 0) {
        profile.flops_fp32 = device.peak_flops_fp32;
        profile.flops_bf16 = device.peak_flops_bf16 > 0 ? device.peak_flops_bf16 : device.peak_flops_fp32;
    }
    profile.bandwidth = device.bandwidth > 0 ? device.bandwidth : kUsualBandwidth;
    profile.launch_seconds = 5e-6;
    profile.efficiency = 0.8;
    profile.kind = device.kind;
    profile.attention_backward_products = device.attention_backward_products;
    if (backend.on_gpu()) assume_known(&profile);
    return profile;
}

int64_t state_bytes_of(const Model& model, const PlanRequest& request) {
    return state_bytes(model, request.places, request.shape.T, request.parallel, /*training=*/true).total();
}

/// What the device, and the host where it is one with it, leave to the arena.
int64_t arena_room(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend) {
    const DeviceInfo device = backend.info();
    const int64_t state = state_bytes_of(model, request);
    const int64_t room = memory_limit(options, device) - state;
    if (backend.on_gpu() || !options.device_profile.empty()) return room;
    const int64_t away =
        state_bytes(model, request.places, request.shape.T, request.parallel, /*training=*/true, Memory::Host).total();
    return away == 0 ? room : std::min(room, device.available(options.memory_sharing) - state - away);
}

void predict(const OpTimes& times, ChosenPlan* chosen) {
    chosen->times = times;
    chosen->step_seconds = update_seconds(times, chosen->memory.plan);
}

bool fits(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend) {
    const PlanRequest request = request_for(options, model, shape, backend);
    const int64_t room = arena_room(options, model, request, backend);
    return search_plan(model, request, nominal_times(options, model, request, backend), room).found;
}

/// What would do instead: only what was tried.
std::string remedies(const Options& options, const Model& model, const BatchShape& shape, int64_t smallest,
                     const Backend& backend) {
    std::vector<std::string> ways;
    Options other = options;
    other.memory_budget.clear();
    const bool is_limited = !options.memory_budget.empty();
    const DeviceInfo device = backend.info();
    if (is_limited && smallest <= memory_limit(other, device)) {
        ways.push_back(fmt::format("raise --memory-budget to {}", smallest));
    } else if (smallest > device.process_available && smallest <= device.memory_available / options.memory_sharing) {
        ways.push_back(fmt::format("raise the limit of {}", device.process_limit));
    }
    BatchShape less = shape;
    do less.B /= 2;
    while (less.B > 0 && !fits(options, model, less, backend));
    if (less.B > 0) ways.push_back(fmt::format("lower --batch-size to {}", less.B));
    less = {shape.B, shape.T / 2};
    constexpr int64_t kShortest = 16;
    const auto fits_shorter = [&] {
        Options shorter = options;
        shorter.seq_len = less.T;
        return fits(shorter, model, less, backend);
    };
    while (less.T >= kShortest && !fits_shorter()) less.T /= 2;
    const bool may_be_shorter = options.resume.empty() && less.T >= kShortest;  // A run keeps its sequences.
    if (may_be_shorter) ways.push_back(fmt::format("lower --seq-len to {}", less.T));
    other = options;
    other.dtype = "bf16";
    const bool has_bf16 = backend.info().supports_bf16 || !options.device_profile.empty();
    if (dtype_of_option(options, backend) == DType::F32 && has_bf16 && fits(other, model, shape, backend)) {
        ways.emplace_back("take --dtype=bf16");
    }
    const std::string placement = placement_remedy(options, model, shape, backend);
    if (!placement.empty()) ways.push_back(placement);
    if (ways.empty()) return "take a smaller model, or a device with more memory";
    return fmt::format("{}", fmt::join(ways, ", or "));
}

/// What the plan runs as one, in words, or why it is nothing.
std::string describe_fusion(const Options& options, const Model& model, const Plan& plan, const Backend& backend) {
    const std::vector<std::string> names = fused_names(model, plan);
    if (!names.empty()) return fmt::format("{}", fmt::join(names, ", "));
    const bool would = options.device_profile.empty() && !fused_runs(model, plan.shape, plan.dtype, backend).empty();
    if (options.no_fuse && would) return "nothing (--no-fuse)";
    return options.no_fuse ? "nothing; --no-fuse changes nothing: no operations of this model would be" : "nothing";
}

ChosenPlan search(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                  const Backend& backend) {
    const int64_t limit = memory_limit(options, backend.info());
    const int64_t state = state_bytes_of(model, request);
    SearchResult found = search_plan(model, request, times, arena_room(options, model, request, backend));
    if (!found.found) {
        const int64_t smallest = state + found.smallest_bytes;
        const std::string bound = memory_bound(options, backend.info());
        fail(
            "--recompute=auto: the smallest plan for --batch-size={} and --seq-len={} needs {} ({:.0f} % of it for "
            "parameters and optimiser, the rest bound by {}); {}{} is not enough for it; {}",
            request.shape.B, request.shape.T, format_bytes(smallest),
            100 * static_cast<double>(state) / static_cast<double>(smallest), found.binding_step, format_bytes(limit),
            bound.empty() ? "" : ", by " + bound + ",", remedies(options, model, request.shape, smallest, backend));
    }
    ChosenPlan chosen;
    chosen.memory = with_memory(model, std::move(found.plan));
    chosen.keep = std::move(found.keep);
    chosen.words = fmt::format("the fastest within {}: {}", format_bytes(limit), found.summary);
    return chosen;
}

/// The same plan with another delay of the update.
PlannedMemory with_update_ahead(const Model& model, PlanRequest request, const ChosenPlan& chosen, int update_ahead) {
    request.update_ahead = update_ahead;
    return with_memory(model, make_training_plan(model, request, chosen.keep, chosen.memory.plan.policy));
}

/// Slices of a delayed update that come while one is updated. More of them hide behind longer operations, and need more
/// memory in the forward.
constexpr int kUpdateAhead[] = {1, 2, 4, 8};
constexpr double kWorthMemory = 1e-3;  ///< Less of a step's time is not.

/// Predicts the step's time. Of delays that fit takes the fastest, where an update may be delayed: with --update=auto
/// where something of it comes from host memory, and it is faster; --check-ranks would flush it every time.
void delay_update(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                  const Backend& backend, ChosenPlan* chosen) {
    predict(times, chosen);
    const bool from_host = request.places.updates_from_host();
    if (options.update == "now" || (options.update == "auto" && (options.check_ranks || !from_host))) return;
    const OpTimes by = times_to_choose_by(options, model, request, times, backend);
    PlannedMemory now = with_update_ahead(model, request, *chosen, 0);
    double fastest = update_seconds(by, chosen->memory.plan);
    for (const int update_ahead : kUpdateAhead) {
        if (!from_host) break;  // There are no slices.
        PlannedMemory other = with_update_ahead(model, request, *chosen, update_ahead);
        const bool is_larger = other.total_bytes() > chosen->memory.total_bytes();
        if (is_larger && !fits_both(options, backend, other.total_bytes(), other.host_bytes())) break;
        const double seconds = update_seconds(by, other.plan);
        if (seconds >= fastest * (1 - kWorthMemory)) continue;
        fastest = seconds;
        chosen->memory = std::move(other);
    }
    predict(times, chosen);
    if (chosen->delays_update()) chosen->now_seconds = update_seconds(times, now.plan);
}

ChosenPlan plan_of(const Options& options, const std::string& policy, const Model& model, const PlanRequest& request,
                   const OpTimes& times, const Backend& backend) {
    ChosenPlan chosen;
    if (policy == "auto") {
        chosen = search(options, model, request, times_to_choose_by(options, model, request, times, backend), backend);
    } else {
        const PolicyRow& row = find_policy(policy);
        chosen.keep = row.function(model);
        chosen.memory = with_memory(model, make_training_plan(model, request, row));
        chosen.words = row.description;
    }
    delay_update(options, model, request, times, backend, &chosen);
    chosen.fusion = describe_fusion(options, model, chosen.memory.plan, backend);
    return chosen;
}

/// Micro-batches in sequences that divide the total batch and fit, by the smallest plan there is for them.
std::vector<PlanRequest> feasible_requests(const Options& options, const std::string& policy, const Model& model,
                                           const Backend& backend) {
    const int64_t sequences = options.total_batch_size / options.seq_len;
    std::vector<PlanRequest> feasible;
    for (int64_t B = 1; B <= sequences; ++B) {
        if (sequences % (B * options.ranks) != 0) continue;
        const PlanRequest request = request_for(options, model, {B, options.seq_len}, backend);
        const int64_t room = arena_room(options, model, request, backend);
        const bool fits =
            policy == "auto" ? search_plan(model, request, nominal_times(options, model, request, backend), room).found
                             : make_layout(make_training_plan(model, request, find_policy(policy))).arena_bytes <= room;
        if (!fits) break;  // A larger one needs more.
        feasible.push_back(request);
    }
    return feasible;
}

ChosenPlan choose_batch(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    std::vector<PlanRequest> requests = feasible_requests(options, policy, model, backend);
    // If nothing fits, the plan of one sequence says what is missing, or the caller does.
    if (requests.empty()) requests.push_back(request_for(options, model, {1, options.seq_len}, backend));
    std::vector<OpTimes> times;
    for (const PlanRequest& request : requests) times.push_back(operation_times(options, model, request, backend));
    const bool all_measured = std::all_of(times.begin(), times.end(), [](const OpTimes& t) { return t.measured; });
    std::optional<ChosenPlan> best;
    size_t fastest = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
        const OpTimes by = all_measured ? times[i] : nominal_times(options, model, requests[i], backend);
        ChosenPlan chosen = plan_of(options, policy, model, requests[i], by, backend);
        if (best && chosen.step_seconds >= best->step_seconds) continue;
        best = std::move(chosen);
        fastest = i;
    }
    predict(times[fastest], &*best);
    if (best->delays_update()) {
        const PlannedMemory now = with_update_ahead(model, requests[fastest], *best, 0);
        best->now_seconds = update_seconds(times[fastest], now.plan);
    }
    return *best;
}

}  // namespace

bool fuses(const Options& options) { return !options.no_fuse && options.device_profile.empty(); }

OpTimes nominal_times(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend) {
    constexpr int64_t kRanksOfHost = 8;  // More ranks are assumed to be on several hosts.
    const bool elsewhere = !options.device_profile.empty();
    const DeviceProfile profile = elsewhere ? find_device_profile(options.device_profile) : profile_of(backend);
    OpTimes times = analytic_times(model, request.shape, request.places, profile, request.logits_chunk_tokens);
    if (options.ranks > kRanksOfHost) times.link_bandwidth = profile.node_bandwidth;
    return times;
}

DType dtype_of_option(const Options& options, const Backend& backend) {
    if (options.dtype == "auto") return backend.info().default_dtype;
    return options.dtype == "bf16" ? DType::BF16 : DType::F32;
}

Parallel parallel_of(const Options& options, int64_t B, bool on_gpu) {
    Parallel parallel;
    parallel.ranks = static_cast<int>(options.ranks);
    parallel.rank_invariant = options.rank_invariant;
    parallel.exchanges = !on_gpu || options.rank_invariant;
    const int64_t tokens_at_once = B * options.seq_len * options.ranks;
    parallel.micro_batches = std::max<int64_t>(1, options.total_batch_size / tokens_at_once);
    return parallel;
}

Parallel parallel_of(const Options& options, int64_t B, const Backend& backend) {
    return parallel_of(options, B, backend.on_gpu() || !options.device_profile.empty());
}

PlanRequest request_for(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend) {
    int64_t chunk = options.logits_chunk;
    if (chunk == 0 && !options.device_profile.empty()) {  // That of the device planned for.
        chunk = default_logits_chunk(model, shape, find_device_profile(options.device_profile).kind);
    }
    const BatchShape of_data = {shape.B, shape.T, options.packed, options.partly_scored};
    PlanRequest request = plan_request(model, of_data, places_of(options, backend), chunk, backend,
                                       parallel_of(options, shape.B, backend), fuses(options));
    request.update_ahead = options.update == "delayed" ? kUpdateAhead[0] : 0;
    return request;
}

OptimizerKind optimizer_of(const Options& options) {
    const auto row = std::find_if(kOptimizers.begin(), kOptimizers.end(),
                                  [&](const OptimizerRow& candidate) { return candidate.name == options.optimizer; });
    CHECK(row != kOptimizers.end(), options.optimizer);
    return row->kind;
}

Places places_of(const Options& options, DType dtype) {
    if (options.masters == "none" && dtype == DType::F32) {
        fail_usage(
            "--masters=none: fp32 parameters are the weights, and have no masters to do without; add --dtype=bf16, or "
            "take --masters=fp32");
    }
    const StateFormats formats = {format_named(options.moments, "--moments"), options.masters != "none",
                                  format_named(options.gradients, "--gradients")};
    Places places =
        places_of_zero(static_cast<int>(options.zero), static_cast<int>(options.ranks), dtype, optimizer_of(options));
    places = with_formats(places, formats);
    return with_offload(options.lora > 0 ? for_adapters(places) : places, options.offload);
}

Places places_of(const Options& options, const Backend& backend) {
    return places_of(options, dtype_of_option(options, backend));
}

int64_t memory_limit(const Options& options, const DeviceInfo& device) {
    if (options.memory_budget.empty()) return options.memory_share > 0 ? options.memory_share : device.available();
    const int64_t whole = device.total(options.memory_sharing);
    const int64_t budget = parse_budget("--memory-budget", options.memory_budget, whole);
    if (options.command == Command::Train && !options.dry_run && budget > whole) {
        const bool is_own = device.process_available < device.memory_total / options.memory_sharing;
        fail_usage("--memory-budget={}: {} has {} in all{}; lower it, or leave it out to use what is free",
                   options.memory_budget, options.memory_sharing > 1 ? "this rank's share of the host" : "this device",
                   format_bytes(whole), is_own ? ", by the limit of " + device.process_limit : "");
    }
    return budget;
}

std::string memory_bound(const Options& options, const DeviceInfo& device) {
    if (!options.memory_budget.empty()) return "--memory-budget";
    return options.memory_share_limit.empty() ? device.limit(options.memory_sharing) : options.memory_share_limit;
}

OpTimes operation_times(const Options& options, const Model& model, const PlanRequest& request, Backend& backend) {
    if (!options.device_profile.empty()) return nominal_times(options, model, request, backend);
    const std::string path =
        calibration_path(model, request.shape, request.places, request.logits_chunk_tokens, backend, fuses(options));
    OpTimes times;
    if (!options.calibrate && load_times(path, model, &times)) return times;
    if (!options.calibrate) {
        const ProbedRates* const rates = backend.on_gpu() ? nullptr : probe_once(model, request.places, backend);
        if (rates == nullptr) return nominal_times(options, model, request, backend);
        return probed_times(model, request.shape, request.places, *rates, request.logits_chunk_tokens);
    }
    times = measure_times(model, request.shape, request.places, request.logits_chunk_tokens, backend, fuses(options));
    if (!save_times(path, times)) return times;
    spdlog::info("calibrated: operation times of this model at {} x {} tokens are kept in '{}'", request.shape.B,
                 request.shape.T, path);
    return times;
}

OpTimes times_to_choose_by(const Options& options, const Model& model, const PlanRequest& request,
                           const OpTimes& predicted, const Backend& backend) {
    return predicted.measured ? predicted : nominal_times(options, model, request, backend);
}

ChosenPlan choose_plan(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    if (options.batch_size == 0) return choose_batch(options, policy, model, backend);
    const PlanRequest request = request_for(options, model, {options.batch_size, options.seq_len}, backend);
    return plan_of(options, policy, model, request, operation_times(options, model, request, backend), backend);
}

ChosenPlan plan_of_keep_set(const Options& options, const std::string& name, const KeepSet& keep, const Model& model,
                            const OpTimes& times, int update_ahead, const Backend& backend) {
    PlanRequest request = request_for(options, model, {options.batch_size, options.seq_len}, backend);
    request.update_ahead = update_ahead;
    ChosenPlan chosen;
    chosen.keep = keep;
    chosen.memory = with_memory(model, make_training_plan(model, request, keep, name));
    predict(times, &chosen);
    chosen.fusion = describe_fusion(options, model, chosen.memory.plan, backend);
    return chosen;
}

}  // namespace llmc
