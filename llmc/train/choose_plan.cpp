#include "llmc/train/choose_plan.h"

#include "llmc/plan/formats.h"

#include "llmc/base/check.h"
#include "llmc/base/error.h"
#include "llmc/base/file.h"
#include "llmc/base/log.h"
#include "llmc/base/units.h"
#include "llmc/plan/fuse.h"
#include "llmc/plan/logits_chunk.h"
#include "llmc/plan/measured_profile.h"
#include "llmc/plan/probed_times.h"
#include "llmc/plan/relaxation.h"
#include "llmc/plan/search.h"
#include "llmc/plan/tiles.h"
#include "llmc/plan/token_blocks.h"
#include "llmc/run/fusion.h"
#include "llmc/run/probe.h"
#include "llmc/train/choose_update.h"
#include "llmc/train/offload.h"
#include "llmc/train/placement.h"
#include "llmc/train/profile_file.h"
#include "llmc/train/remedy.h"
#include "llmc/train/tile_options.h"

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
    const DeviceProfile* known = profile_of_device(profile->name);
    if (known == nullptr) return;
    take_rates(*known);
    profile->usual_error = known->usual_error;
    profile->host_bandwidth = known->host_bandwidth;
    profile->link_bandwidth = known->link_bandwidth;
    profile->node_bandwidth = known->node_bandwidth;
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
    profile.hopper_attention = device.arithmetic.kernels == kHopperKernels;
    profile.memory_bytes = device.memory_total;
    profile.reserve_bytes = std::min(device.memory_held, device.memory_total / 2);
    if (backend.on_gpu()) assume_known(&profile);
    return profile;
}

/// Of --device-profile, or of this device; with --link-gbs.
DeviceProfile planned_profile(const Options& options, const Backend& backend) {
    const bool is_elsewhere = !options.device_profile.empty();
    DeviceProfile profile =
        is_elsewhere ? device_profile_of(options) : with_link(profile_of(backend), options.link_gbs);
    profile.hopper_attention = profile.hopper_attention && options.kernels != kPortableKernels;
    profile.tf32 = options.tf32 && profile.kind != "cpu";
    return profile;
}

int64_t state_bytes_of(const Model& model, const PlanRequest& request) {
    return state_bytes(model, request.places, request.shape.T, request.parallel, /*training=*/true).total();
}

/// A profile of this device beside the times that it comes from.
void keep_profile(const DeviceProfile& profile) {
    std::string name;
    for (const char c : profile.name) name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
    const std::string path = fmt::format("{}/profile-{}.toml", cache_folder(), name);
    try {
        write_shared_text(path, to_toml(profile));
    } catch (const Error& error) {
        spdlog::warn("--calibrate: no profile of this device is kept to plan for it elsewhere: {}", error.what());
        return;
    }
    spdlog::info("calibrated: a profile of this device is in '{}'; plan --device-profile=FILE plans for it elsewhere",
                 path);
}

/// Whether the backend can say what the device runs as one: it is the device, or one of its kind.
bool can_fuse(const Options& options, const Backend& backend) {
    return options.device_profile.empty() || (backend.on_gpu() && device_profile_of(options).kind != "cpu");
}

/// What the plan runs as one, in words, or why it is nothing.
std::string describe_fusion(const Options& options, const Model& model, const Plan& plan, const Backend& backend) {
    const std::vector<std::string> names = fused_names(model, plan);
    if (!names.empty()) return fmt::format("{}", fmt::join(names, ", "));
    const bool would =
        can_fuse(options, backend) && !fused_runs(model, plan.shape, plan.block_tokens, plan.dtype, backend).empty();
    if (options.no_fuse && would) return "nothing (--no-fuse)";
    return options.no_fuse ? "nothing; --no-fuse changes nothing: no operations of this model would be" : "nothing";
}

