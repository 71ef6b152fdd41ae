// Where memory is short: what would fit. Placements that cost nothing but time are tried, and the fastest is named.
#pragma once

#include "llmc/train/choose_plan.h"

#include <optional>
#include <string>
#include <vector>

namespace llmc {

struct Placement {
    std::string recompute, offload;
    double step_seconds = 0;
};

/// The fastest of the placements tried that fits the device and the host, at this batch: --offload from one row of the
/// table of places to all of them, with the run's --recompute, layer and sqrt.
std::optional<Placement> fitting_placement(const Options& options, const Model& model, const BatchShape& shape,
                                           const Backend& backend);

/// Values of --offload, from what costs least to everything.
const std::vector<std::string>& offloads_by_cost();

/// Those of them that --offload=auto may take: each another table of places. Nothing but "none" where the device's
/// memory is the host's.
std::vector<std::string> placements_to_try(const Options& options, const Backend& backend);

/// The predicted time of a step of a run with these options and this batch, if both memories have room for it.
std::optional<double> seconds_if_fitting(const Options& options, const Model& model, const BatchShape& shape,
                                         const Backend& backend);
/// Whether they have; sooner.
bool is_fitting(const Options& options, const Model& model, const BatchShape& shape, const Backend& backend);

/// Bytes of host memory that a rank may keep there: --host-memory-budget, else what is available to each of the ranks
/// of this host, by the limits of control groups and of the process; without end for a device that is elsewhere.
int64_t host_memory_limit(const Options& options);
/// What that limit comes from, in words; "" for the size of the host.
std::string host_memory_bound(const Options& options);

/// Whether the device's memory is the host's.
bool is_one_memory(const Options& options, const Backend& backend);

/// Whether both memories have room; a CPU's are one.
bool fits_both(const Options& options, const Backend& backend, int64_t device_bytes, int64_t host_bytes);

/// Fails unless what a run keeps in host memory is there.
void require_host_memory(const Options& options, const Model& model, const PlannedMemory& memory,
                         const Backend& backend);

}  // namespace llmc
