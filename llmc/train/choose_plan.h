// From --recompute, --memory-budget and --calibrate to the plan that will run: a fixed policy, or the search's result.
#pragma once

#include "llmc/run/calibrate.h"
#include "llmc/train/options.h"

#include <string>

namespace llmc {

struct ChosenPlan {
    PlannedMemory memory;
    KeepSet keep;  ///< What the plan was made from.
    OpTimes times;
    std::string words;        ///< What is kept and what runs again.
    std::string fusion;       ///< What runs as one, or why nothing does.
    std::string gemms;        ///< Of a run: which algorithms its products have; "" where there is one for each.
    double step_seconds = 0;  ///< Predicted, for a whole update of `micro_batches`.
    double now_seconds = 0;   ///< Where the update is delayed: the same with one at once.
    /// Of the search: by which share of its time a micro-batch is above what no plan beats (plan/relaxation.h), by the
    /// times it was chosen by; -1: no search.
    double above_bound = -1;
    bool placed = false;  ///< What is in host memory was chosen, too (--offload=auto); plan.places says it.
    bool delays_update() const { return memory.plan.delays_update(); }
};

/// --dtype; where it is auto, what suits the device.
DType dtype_of_option(const Options& options, const Backend& backend);

/// How the options spread a run of micro-batches of B sequences over ranks. `on_gpu`: where the tensors live.
Parallel parallel_of(const Options& options, int64_t B, bool on_gpu);
/// The same for a backend, or for the device that --device-profile names.
Parallel parallel_of(const Options& options, int64_t B, const Backend& backend);

/// What a rank keeps where, and in which format: --zero, --offload, --dtype, --optimizer, --moments, --masters and
/// --gradients as a filling of the table. Fails where they contradict each other.
Places places_of(const Options& options, DType dtype);
Places places_of(const Options& options, const Backend& backend);
/// --optimizer.
OptimizerKind optimizer_of(const Options& options);

/// Whether steps are fused: without --no-fuse, and, of a device that --device-profile names, where `backend` is one of
/// that kind to ask.
bool fuses(const Options& options, const Backend& backend);

/// The plan of B sequences at a time, before anything is chosen. What decides bits is that of the device the plan is
/// for.
PlanRequest request_for(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend);

/// Bytes a run may take: --memory-budget, else what the device has available.
int64_t memory_limit(const Options& options, const DeviceInfo& device);

/// Bytes of them that the state of a run leaves to the arena; on a CPU, whose host memory is the same, what is kept
/// there counts too.
int64_t arena_room(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend);

/// Host memory that a search may send inputs of layers to: of a device with memory of its own, where
/// --host-memory-budget says so.
int64_t room_for_inputs(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend);

/// What that limit comes from, if not from the device's size, in words for messages.
std::string memory_bound(const Options& options, const DeviceInfo& device);

/// By attributes and committed rates alone, of --device-profile or this device: the same whenever it is asked.
OpTimes nominal_times(const Options& options, const Model& model, const PlanRequest& request, const Backend& backend);
/// Times of the model's operations, to predict with: of --device-profile; measured with --calibrate, or earlier; else
/// on a CPU those of a probe, and on a GPU analytic ones.
OpTimes operation_times(const Options& options, const Model& model, const PlanRequest& request, Backend& backend);

/// Times that a search goes by, where `predicted` are those of operation_times(): the same in every process. They are
/// what was predicted if that was measured or of a profile; a probe decides nothing.
OpTimes times_to_choose_by(const Options& options, const Model& model, const PlanRequest& request,
                           const OpTimes& predicted, const Backend& backend);

/// The plan of one policy, or of the search for "auto". Where --batch-size is auto, the fastest micro-batch among those
/// that divide the total batch: every one is planned within the memory there is, and the plan's shape says which it
/// became. With --offload=auto the fastest of the placements that fit both memories. Fails, saying the smallest budget
/// that would do and what binds, if the search finds nothing.
ChosenPlan choose_plan(const Options& options, const std::string& policy, const Model& model, Backend& backend);

/// The plan that another rank has chosen, from its keep-set, times and delay of the update.
ChosenPlan plan_of_keep_set(const Options& options, const std::string& name, const KeepSet& keep, const Model& model,
                            const OpTimes& times, int update_ahead, const Backend& backend);

}  // namespace llmc