ChosenPlan search(const Options& options, const Model& model, const PlanRequest& request, const OpTimes& times,
                  const Backend& backend) {
    const int64_t limit = memory_limit(options, backend.info());
    const int64_t state = state_bytes_of(model, request);
    const SearchBudget budget(arena_room(options, model, request, backend),
                              room_for_inputs(options, model, request, backend));
    SearchResult found = search_plan(model, request, times, budget);
    if (!found.found) {
        require_host_memory(options, model, with_memory(model, std::move(found.plan)), backend);
        const int64_t smallest = state + found.smallest_bytes;
        const std::string bound = memory_bound(options, backend.info());
        const std::string floor = floor_words(options, model, request.shape, backend);
        fail(
            "--recompute=auto: the smallest plan for --batch-size={} and --seq-len={} needs {} ({}); {}{} is not "
            "enough "
            "for it; {}",
            request.shape.B, request.shape.T, format_bytes(smallest),
            !floor.empty()
                ? floor
                : fmt::format("{:.0f} % of it for parameters and optimiser, the rest bound by {}",
                              100 * static_cast<double>(state) / static_cast<double>(smallest), found.binding_step),
            format_bytes(limit), bound.empty() ? "" : ", by " + bound + ",",
            advice(options, model, request.shape, backend));
    }
    ChosenPlan chosen;
    chosen.above_bound = found.seconds / relaxed_seconds(model, request, times, budget) - 1;
    chosen.memory = with_memory(model, std::move(found.plan));
    chosen.keep = std::move(found.keep);
    const bool may_gain = budget.host_bytes == 0 && !is_one_memory(options, backend) &&
                          !request.places.on_host(Buffer::Boundaries) &&
                          chosen.memory.simulation.extra_flops_ratio() > 0;
    chosen.words = fmt::format("the fastest within {}{}: {}", format_bytes(limit),
                               may_gain ? " without host memory (--offload=auto, or --host-memory-budget, lets it send "
                                          "layers' inputs there)"
                                        : "",
                               found.summary);
    return chosen;
}

/// Whether some plan of the policy stays within the arena's room.
bool fits_arena(const Options& options, const std::string& policy, const Model& model, const PlanRequest& request,
                const Backend& backend) {
    const int64_t room = arena_room(options, model, request, backend);
    if (policy == "auto") {
        return search_fits(model, request, nominal_times(options, model, request, backend),
                           {room, room_for_inputs(options, model, request, backend)});
    }
    return arena_within(make_training_plan(model, request, find_policy(policy)), room).fits;
}

ChosenPlan plan_of_request(const Options& options, const std::string& policy, const Model& model,
                           const PlanRequest& request, const OpTimes& times, const Backend& backend) {
    ChosenPlan chosen;
    if (policy == "auto") {
        chosen = search(options, model, request, times_to_choose_by(options, model, request, times, backend), backend);
    } else {
        const PolicyRow& row = find_policy(policy);
        chosen.keep = row.function(model);
        chosen.memory = with_memory(model, make_training_plan(model, request, row));
        chosen.words = policy_words(row, model);
    }
    choose_update(options, model, request, times, backend, &chosen);
    chosen.fusion = describe_fusion(options, model, chosen.memory.plan, backend);
    return chosen;
}

/// With --tile-tokens=auto the largest tiles that fit, or of a search the fastest plan; if nothing fits, that of the
/// smallest tiles.
ChosenPlan plan_of(const Options& options, const std::string& policy, const Model& model, const PlanRequest& request,
                   const OpTimes& times, const Backend& backend) {
    const std::vector<PlanRequest> requests = tiled_requests(options, request);
    std::optional<ChosenPlan> best;
    for (const PlanRequest& tiled : requests) {
        const bool is_last = !best && tiled.tile_tokens == requests.back().tile_tokens;
        if (!is_last && !fits_arena(options, policy, model, tiled, backend)) continue;
        ChosenPlan chosen = plan_of_request(options, policy, model, tiled, times, backend);
        if (policy != "auto") return chosen;
        constexpr double kSlower = 0.999;  // Larger tiles where they are as fast.
        const bool is_faster = !best || chosen.step_seconds < kSlower * best->step_seconds;
        if (is_faster) best = std::move(chosen);
        if (best->memory.simulation.extra_flops_ratio() == 0 && best->memory.plan.host_bytes == 0) break;
    }
    return std::move(*best);
}

/// Micro-batches in sequences that divide the total batch and fit, by the smallest plan there is for them.
std::vector<PlanRequest> feasible_requests(const Options& options, const std::string& policy, const Model& model,
                                           const Backend& backend) {
    const int64_t sequences = options.total_batch_size / options.seq_len;
    std::vector<PlanRequest> feasible;
    for (int64_t B = 1; B <= sequences; ++B) {
        if (sequences % (B * options.ranks) != 0) continue;
        const PlanRequest request = request_for(options, model, {B, options.seq_len}, backend);
        const std::vector<PlanRequest> tiled = tiled_requests(options, request);
        const bool fits = std::any_of(tiled.begin(), tiled.end(), [&](const PlanRequest& each) {
            return fits_arena(options, policy, model, each, backend);
        });
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
    // What was nominal so far is now what is predicted.
    best->now_seconds *= update_seconds(times[fastest], best->memory.plan) / best->step_seconds;
    best->times = times[fastest];
    best->step_seconds = update_seconds(times[fastest], best->memory.plan);
    return *best;
}

}  // namespace

int64_t arena_room(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend) {
    const DeviceInfo device = backend.info();
    const int64_t state = state_bytes_of(model, request);
    const int64_t room = memory_limit(options, device) - state;
    if (backend.on_gpu() || !options.device_profile.empty()) return room;
    const int64_t away =
        state_bytes(model, request.places, request.shape.T, request.parallel, /*training=*/true, Memory::Host).total();
    return away == 0 ? room : std::min(room, device.available(options.memory_sharing) - state - away);
}

int64_t room_for_inputs(const Options& options, const Model& model, const PlanRequest& request,
                        const Backend& backend) {
    if (options.host_memory_budget.empty() || is_one_memory(options, backend)) return 0;
    const int64_t away =
        state_bytes(model, request.places, request.shape.T, request.parallel, /*training=*/true, Memory::Host).total();
    return std::max<int64_t>(0, host_memory_limit(options) - away);
}

bool fuses(const Options& options, const Backend& backend) { return !options.no_fuse && can_fuse(options, backend); }

OpTimes nominal_times(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend) {
    constexpr int64_t kRanksOfHost = 8;  // More ranks are assumed to be on several hosts.
    const DeviceProfile profile = planned_profile(options, backend);
    OpTimes times = analytic_times(model, request.shape, request.places, profile,
                                   {request.logits_chunk_tokens, request.block_tokens});
    if (options.ranks > kRanksOfHost) times.link_bandwidth = profile.node_bandwidth;
    return times;
}

DType dtype_of_option(const Options& options, const Backend& backend) {
    if (options.dtype == "auto" && !options.device_profile.empty()) {
        return device_profile_of(options).kind == "cpu" ? DType::F32 : DType::BF16;
    }
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
    TokensAtOnce at_once(options.logits_chunk, round_up(options.block_tokens, kBlockMultiple));
    if (!options.device_profile.empty()) {  // Those of the device planned for.
        const std::string kind = device_profile_of(options).kind;
        if (at_once.logits_chunk == 0) at_once.logits_chunk = default_logits_chunk(model, shape, kind);
        if (at_once.block == 0) at_once.block = default_block_tokens(model, shape, kind);
    }
    const BatchShape of_data = {shape.B, shape.T, options.packed, options.partly_scored};
    PlanRequest request = plan_request(model, of_data, places_of(options, backend), at_once, backend,
                                       parallel_of(options, shape.B, backend), fuses(options, backend));
    request.update_ahead = options.update == "delayed" ? 1 : 0;
    request.tile_tokens = tile_tokens_of(given_tile_tokens(options), request.block_tokens, shape.N());
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
    if (options.lora > 0) places = for_adapters(places);
    if (const auto base = find_weight_format(options.base_format)) places.set_base(*base);
    return with_offload(places, options.offload);
}

Places places_of(const Options& options, const Backend& backend) {
    return places_of(options, dtype_of_option(options, backend));
}

int64_t memory_limit(const Options& options, const DeviceInfo& device) {
    if (!options.device_profile.empty()) {
        const DeviceProfile profile = device_profile_of(options);
        if (options.memory_budget.empty()) return profile.usable_bytes();
        return parse_budget("--memory-budget", options.memory_budget, profile.usable_bytes());
    }
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
    if (!options.device_profile.empty()) return describe_memory(device_profile_of(options));
    return options.memory_share_limit.empty() ? device.limit(options.memory_sharing) : options.memory_share_limit;
}

OpTimes operation_times(const Options& options, const Model& model, const PlanRequest& request, Backend& backend) {
    if (!options.device_profile.empty()) return nominal_times(options, model, request, backend);
    const std::string path = calibration_path(model, request.shape, request.places, request.logits_chunk_tokens,
                                              backend, fuses(options, backend));
    OpTimes times;
    const auto with_given_link = [&] {
        if (options.link_gbs > 0) times.host_bandwidth = options.link_gbs * 1e9;
        return times;
    };
    if (!options.calibrate && load_times(path, model, &times)) return with_given_link();
    if (!options.calibrate) {
        const ProbedRates* const rates = backend.on_gpu() ? nullptr : probe_once(model, request.places, backend);
        if (rates == nullptr) return nominal_times(options, model, request, backend);
        times = probed_times(model, request.shape, request.places, *rates,
                             {request.logits_chunk_tokens, request.block_tokens});
        return with_given_link();
    }
    times = measure_times(model, request.shape, request.places, request.logits_chunk_tokens, backend,
                          fuses(options, backend));
    if (save_times(path, times)) {
        spdlog::info("calibrated: operation times of this model at {} x {} tokens are kept in '{}'", request.shape.B,
                     request.shape.T, path);
        keep_profile(measured_profile(planned_profile(options, backend), model, request.shape, request.places, times));
    }
    return with_given_link();
}

OpTimes times_to_choose_by(const Options& options, const Model& model, const PlanRequest& request,
                           const OpTimes& predicted, const Backend& backend) {
    return predicted.measured ? predicted : nominal_times(options, model, request, backend);
}

namespace {

ChosenPlan choose_placed(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    Options placed = options;
    placed.recompute = policy, placed.offload = "none";
    std::optional<ChosenPlan> best;
    for (const std::string& offload : placements_to_try(placed, backend)) {
        placed.offload = offload;
        // Of a batch that is open, one sequence.
        const BatchShape shape = {std::max<int64_t>(1, options.batch_size), options.seq_len};
        if (!is_fitting(placed, model, shape, backend)) continue;
        ChosenPlan chosen = choose_plan(placed, policy, model, backend);
        const PlannedMemory& memory = chosen.memory;
        if (!fits_both(placed, backend, memory.total_bytes(), memory.host_bytes())) continue;
        if (!best || chosen.step_seconds < best->step_seconds) best = std::move(chosen);
        if (best->memory.host_bytes() == 0 && best->memory.simulation.extra_flops_ratio() == 0)
            break;  // None is faster.
    }
    placed.offload = "none";  // If nothing fits, this says what is missing, or the caller does.
    if (!best) best = choose_plan(placed, policy, model, backend);
    best->placed = true;
    return std::move(*best);
}

}  // namespace

ChosenPlan choose_plan(const Options& options, const std::string& policy, const Model& model, Backend& backend) {
    if (places_by_itself(options)) return choose_placed(options, policy, model, backend);
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
    chosen.times = times;
    chosen.step_seconds = update_seconds(times, chosen.memory.plan);
    chosen.fusion = describe_fusion(options, model, chosen.memory.plan, backend);
    return chosen;
}

}  // namespace llmc
